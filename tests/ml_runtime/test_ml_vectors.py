"""The vectors: inputs and digests the oracle froze. Any backend reproduces them bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_factory import backend_or_skip, observe

from mlchain import codec
from mlchain.errors import Trap
from mlchain.ml_runtime import Backend, Dataset, Oracle, Task, Trainer
from mlchain.ml_runtime.backends import BACKENDS
from mlchain.ml_runtime.functions import TABLE_DIGEST
from mlchain.ml_runtime.op import OPS
from mlchain.ml_runtime.program import Program
from mlchain.ml_runtime.tensor import storage

VECTORS = Path(__file__).parent.parent / "vectors" / "ml_runtime"


def load(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / f"{name}.json").read_text())


PROGRAMS, TRAININGS = load("programs"), load("trainings")
backends = pytest.mark.parametrize("backend", ["oracle", *BACKENDS])


def make(name: str) -> Backend:
    return Oracle() if name == "oracle" else backend_or_skip(name)


@backends
@pytest.mark.parametrize("case", PROGRAMS, ids=[f"seed {c['seed']}" for c in PROGRAMS])
def test_every_op_of_every_program_gives_its_digest(backend, case):
    program = codec.decode(Program, bytes.fromhex(case["program"]))
    inputs = [
        np.frombuffer(bytes.fromhex(raw), storage(kind)).reshape(kind.shape)
        for raw, kind in zip(case["inputs"], program.inputs, strict=True)
    ]
    trace, trap = observe(program, inputs, make(backend))
    assert [digest.hex() for digest in trace] == case["digests"]
    assert trap == case["trap"]


@backends
@pytest.mark.parametrize("case", TRAININGS, ids=[c["name"] for c in TRAININGS])
def test_every_chunk_of_every_training_gives_its_digest(backend, case):
    task = codec.decode(Task, bytes.fromhex(case["task"]))
    dataset = Dataset.decode(bytes.fromhex(case["dataset"]))
    trainer = Trainer(task, dataset, bytes.fromhex(case["seed"]), make(backend))
    state = trainer.initial_state()
    digests, trap = [state.digest().hex()], None
    try:
        for index in range(task.chunks):
            state = trainer.run_chunk(index, state)
            digests.append(state.digest().hex())
    except Trap as error:
        trap = error.step
    assert digests == case["digests"]
    assert trap == case["trap_step"]
    if trap is None:
        assert codec.encode(trainer.evaluate(state)).hex() == case["metrics"]


def test_the_tables_have_their_digest():
    assert load("tables") == [{"digest": TABLE_DIGEST}]


def test_the_programs_use_every_op_and_some_trap():
    used = {
        node.op
        for case in PROGRAMS
        for node in codec.decode(Program, bytes.fromhex(case["program"])).nodes
    }
    assert used == OPS.keys()
    assert sum(bool(case["trap"]) for case in PROGRAMS) >= 3
