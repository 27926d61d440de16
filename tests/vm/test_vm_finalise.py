"""FINALISE: each condition alone makes the block invalid; then the fee is paid (sections 8, 11)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import JOB, PARAMS, World, make_genesis

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.rewards import segment_fee, split_fee
from mlchain.crypto import digest
from mlchain.errors import InvalidBlock
from mlchain.ledger.block import SegmentRef, body_root
from mlchain.vm.families.accounts import get_burned
from mlchain.vm.families.jobs import ACTIVE, JobState, SegmentState
from mlchain.vm.families.models import MODELS

DEPTH = 1 + 2
"""D = f + 2 for four validators."""


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def job(world: World) -> bytes:
    made = world.running()
    world.commit(made)
    return made


def invalid(world: World, *refs: SegmentRef) -> str:
    """Neither can the block be built nor would a node that gets it accept it."""
    with pytest.raises(InvalidBlock) as caught:
        world.compose(finalise=refs)
    honest, _, _ = world.compose()
    body = replace(honest.body, finalise=refs)
    header = replace(honest.header, body_root=body_root(body))
    with pytest.raises(InvalidBlock, match="cannot be HARD"):
        world.check(replace(honest, header=header, body=body))
    return caught.value.message


def test_a_segment_is_hard_at_the_age_of_f_plus_2_and_not_before(world, job):
    world.attest(job)
    commit = world.segment(job).commit_height
    while world.height + 1 < commit + DEPTH:
        assert "too young" in invalid(world, world.ref(job))
        world.block()
    world.block(finalise=(world.ref(job),))
    segment = world.segment(job)
    assert (segment.state, segment.hard_height) == (SegmentState.HARD, commit + DEPTH)


@pytest.mark.parametrize("validators, depth", [(1, 2), (4, 3), (7, 4), (10, 5)])
def test_the_age_leaves_room_for_an_honest_proposer(validators, depth):
    world = World(validators)
    job = world.running()
    world.commit(job)
    commit = world.segment(job).commit_height
    world.harden(job)
    assert world.segment(job).hard_height == max(commit + depth, commit + 3)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_less_than_a_quorum_of_attestations_is_not_enough(world, job, count):
    world.attest(job, names=tuple(world.validators[:count])) if count else None
    world.blocks(DEPTH)
    assert f"attested by weight {count} of 3" in invalid(world, world.ref(job))


def test_a_quorum_is_enough(world, job):
    world.attest(job, names=tuple(world.validators[:3]))
    world.blocks(DEPTH)
    world.block(finalise=(world.ref(job),))
    assert world.job(job).hard == 1


def test_the_attestation_of_a_removed_validator_weighs_nothing(world, job):
    world.attest(job, names=tuple(world.validators[:3]))
    liar, proposer = world.validators[0], world.validators[1]
    world.blocks(DEPTH)
    world.block(evidence=(world.double_vote(liar),), proposer=proposer)
    assert "too young" in invalid(world, world.ref(job)), "others propose: the age counts anew"
    world.blocks(DEPTH)
    assert "attested by weight 2 of 3" in invalid(world, world.ref(job))


def test_segments_become_hard_in_their_order(world, job):
    world.commit(job, 1)
    world.attest(job)
    world.attest(job, 1)
    world.blocks(DEPTH)
    assert "the segment before is not HARD" in invalid(world, world.ref(job, 1))
    world.block(finalise=(world.ref(job), world.ref(job, 1)))
    assert world.job(job).hard == 2, "both in one block, in order"


def test_the_wrong_order_in_one_block_is_wrong(world, job):
    world.commit(job, 1)
    world.attest(job)
    world.attest(job, 1)
    world.blocks(DEPTH)
    assert "the segment before" in invalid(world, world.ref(job, 1), world.ref(job))


def test_a_disputed_segment_does_not_become_hard(world, job):
    world.attest(job)
    world.blocks(DEPTH)
    world.accuse(world.validators[0], job, 3)
    assert "disputed" in invalid(world, world.ref(job))


def test_a_claim_in_the_same_block_comes_first(world, job):
    world.attest(job)
    world.blocks(DEPTH)
    claim = world.transaction(world.validators[0], world.claim(world.validators[0], job, 3))
    with pytest.raises(InvalidBlock, match="disputed"):
        world.compose(claim, finalise=(world.ref(job),))


def test_the_age_counts_anew_after_a_rejected_claim(world, job):
    """Else an accomplice disputes a right chunk until the age is reached, and the true claim,
    which has to wait meanwhile, meets a proposer that finalises in the same block."""
    world.attest(job)
    world.accuse(world.validators[0], job, 3)
    world.blocks(DEPTH)
    world.judge(job, Outcome.EQUAL, tuple(world.validators[1:]))
    assert world.segment(job).state == SegmentState.COMMITTED
    assert world.segment(job).undisputed_since == world.height
    for _ in range(DEPTH - 1):
        assert "too young" in invalid(world, world.ref(job))
        world.block()
    world.block(finalise=(world.ref(job),))


def test_a_segment_becomes_hard_once(world, job):
    world.attest(job)
    world.blocks(DEPTH)
    ref = world.ref(job)
    assert "not committed" in invalid(world, ref, ref)
    world.block(finalise=(ref,))
    assert "not committed" in invalid(world, ref)


def test_what_is_not_there_does_not_become_hard(world, job):
    assert "not committed" in invalid(world, world.ref(job, 1)), "assigned only"
    assert "no such segment" in invalid(world, world.ref(job, 2))
    assert "no such segment" in invalid(world, SegmentRef(digest("test-no-job"), 0))


def test_a_job_that_ended_has_nothing_left_to_finalise(world):
    job = world.running(steps=400)
    world.settle(job)
    assert "not committed" in invalid(world, world.ref(job))
    assert "no such segment" in invalid(world, world.ref(job, 1))


# ---- payment


def test_a_hard_segment_pays_worker_verifiers_and_proposer_and_burns_the_rest(world, job):
    attesters = tuple(world.validators[:3])
    world.attest(job, names=attesters)
    world.blocks(DEPTH)
    proposer = world.validators[3]
    world.block(finalise=(world.ref(job),), proposer=proposer)
    fee = segment_fee(JOB.fee, 0, 200, 1000)
    share = split_fee(fee, 3)
    assert world.balance(world.worker_of(job)) == share.worker == fee * 80 // 100
    assert [world.balance(name) for name in attesters] == [share.verifier] * 3
    assert world.balance(proposer) == share.proposer
    assert get_burned(world.state()) == share.burned
    assert world.job(job).escrow == JOB.fee - fee


def test_a_verifier_that_was_removed_meanwhile_is_not_paid():
    world = World(7)
    job = world.running()
    world.commit(job)
    world.attest(job)
    liar, proposer = world.validators[6], world.validators[0]
    world.blocks(4)
    world.block(evidence=(world.double_vote(liar),), proposer=proposer)
    before = world.balance(liar)
    world.blocks(3, proposer=proposer)
    world.block(finalise=(world.ref(job),), proposer=proposer)
    assert world.balance(liar) == before
    assert world.balance(world.validators[1]) == split_fee(segment_fee(JOB.fee, 0, 200, 1000), 6)[1]


def test_the_last_segment_registers_the_model_and_the_whole_fee_is_spent(world):
    job = world.running(steps=2 * 250)
    before = world.balance("alice")
    world.settle(job)
    record, model = world.job(job), MODELS.get(world.state(), job)
    assert (record.state, record.escrow, record.hard) == (JobState.SETTLED, 0, 2)
    assert world.balance("alice") == before
    last = world.segment(job, 1).commit
    assert (model.state, model.content, model.metrics) == (last.end, last.end_content, last.metrics)
    assert (model.plan, model.dataset, model.name) == (record.plan, record.dataset, record.name)
    assert model.height == world.height
    assert not list(ACTIVE.items(world.state()))


def test_an_agreed_trap_ends_the_job_pays_what_was_run_and_refunds_the_rest(world):
    job = world.running()
    world.commit(job)
    world.commit(job, 1, trap=2 * 250 + 1, count=50)  # a step of two of the next chunk
    before = world.balance("alice")
    world.harden(job)
    world.harden(job, 1)
    assert world.job(job).state == JobState.TRAPPED
    assert world.balance("alice") == before + JOB.fee - segment_fee(JOB.fee, 0, 501, 2000)
    assert MODELS.get(world.state(), job) is None
    assert world.segment(job, 1).state == SegmentState.HARD
    assert world.find_segment(job, 2) is None


def test_segments_of_many_jobs_become_hard_in_one_block():
    world = World(genesis=make_genesis(params=replace(PARAMS, attest_window=100)))
    jobs = [world.running(name=f"job-{i}", steps=400) for i in range(3)]
    for job in jobs:
        world.commit(job)
    for job in jobs:
        world.attest(job)
    world.blocks(DEPTH)
    world.block(finalise=tuple(world.ref(job) for job in jobs))
    assert [world.job(job).state for job in jobs] == [JobState.SETTLED] * 3
