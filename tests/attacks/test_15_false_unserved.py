"""Row 15: a validator says "not served" of a worker that serves."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import BOND, PARAMS, World

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.ledger.validators import ValidatorSet
from mlchain.vm.families import segments
from mlchain.vm.families.jobs import SegmentState

LIAR = "validator-0"


@pytest.fixture
def world() -> World:
    return World()


def committed(world: World) -> bytes:
    job = world.running()
    world.commit(job)
    return job


def disputable(world: World, job: bytes) -> int:
    """In how many chunks the liar can make everybody stop and re-run one."""
    claims = [world.claim(LIAR, job, chunk, ClaimKind.UNSERVED) for chunk in range(200)]
    blocks = [world.compose(world.transaction(LIAR, claim)) for claim in claims]
    return sum(executed.receipts[0].code == "ok" for _, executed, _ in blocks)


def test_the_liar_reaches_its_own_slice_only(world):
    job = committed(world)
    assert disputable(world, job) == len(world.slice_of(LIAR, job)) == 42


def test_control_without_that_limit_it_reaches_everything(world, monkeypatch):
    monkeypatch.setattr(segments, "is_own_chunk", lambda ctx, job, segment, ticket, offset: True)
    assert disputable(world, committed(world)) == 200


def test_the_worker_serves_all_and_loses_nothing(world):
    job = committed(world)
    world.accuse(LIAR, job, world.slice_of(LIAR, job)[0], ClaimKind.UNSERVED)
    world.judge(job, Outcome.UNSERVED, (LIAR,))
    world.judge(job, Outcome.EQUAL, tuple(name for name in world.validators if name != LIAR))
    assert world.segment(job).state == SegmentState.COMMITTED
    assert world.bond(world.worker_of(job)) == BOND and not world.faults()
    world.harden(job)


def test_the_same_chunk_is_not_asked_for_twice(world):
    job = committed(world)
    chunk = world.slice_of(LIAR, job)[0]
    world.accuse(LIAR, job, chunk, ClaimKind.UNSERVED)
    world.judge(job, Outcome.EQUAL)
    receipt = world.do(LIAR, world.claim(LIAR, job, chunk, ClaimKind.UNSERVED))
    assert receipt.code == "invalid-transaction"


def test_control_if_one_voice_made_a_worker_unavailable_the_liar_would_cost_it_its_bond(
    world, monkeypatch
):
    """With the rest silent, for whatever reason, f voices are not more than a third."""
    for threshold, is_slashed in ((None, False), (1, True)):
        if threshold:
            init = ValidatorSet.__init__

            def frail(self, *arguments, init=init):
                init(self, *arguments)
                self.third = 1

            monkeypatch.setattr(ValidatorSet, "__init__", frail)
        fresh = World(genesis=replace(world.genesis))
        job = committed(fresh)
        worker = fresh.worker_of(job)
        fresh.accuse(LIAR, job, fresh.slice_of(LIAR, job)[0], ClaimKind.UNSERVED)
        fresh.judge(job, Outcome.UNSERVED, (LIAR,))
        fresh.blocks(PARAMS.dispute_window)
        assert (fresh.bond(worker) < BOND) is is_slashed
