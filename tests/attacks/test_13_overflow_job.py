"""Row 13: a submitter posts a job whose numbers overflow, so that honest nodes disagree.

Where a sum overflows depends on its order; what machines make of it (inf, NaN, which NaN) too. Here
a step that leaves the exact range traps, at the same step everywhere, and "trapped at step t" is
the result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import numpy as np
import pytest
from attacks.lessons import make_task
from factories import JobSpec, make_chain, make_dataset

from mlchain.crypto import digest
from mlchain.errors import Trap
from mlchain.ml_runtime import Dataset, NumpyBackend, ShardedBackend, State, Trainer, make_plan
from mlchain.vm.families.jobs import JobState
from mlchain.vm.families.models import MODELS

OVERFLOW = JobSpec(name="overflow", model="linear", rate="1000", steps=64)


def values() -> Dataset:
    data = make_dataset()
    x = data.x.astype(np.float64) * 2.0**-15
    return Dataset.from_arrays(x, x.sum(axis=1, keepdims=True))


def trap_of(backend: object) -> tuple[int, int]:
    """The step of the trap, and the first step after which a weight was no number any more."""
    plan = make_plan("linear", features=4, outputs=1, optimiser="sgd", batch=8, rate="1000")
    base = make_task()
    task = type(base)(plan.encode(), 64, 4, 45, 15)
    trainer = Trainer(task, values(), digest("test-order"), backend)
    state, infinite = trainer.initial_state(), []

    def look(step: int, after: State) -> None:
        if not all(np.isfinite(tensor).all() for tensor in after.tensors):
            infinite.append(step)

    with pytest.raises(Trap) as caught:
        for chunk in range(task.chunks):
            state = trainer.run_chunk(chunk, state, look)
    return caught.value.step, infinite[0]


def test_every_machine_traps_at_the_same_step():
    """In the chunk in which it happens, so that no state that is served holds anything else."""
    found = {trap_of(backend) for backend in (NumpyBackend(), ShardedBackend(2), ShardedBackend(3))}
    ((trap, infinite),) = found
    assert trap // 4 == infinite // 4 > 0


def test_the_trap_is_the_result_it_is_paid_for_and_the_rest_goes_back():
    chain = make_chain(4, 2)
    job = chain.run_job(OVERFLOW, values())
    record = chain.job(job)
    assert (record.state, record.escrow) == (JobState.TRAPPED, 0)
    assert MODELS.get(chain.chain.state(), job) is None


def in_float32(plus: Callable[[list], object]) -> list[np.ndarray]:
    """The same regression in plain float32: the weights after each step, sums made by `plus`."""
    x = (values().x.astype(np.float64) * 2.0**-15).astype(np.float32)
    w, after = np.zeros(4, np.float32), []
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(64):
            rows = x[np.arange(step * 8, step * 8 + 8) % 45]
            errors = [plus(list(row * w)) - row.sum() for row in rows]
            w = w - np.float32(1000 / 8) * plus([r * e for r, e in zip(rows, errors, strict=True)])
            after.append(w)
    return after


def in_pairs(numbers: list) -> object:
    half = len(numbers) // 2
    return in_pairs(numbers[:half]) + in_pairs(numbers[half:]) if half else numbers[0]


def test_control_in_plain_float32_two_honest_machines_call_each_other_cheats():
    """One adds from the left, one in pairs: they part before it overflows, and where it does."""
    left, pairs = in_float32(lambda numbers: reduce(add, numbers)), in_float32(in_pairs)
    differ = [a.tobytes() != b.tobytes() for a, b in zip(left, pairs, strict=True)]
    overflow = next(step for step, w in enumerate(left) if not np.isfinite(w).all())
    assert differ[overflow] and all(differ[:overflow])
    assert not np.equal(left[-1], left[-1]).any(), "and NaN does not even equal itself"
