"""A run takes the memory its plan declares, and an op little besides."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import suppress

import pytest
from ml_factory import SEED, make_dataset, make_program, make_task

from mlchain.errors import Trap
from mlchain.ml_runtime import NumpyBackend, Trainer
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.op import OPS
from mlchain.ml_runtime.program import check
from mlchain.ml_runtime.tensor import allocate

BESIDES = 600_000
"""Bytes that an op may take for its duration besides twice its largest tensor: pieces that fit the
cache, numbers by row."""


def traced(call) -> int:
    """Return the most bytes that a call takes besides what there was."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["mlp", "softmax"])
def test_training_takes_what_the_plan_declares(name):
    data = make_dataset(rows=400, features=200)
    options = {"hidden": (500,)} if name == "mlp" else {}
    task = make_task(data, name, steps=4, chunk=2, batch=128, **options)
    trainer = Trainer(task, data, SEED)
    kept = 4 * trainer.cost.state_bytes  # the first, before, after, the copy that is handed out
    batch = 128 * 200 * (8 + 2) + 128 * 8

    def train() -> None:
        again = Trainer(task, data, SEED)
        again.run_chunk(0, again.initial_state())

    train()
    assert traced(train) < trainer.cost.arena_bytes + kept + batch + BESIDES


def test_a_step_takes_hardly_any_memory():
    data = make_dataset(rows=400, features=200)
    trainer = Trainer(make_task(data, steps=8, chunk=2, batch=128, hidden=(500,)), data, SEED)
    state = trainer.run_chunk(0, trainer.initial_state())
    result = trainer.cost.state_bytes  # a chunk returns its state in new arrays
    assert trainer.cost.arena_bytes > 2 * BESIDES
    assert traced(lambda: trainer.run_chunk(1, state)) < result + BESIDES


@pytest.mark.parametrize("name", sorted(OPS))
def test_an_op_takes_at_most_twice_its_largest_tensor_besides(name):
    program, inputs = make_program(1, 1, [name])
    kinds = check(program).types
    outputs = [allocate(kinds[r]) for r in program.outputs]
    run = NumpyBackend().bind(program, inputs, outputs)

    def once() -> None:
        with suppress(Trap):
            run()

    once()
    assert traced(once) < 2 * max(kind.bytes for kind in kinds) + BESIDES


def test_the_workspace_has_the_size_that_plans_declare():
    assert abs(traced(Scratch) - Scratch.BYTES) < 5000
