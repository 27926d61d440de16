"""Row 12: a validator accuses honest work."""

from __future__ import annotations

import pytest
from vm.world import BOND, PARAMS, World

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.dispute import Ruling
from mlchain.vm import lifecycle
from mlchain.vm.families.jobs import SegmentState

LIAR = "validator-0"


@pytest.fixture
def world() -> World:
    return World()


def accuse(world: World) -> bytes:
    """A false claim; the liar votes for it, the honest re-run the chunk and find it equal."""
    job = world.running()
    world.commit(job)
    world.accuse(LIAR, job, 7)
    honest = ("validator-1", "validator-2", "validator-3")
    for outcome, names in ((Outcome.DIFFERS, (LIAR,)), (Outcome.EQUAL, honest)):
        if world.segment(job).claim is not None:  # in the control it is settled at once
            world.judge(job, outcome, names)
    return job


def test_all_re_run_the_chunk_and_the_accuser_pays(world):
    job = accuse(world)
    assert world.segment(job).state == SegmentState.COMMITTED
    assert world.bond(world.worker_of(job)) == BOND
    assert world.bond(LIAR) == BOND - PARAMS.slash_validator and world.balance(LIAR) == 0
    world.harden(job)
    assert world.balance(world.worker_of(job)) > 0


def test_f_liars_together_cannot_convict_either():
    world = World(7)
    job = world.running()
    world.commit(job)
    world.accuse("validator-0", job, 7)
    world.judge(job, Outcome.DIFFERS, ("validator-0", "validator-1"))
    world.judge(job, Outcome.EQUAL, tuple(f"validator-{i}" for i in range(2, 7)))
    assert world.bond(world.worker_of(job)) == BOND
    assert [fault.kind for fault in world.faults()] == ["false-accusation"]


def test_control_if_the_accusers_word_were_enough_honest_workers_would_lose_their_bonds(
    world, monkeypatch
):
    monkeypatch.setattr(lifecycle, "settle", lambda ballots, validators, due: Ruling.UPHELD)
    job = accuse(world)
    assert [fault.kind for fault in world.faults()] == ["forged"]
    assert world.balance(LIAR) == PARAMS.slash_worker // 2, "and the liar would be paid for it"
    assert world.segment(job).attempt == 1
