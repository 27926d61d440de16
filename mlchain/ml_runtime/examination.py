"""The long examination of a backend: every pinned case, every vector, one verdict each.

The vectors are those of `tests/vectors/ml_runtime`, shipped with the package, so that an installed
one can be examined on the machine where it will compute.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from mlchain import codec
from mlchain.errors import Trap
from mlchain.ml_runtime import grid, selftest
from mlchain.ml_runtime.data import Dataset
from mlchain.ml_runtime.machine import Backend, execute
from mlchain.ml_runtime.program import Program
from mlchain.ml_runtime.tensor import storage
from mlchain.ml_runtime.train import Task, Trainer

Case = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one case gave: whether it is what the oracle computed, and if not, what differs."""

    case: str
    is_equal: bool
    reason: str = ""


def examine(backend: Backend) -> Iterator[Verdict]:
    """Yield the verdict on every case; a library that fails in its own way only fails the case."""
    yield _verdict("rounding", _probe)
    for name, compute in selftest.CASES.items():
        yield _verdict(f"self-test: {name}", lambda n=name, c=compute: _self_test(n, c, backend))  # type: ignore[misc]
    for case in vectors("programs"):
        yield _verdict(f"program {case['seed']}", lambda c=case: _program(c, backend))  # type: ignore[misc]
    for case in vectors("trainings"):
        yield _verdict(f"training: {case['name']}", lambda c=case: _training(c, backend))  # type: ignore[misc]


def vectors(name: str) -> list[Case]:
    """Return the cases of a file of vectors."""
    cases: list[Case] = json.loads((files(__package__) / "vectors" / f"{name}.json").read_text())
    return cases


def _verdict(case: str, difference: Callable[[], str]) -> Verdict:
    try:
        reason = difference()
    except Exception as error:  # of whatever library
        lines = str(error).splitlines() or [type(error).__name__]
        reason = f"fails: {lines[0]}"
    return Verdict(case, not reason, reason)


def _probe() -> str:
    grid.probe()
    return ""


def _self_test(name: str, compute: Callable[[Backend], bytes], backend: Backend) -> str:
    return "" if compute(backend).hex() == selftest.PINNED[name] else "another digest"


def _program(case: Case, backend: Backend) -> str:
    """Return what differs in a program of random ops: the first op, or the trap."""
    program = codec.decode(Program, bytes.fromhex(case["program"]))
    inputs = [
        np.frombuffer(bytes.fromhex(raw), storage(kind)).reshape(kind.shape)
        for raw, kind in zip(case["inputs"], program.inputs, strict=True)
    ]
    trace: list[bytes] = []
    trap = ""
    try:
        execute(program, inputs, backend, trace)
    except Trap as error:
        trap = error.message
    for at, (got, wanted) in enumerate(zip(trace, case["digests"], strict=False)):
        if got.hex() != wanted:
            return f"output {at} of its ops differs"
    if len(trace) != len(case["digests"]) or trap != case["trap"]:
        return f"trap {trap!r}, not {case['trap']!r}"
    return ""


def _training(case: Case, backend: Backend) -> str:
    """Return what differs in a training: the first chunk, the step that traps, or the score."""
    task = codec.decode(Task, bytes.fromhex(case["task"]))
    dataset = Dataset.decode(bytes.fromhex(case["dataset"]))
    trainer = Trainer(task, dataset, bytes.fromhex(case["seed"]), backend)
    state, trap = trainer.initial_state(), None
    digests = [state.digest().hex()]
    try:
        for index in range(task.chunks):
            state = trainer.run_chunk(index, state)
            digests.append(state.digest().hex())
    except Trap as error:
        trap = error.step
    if trap != case["trap_step"]:
        return f"traps at step {trap}, not {case['trap_step']}"
    for at, (got, wanted) in enumerate(zip(digests, case["digests"], strict=True)):
        if got != wanted:
            return f"the state before chunk {at} differs"
    if trap is None and codec.encode(trainer.evaluate(state)).hex() != case["metrics"]:
        return "the score differs"
    return ""
