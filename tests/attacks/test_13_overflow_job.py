"""Row 13: a submitter posts a job whose numbers overflow, so that honest nodes disagree.

Where a sum overflows depends on its order; what machines make of it (inf, NaN, which NaN) too. Here
a step that leaves the exact range traps, at the same step everywhere, and "trapped at step t" is
the result.
"""

from __future__ import annotations

import numpy as np
import pytest
from attacks.lessons import make_task
from factories import JobSpec, make_chain, make_dataset

from mlchain.crypto import digest
from mlchain.errors import Trap
from mlchain.ml_runtime import Dataset, NumpyBackend, ShardedBackend, Trainer, make_plan
from mlchain.vm.families.jobs import JobState
from mlchain.vm.families.models import MODELS

OVERFLOW = JobSpec(name="overflow", model="linear", rate="1000", steps=64)


def values() -> Dataset:
    data = make_dataset()
    x = data.x.astype(np.float64) * 2.0**-15
    return Dataset.from_arrays(x, x.sum(axis=1, keepdims=True))


def trap_of(backend: object) -> int:
    plan = make_plan("linear", features=4, outputs=1, optimiser="sgd", batch=8, rate="1000")
    base = make_task()
    task = type(base)(plan.encode(), 64, 4, 45, 15)
    trainer = Trainer(task, values(), digest("test-order"), backend)
    state = trainer.initial_state()
    with pytest.raises(Trap) as caught:
        for chunk in range(task.chunks):
            state = trainer.run_chunk(chunk, state)
    return caught.value.step


def test_every_machine_traps_at_the_same_step():
    steps = {trap_of(backend) for backend in (NumpyBackend(), ShardedBackend(2), ShardedBackend(3))}
    assert len(steps) == 1 and steps.pop() > 0


def test_the_trap_is_the_result_it_is_paid_for_and_the_rest_goes_back():
    chain = make_chain(4, 2)
    job = chain.run_job(OVERFLOW, values())
    record = chain.job(job)
    assert (record.state, record.escrow) == (JobState.TRAPPED, 0)
    assert MODELS.get(chain.chain.state(), job) is None


def test_control_plain_float32_overflows_differently_in_another_order():
    """Two honest machines that add the same four numbers, one from the left, one in pairs."""
    big = np.float32(3e38)
    numbers = [big, big, -big, -big]
    with np.errstate(over="ignore", invalid="ignore"):
        left = ((numbers[0] + numbers[1]) + numbers[2]) + numbers[3]
        pairs = (numbers[0] + numbers[2]) + (numbers[1] + numbers[3])
    assert np.isinf(left) and pairs == 0, "each would call the other a cheat"
    nan = np.float32("nan")
    assert not np.equal(nan, nan), "and a result of NaN does not even equal itself"
