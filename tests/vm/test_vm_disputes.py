"""Claims and how they end on chain (sections 5 and 10)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import BOND, JOB, PARAMS, World, make_genesis

from mlchain.consensus.work.attestation import Outcome, Verdict
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.crypto import digest
from mlchain.errors import InvalidBlock
from mlchain.vm import lifecycle
from mlchain.vm.families.accounts import get_burned
from mlchain.vm.families.jobs import SegmentState
from mlchain.vm.families.members import WORKERS
from mlchain.vm.families.segments import MakeClaim

ME, YOU = "validator-0", "validator-1"
WINDOW = PARAMS.dispute_window


@pytest.fixture
def world() -> World:
    return World(workers=3)


@pytest.fixture
def job(world: World) -> bytes:
    made = world.running()
    world.commit(made)
    return made


def refusal(world: World, claim: MakeClaim, sender: str = ME) -> str:
    receipt = world.do(sender, claim)
    assert receipt.code == "invalid-transaction"
    return receipt.message


# ---- making a claim


def test_a_claim_disputes_its_segment(world, job):
    world.accuse(ME, job, 3)
    segment = world.segment(job)
    assert segment.state == SegmentState.DISPUTED
    assert (world.names[segment.claim.accuser], segment.claim.chunk) == (ME, 3)
    assert segment.claim.height == world.height


@pytest.mark.parametrize("sender", ["alice", "worker-0"])
def test_only_a_validator_makes_claims(world, job, sender):
    with pytest.raises(InvalidBlock, match="only a validator may send MakeClaim"):
        world.do(sender, world.claim(ME, job, 3))


def test_whoever_was_removed_makes_none(world, job):
    world.block(evidence=(world.double_vote(ME),), proposer=YOU)
    with pytest.raises(InvalidBlock, match="only a validator"):
        world.do(ME, world.claim(ME, job, 3))


@pytest.mark.parametrize("chunk", [200, 201, 2**40])
def test_a_claim_names_a_chunk_of_the_segment(world, job, chunk):
    assert "is not in segment 0" in refusal(world, world.claim(ME, job, chunk))


def test_chunks_are_counted_from_the_start_of_the_job(world, job):
    world.commit(job, 1)
    assert "is not in segment 1" in refusal(world, world.claim(ME, job, 199, index=1))
    world.accuse(ME, job, 200, index=1)


def test_of_a_trapped_segment_the_chunk_that_traps_can_be_claimed(world):
    job = world.running()
    world.commit(job, trap=2 * 50 + 1, count=50)
    assert "is not in segment" in refusal(world, world.claim(ME, job, 51))
    world.accuse(ME, job, 50)


def test_a_claim_is_bound_to_the_commit_it_accuses(world, job):
    stray = replace(world.claim(ME, job, 3), commit=digest("test-other"))
    assert "not at work" in refusal(world, stray)


def test_without_a_commit_there_is_nothing_to_claim(world, job):
    claim = replace(world.claim(ME, job, 3), segment=1)
    assert "not at work" in refusal(world, claim)
    assert "no segment 2" in refusal(world, replace(claim, segment=2))


def test_one_claim_at_a_time(world, job):
    world.accuse(ME, job, 3)
    assert "disputed already" in refusal(world, world.claim(YOU, job, 4), YOU)


def test_of_what_is_hard_nothing_but_fraud_is_claimed(world, job):
    claim = world.claim(ME, job, world.slice_of(ME, job)[0], ClaimKind.UNSERVED)
    world.harden(job)
    assert "HARD" in refusal(world, claim)


# ---- UNSERVED is limited to one's own slice


def test_an_unserved_claim_names_a_chunk_of_the_own_slice(world, job):
    mine = world.slice_of(ME, job)
    foreign = next(chunk for chunk in range(200) if chunk not in mine)
    assert "own slice" in refusal(world, world.claim(ME, job, foreign, ClaimKind.UNSERVED))
    world.accuse(ME, job, mine[0], ClaimKind.UNSERVED)


@pytest.mark.parametrize("kind", ["another validator's", "of another height", "made up"])
def test_the_slice_is_proven_by_the_ticket(world, job, kind):
    height = world.segment(job).commit_height
    ticket = {
        "another validator's": world.ticket(YOU, height),
        "of another height": world.ticket(ME, height + 1),
        "made up": digest("test-ticket"),
    }[kind]
    claim = world.claim(ME, job, world.slice_of(ME, job)[0], ClaimKind.UNSERVED)
    assert "ticket" in refusal(world, replace(claim, ticket=ticket))


def test_the_chunk_that_traps_is_part_of_every_slice(world):
    """It decides the result, so everybody re-runs it and may ask for it."""
    job = world.running()
    world.commit(job, trap=2 * 50 + 1, count=50)
    assert all(50 in world.slice_of(name, job) for name in world.validators)
    world.accuse(ME, job, 50, ClaimKind.UNSERVED)


def test_a_fraud_claim_needs_no_slice(world, job):
    mine = world.slice_of(ME, job)
    foreign = next(chunk for chunk in range(200) if chunk not in mine)
    world.accuse(ME, job, foreign)


# ---- ballots


def ballots(world: World, job: bytes) -> list[tuple[str, int]]:
    claim = world.segment(job).claim
    return [(world.names[b.validator], b.outcome) for b in claim.ballots]


def test_each_validator_has_one_ballot_and_the_first_counts(world, job):
    world.accuse(ME, job, 3)
    world.judge(job, Outcome.EQUAL, (ME,))
    world.judge(job, Outcome.DIFFERS, (ME, YOU))
    assert ballots(world, job) == [(ME, Outcome.EQUAL), (YOU, Outcome.DIFFERS)]


@pytest.mark.parametrize("field, value", [("chunk", 4), ("commit", bytes(32)), ("segment", 1)])
def test_a_ballot_on_something_else_is_ignored(world, job, field, value):
    world.accuse(ME, job, 3)
    mine = Verdict(job, 0, commit_id(world.segment(job).commit), 3, int(Outcome.DIFFERS))
    world.say(YOU, "verdicts", replace(mine, **{field: value}))
    world.blocks(2)
    assert ballots(world, job) == []


def test_without_a_claim_there_is_nothing_to_vote_on(world, job):
    mine = Verdict(job, 0, commit_id(world.segment(job).commit), 3, int(Outcome.DIFFERS))
    for name in world.validators:
        world.say(name, "verdicts", mine)
    world.blocks(2)
    assert world.segment(job).state == SegmentState.COMMITTED and not world.faults()


def test_two_of_four_decide_nothing(world, job):
    world.accuse(ME, job, 3)
    world.judge(job, Outcome.DIFFERS, (ME, YOU))
    assert world.segment(job).state == SegmentState.DISPUTED


# ---- upheld


def test_an_upheld_claim_slashes_and_jails_the_worker_and_pays_half_to_the_finder(world, job):
    worker, chunk = world.worker_of(job), world.slice_of(ME, job)[0]
    world.accuse(ME, job, chunk)
    world.judge(job, Outcome.DIFFERS)
    assert world.bond(worker) == BOND - PARAMS.slash_worker
    assert WORKERS.get(world.state(), world.key(worker).public).jailed_height == world.height
    assert world.balance(ME) == PARAMS.slash_worker // 2
    assert get_burned(world.state()) == PARAMS.slash_worker // 2
    (fault,) = world.faults()
    assert (fault.kind, fault.job, fault.segment, fault.chunk) == ("forged", job, 0, chunk)
    assert [world.names[key] for key in fault.finders] == [ME] and world.names[
        fault.offender
    ] == worker


def test_the_segment_goes_back_to_its_start_and_to_another_worker(world, job):
    worker = world.worker_of(job)
    world.accuse(ME, job, 3)
    world.judge(job, Outcome.DIFFERS)
    segment = world.segment(job)
    assert (segment.state, segment.attempt, segment.commit) == (SegmentState.ASSIGNED, 1, None)
    assert world.names[segment.worker] != worker
    world.settle(job)
    assert world.balance(worker) == 0, "forged work is never paid"


def test_a_jailed_worker_gets_no_further_job(world, job):
    worker = world.worker_of(job)
    world.accuse(ME, job, 3)
    world.judge(job, Outcome.DIFFERS)
    later = world.running(name="later")
    assert worker not in [world.names[key] for key in world.job(later).workers]


def test_two_forgeries_found_in_one_block_are_both_kept_on_record(world):
    jobs = [world.running(name=name) for name in ("one", "two")]
    while world.worker_of(jobs[0]) != world.worker_of(jobs[1]):
        jobs[1] = world.running(name=f"two-{world.height}")
    for job in jobs:
        world.commit(job)
        world.accuse(ME, job, 3)
    for job in jobs:
        mine = Verdict(job, 0, commit_id(world.segment(job).commit), 3, int(Outcome.DIFFERS))
        for name in world.validators:
            world.say(name, "verdicts", mine)
    world.blocks(2)
    assert sorted(fault.job for fault in world.faults()) == sorted(jobs)


# ---- rejected


def test_a_rejected_claim_of_fraud_slashes_the_accuser_and_the_segment_goes_on(world, job):
    commit = world.segment(job).commit
    world.attest(job)
    world.accuse(ME, job, 3)
    world.judge(job, Outcome.EQUAL)
    segment = world.segment(job)
    assert (segment.state, segment.commit, segment.claim) == (SegmentState.COMMITTED, commit, None)
    assert len(segment.attestations) == 4 and segment.cleared == (3,)
    assert world.bond(ME) == BOND - PARAMS.slash_validator
    assert ME in world.validators, "its bond can bear more"
    assert world.faults()[0].kind == "false-accusation"
    assert get_burned(world.state()) == PARAMS.slash_validator, "nobody gains by it"
    world.harden(job)


def test_a_false_accuser_leaves_when_its_bond_cannot_bear_another_slash(world, job):
    for chunk in range(3):
        assert ME in world.validators
        world.accuse(ME, job, chunk)
        world.judge(job, Outcome.EQUAL)
    world.accuse(ME, job, 3)
    world.judge(job, Outcome.EQUAL)
    assert ME not in world.validators and world.bond(ME) == 0


def test_whoever_was_removed_meanwhile_answers_with_what_is_left(world, job):
    world.accuse(ME, job, 3)
    world.block(evidence=(world.double_vote(ME),), proposer=YOU)
    world.judge(job, Outcome.EQUAL)
    assert world.segment(job).cleared == (3,)
    assert [fault.kind for fault in world.faults()] == ["equivocation", "false-accusation"]
    assert world.bond(ME) == max(0, BOND - 2 * PARAMS.slash_validator)


def test_a_rejected_claim_of_not_served_costs_nothing(world, job):
    """The worker may have served it only once all asked: its accuser could not know."""
    chunk = world.slice_of(ME, job)[0]
    world.accuse(ME, job, chunk, ClaimKind.UNSERVED)
    world.judge(job, Outcome.EQUAL)
    assert world.segment(job).cleared == (chunk,)
    assert not world.faults() and world.bond(ME) == BOND


def test_a_cleared_chunk_is_not_claimed_again(world, job):
    world.accuse(ME, job, 3)
    world.judge(job, Outcome.EQUAL)
    assert "was right" in refusal(world, world.claim(YOU, job, 3), YOU)
    world.accuse(YOU, job, 4)


def test_an_unserved_chunk_that_turns_out_forged_is_forged(world, job):
    world.accuse(ME, job, world.slice_of(ME, job)[0], ClaimKind.UNSERVED)
    world.judge(job, Outcome.DIFFERS)
    assert world.faults()[0].kind == "forged"


def test_after_many_rejected_claims_the_segment_moves_on_and_nobody_is_shut_out(monkeypatch):
    """A colluder must not use up the claims and leave the finder of a forged chunk none."""
    monkeypatch.setattr(lifecycle, "MAX_CLEARED", 3)
    world = World(workers=3)
    job = world.running()
    world.commit(job)
    for chunk in world.slice_of(ME, job)[:3]:
        assert world.segment(job).attempt == 0
        world.accuse(ME, job, chunk, ClaimKind.UNSERVED)
        world.judge(job, Outcome.EQUAL)
    assert world.segment(job).state == SegmentState.ASSIGNED and world.segment(job).attempt == 1
    assert not world.faults() and not world.job(job).excluded


# ---- unavailable, lapsed


def close_window(world: World, job: bytes) -> None:
    world.blocks(world.segment(job).claim.height + WINDOW - world.height)


def test_a_worker_that_serves_nobody_pays_a_little_and_loses_the_segment(world, job):
    worker = world.worker_of(job)
    world.accuse(ME, job, world.slice_of(ME, job)[0], ClaimKind.UNSERVED)
    world.judge(job, Outcome.UNSERVED, (ME, YOU))
    world.blocks(WINDOW - 3)
    assert world.segment(job).state == SegmentState.DISPUTED, "it has the whole window to serve"
    world.block()
    assert world.bond(worker) == BOND - PARAMS.slash_unavailable
    assert WORKERS.get(world.state(), world.key(worker).public).jailed_height == 0
    assert world.faults()[0].kind == "unavailable"
    assert world.balance(ME) == 0, "no reward: to cut somebody off must not pay"
    assert world.worker_of(job) != worker
    assert [world.names[key] for key in world.job(job).excluded] == [worker]


def test_one_of_four_alone_makes_nobody_unavailable(world, job):
    worker = world.worker_of(job)
    world.accuse(ME, job, world.slice_of(ME, job)[0], ClaimKind.UNSERVED)
    world.judge(job, Outcome.UNSERVED, (ME,))
    close_window(world, job)
    assert world.bond(worker) == BOND and not world.faults()


def test_a_claim_that_nobody_rules_on_lapses_and_nobody_is_punished(world, job):
    worker = world.worker_of(job)
    world.accuse(ME, job, 3)
    close_window(world, job)
    segment = world.segment(job)
    assert (segment.state, segment.attempt) == (SegmentState.ASSIGNED, 1)
    assert not world.faults() and not world.job(job).excluded
    assert world.bond(worker) == world.bond(ME) == BOND


def test_a_quorum_that_comes_early_need_not_wait_for_the_window(world, job):
    world.accuse(ME, job, 3)
    opened = world.height
    world.judge(job, Outcome.DIFFERS)
    assert world.height == opened + 2 < opened + WINDOW and world.faults()


def test_the_verdict_of_a_removed_validator_weighs_nothing():
    genesis = make_genesis(params=replace(PARAMS, dispute_window=30))
    world = World(genesis=genesis)
    job = world.running()
    world.commit(job)
    world.accuse(YOU, job, 3)
    world.judge(job, Outcome.DIFFERS, (ME,))
    world.block(evidence=(world.double_vote(ME),), proposer=YOU)
    world.judge(job, Outcome.DIFFERS, (YOU, "validator-2"))
    assert world.segment(job).state == SegmentState.DISPUTED
    world.judge(job, Outcome.DIFFERS, ("validator-3",))
    assert [fault.kind for fault in world.faults()] == ["equivocation", "forged"]


def test_a_slash_takes_no_more_than_there_is():
    genesis = make_genesis(params=replace(PARAMS, slash_worker=3 * BOND))
    world = World(genesis=genesis)
    job = world.running()
    world.commit(job)
    worker = world.worker_of(job)
    world.accuse(ME, job, 3)
    world.judge(job, Outcome.DIFFERS)
    assert world.bond(worker) == 0 and world.balance(ME) == BOND // 2


def test_the_fee_is_whole_after_any_number_of_disputes(world, job):
    world.accuse(ME, job, 3)
    world.judge(job, Outcome.DIFFERS)
    world.settle(job)
    assert world.job(job).escrow == 0
    paid = sum(world.balance(name) for name in (*world.validators, "worker-0", "worker-1"))
    assert paid <= JOB.fee + PARAMS.slash_worker // 2
