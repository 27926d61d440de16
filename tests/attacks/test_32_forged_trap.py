"""Row 32: a worker runs a few chunks, forges a state that really traps, and is done with the rest.

The chunk that traps is in every slice, and is right: from that state it does trap. The forged one
is a single chunk among many. What it must not bring is the pay of all that was left out.
"""

from __future__ import annotations

import numpy as np
import pytest
from attacks.lessons import SEED, make_task
from factories import make_dataset
from vm.world import World

from mlchain.consensus.work.rewards import WORKER_PERCENT, segment_fee
from mlchain.errors import Trap
from mlchain.ml_runtime import State, Trainer
from mlchain.vm import lifecycle
from mlchain.vm.families.accounts import get_burned
from mlchain.vm.families.jobs import JobState

CHUNKS, RUN, FEE = 10_000, 150, 10**8
"""Of the job, in one segment; what the worker runs of it, the last one forged; what is paid."""


def forge(world: World) -> tuple[int, bytes]:
    """Jobs until no slice holds the forged chunk; returns what its worker earned, and the job."""
    for number in range(9):
        job = world.running(
            name=f"job-{number}", steps=2 * CHUNKS, segment=CHUNKS, tier="economic", fee=FEE
        )
        worker = world.worker_of(job)
        before = world.balance(worker)
        world.commit(job, count=RUN, trap=2 * RUN + 1)
        if not any(RUN - 1 in world.slice_of(name, job) for name in world.validators):
            world.harden(job)
            assert world.job(job).state == JobState.TRAPPED
            return world.balance(worker) - before, job
    raise AssertionError("found nine times of nine")


@pytest.fixture
def world() -> World:
    return World()


def test_a_valid_state_can_be_made_from_which_the_next_chunk_traps():
    """So the chunk that traps tells nothing, and no check of it alone can help."""
    trainer = Trainer(make_task(optimiser="adam"), make_dataset(), SEED)
    large = State(tuple(np.full_like(x, 3.4e38) for x in trainer.initial_state().tensors))
    forged = State.decode(large.encode(), trainer.plan)
    with pytest.raises(Trap):
        trainer.run_chunk(4, forged)


def test_a_forged_trap_earns_no_more_than_the_work_that_leads_to_it(world):
    before = world.balance("alice")
    earned, _ = forge(world)
    assert 0 < earned <= FEE * WORKER_PERCENT * (RUN + 1) // (100 * CHUNKS)
    assert world.balance("alice") >= before - FEE * (RUN + 1) // CHUNKS, "the rest came back"


def test_control_paid_for_the_segment_it_earns_all_for_a_hundredth_of_the_work(world, monkeypatch):
    def whole(job: object, index: int, commit: object) -> int:
        return segment_fee(FEE, 0, CHUNKS, CHUNKS)

    monkeypatch.setattr(lifecycle, "_earned", whole)
    earned, job = forge(world)
    assert earned == FEE * WORKER_PERCENT // 100
    assert world.job(job).escrow == 0 and get_burned(world.state()) > 0


def test_a_job_that_traps_at_once_pays_for_the_steps_that_were_run(world):
    """Not nothing, or programs that trap would be a way to have others compute for nothing."""
    job = world.running(steps=2 * CHUNKS, chunk=20, segment=CHUNKS // 10, fee=FEE)
    worker = world.worker_of(job)
    before = world.balance(worker)
    world.commit(job, count=0, trap=5)
    world.harden(job)
    assert world.balance(worker) - before == FEE * WORKER_PERCENT // 100 * 5 // (2 * CHUNKS)
