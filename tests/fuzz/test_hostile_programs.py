"""Hostile programs and weights: a clear refusal, or what the oracle finds, trap for trap."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hostile_programs import hostile_inputs, hostile_program
from ml_factory import observe

from mlchain import codec
from mlchain.errors import CodecError, ConfigError, RejectedProgram
from mlchain.ml_runtime import NumpyBackend, Oracle, ShardedBackend
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.program import Checked, Program, check
from mlchain.ml_runtime.tensor import Type

MAX_ELEMENTS = 3_000
"""Of programs that are run: the oracle is slow."""
REFUSED_BYTES = 4 << 20
"""The check of 4,096 nodes keeps a record of each; a tensor here would be far larger."""


def admit(seed: int) -> Checked | None:
    """Check one program, from bytes if it has an encoding; None if it is refused in words."""
    program = hostile_program(seed)
    try:
        program = codec.decode(Program, codec.encode(program))
        return check(program)
    except (CodecError, RejectedProgram) as error:
        assert error.message
        return None


def attack(seed: int) -> str:
    """Return what became of one hostile program: refused, large, trapped or ran."""
    checked = admit(seed)
    if checked is None:
        return "refused"
    for kind in checked.types:
        assert codec.decode(Type, codec.encode(kind)) == kind, "an op made no type of tensor"
    if sum(t.elements for t in checked.types) > MAX_ELEMENTS:
        return "large"
    inputs = hostile_inputs(seed, checked.program.inputs)
    before = [array.tobytes() for array in inputs]
    trace, trap = observe(checked.program, inputs, NumpyBackend())
    assert (trace, trap) == observe(checked.program, inputs, Oracle())
    assert [array.tobytes() for array in inputs] == before, "an input was written to"
    try:
        assert (trace, trap) == observe(checked.program, inputs, ShardedBackend(2))
    except (RejectedProgram, ConfigError) as error:  # it mixes rows, or has one row only
        assert error.message
    return "trapped" if trap else "ran"


def attack_all(seeds: range) -> Counter[str]:
    """Attack with every seed; a failure names its own."""
    found: Counter[str] = Counter()
    for seed in seeds:
        try:
            found[attack(seed)] += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed}") from error
    return found


def test_a_hostile_program_is_refused_in_words_or_does_what_the_oracle_does():
    found = attack_all(range(70))
    assert found["refused"] > 20
    assert found["ran"] > 10
    assert found["trapped"] > 1


def test_what_is_refused_allocates_nothing(monkeypatch):
    def nothing(*args, **kwargs):
        raise AssertionError("memory was taken")

    refused = [hostile_program(seed) for seed in range(1000, 1080) if admit(seed) is None]
    assert len(refused) > 20
    for taker in ("empty", "zeros", "full", "empty_like", "zeros_like"):
        monkeypatch.setattr(np, taker, nothing)
    backend = NumpyBackend.__new__(NumpyBackend)  # its workspace is no tensor of the program
    tracemalloc.start()
    try:
        for program in refused:
            with pytest.raises((CodecError, RejectedProgram)):
                execute(codec.decode(Program, codec.encode(program)), [], backend)
        assert tracemalloc.get_traced_memory()[1] < REFUSED_BYTES
    finally:
        tracemalloc.stop()


def test_a_program_that_is_not_refused_does_take_memory(monkeypatch):
    """Control: the patched numpy of the test above notices."""
    seed = next(seed for seed in range(1000, 1080) if attack(seed) == "ran")
    checked = admit(seed)
    assert checked is not None
    inputs = hostile_inputs(seed, checked.program.inputs)
    backend, calls = NumpyBackend(), []
    zeros = np.zeros
    monkeypatch.setattr(np, "zeros", lambda *a, **k: calls.append(a) or zeros(*a, **k))
    observe(checked.program, inputs, backend)
    assert calls


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_hostile_programs_for_long(block):
    attack_all(range(10_000 + block * 2000, 12_000 + block * 2000))
