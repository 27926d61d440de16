"""Work that is HARD already: reviewed when nothing is due, and a forgery is still a forgery."""

from __future__ import annotations

import pytest
from factories import make_key
from msgspec.structs import replace
from vm.world import BOND, PARAMS, World, make_genesis

from mlchain.consensus.work.attestation import Outcome, Reviewed
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.errors import NotFound
from mlchain.vm import epochs, late
from mlchain.vm.families.changes import SetParam
from mlchain.vm.families.governance import Leave
from mlchain.vm.families.jobs import (
    ACTIVE,
    LATE,
    Claim,
    JobState,
    Segment,
    SegmentState,
    get_review,
)
from mlchain.vm.families.models import MODELS
from mlchain.vm.receipt import make_receipt

FINDER, CHUNK = "validator-0", 17


@pytest.fixture
def world() -> World:
    return World()


def settled(world: World) -> bytes:
    job = world.running(segment=1000)
    world.settle(job)
    return job


def refusal(world: World, job: bytes, chunk: int = CHUNK, kind: ClaimKind = ClaimKind.FRAUD) -> str:
    return world.do(FINDER, world.claim(FINDER, job, chunk, kind)).message


def test_a_forgery_found_late_costs_the_worker_and_pays_the_finder(world):
    job = settled(world)
    worker, before = world.worker_of(job), world.balance(FINDER)
    world.accuse(FINDER, job, CHUNK)
    assert world.segment(job).state == SegmentState.HARD, "until all have re-run it"
    world.judge(job, Outcome.DIFFERS)
    assert world.bond(worker) == BOND - PARAMS.slash_worker
    assert world.balance(FINDER) == before + PARAMS.slash_worker // 2
    (fault,) = world.faults()
    assert (fault.kind, world.names[fault.offender], fault.chunk) == ("forged", worker, CHUNK)


def test_its_model_is_revoked_and_has_no_receipt_any_more(world):
    job = settled(world)
    make_receipt(world.store, job)
    world.accuse(FINDER, job, CHUNK)
    world.judge(job, Outcome.DIFFERS)
    assert world.job(job).state == JobState.REVOKED
    model = MODELS.get(world.state(), job)
    assert model is not None and model.revoked_height == world.height
    with pytest.raises(NotFound, match="revoked"):
        make_receipt(world.store, job)


def test_what_was_paid_stays_paid(world):
    job = settled(world)
    worker = world.worker_of(job)
    paid = world.balance(worker)
    assert paid > 0
    world.accuse(FINDER, job, CHUNK)
    world.judge(job, Outcome.DIFFERS)
    assert world.balance(worker) == paid


def test_a_job_under_way_ends_and_the_rest_of_its_fee_comes_back(world):
    job = world.running()
    world.commit(job)
    world.harden(job)
    world.commit(job, 1)
    before, escrow = world.balance("alice"), world.job(job).escrow
    world.accuse(FINDER, job, CHUNK)
    world.judge(job, Outcome.DIFFERS)
    assert world.job(job).state == JobState.REVOKED and escrow > 0
    assert world.balance("alice") == before + escrow
    assert world.find_segment(job, 1) is None and not list(ACTIVE.items(world.state()))


def test_a_false_late_claim_costs_its_maker_and_that_chunk_is_not_claimed_again(world):
    job = settled(world)
    world.accuse(FINDER, job, CHUNK)
    world.judge(job, Outcome.EQUAL)
    assert world.bond(FINDER) == BOND - PARAMS.slash_validator
    assert world.job(job).state == JobState.SETTLED
    assert "re-run by all" in refusal(world, job)


def test_who_cannot_show_what_it_accuses_with_pays_a_little(world):
    """The worker need not have the states any more; whoever re-ran the chunk has."""
    job = settled(world)
    worker = world.worker_of(job)
    world.accuse(FINDER, job, CHUNK)
    world.judge(job, Outcome.UNSERVED)
    world.blocks(PARAMS.dispute_window)
    assert world.bond(FINDER) == BOND - PARAMS.slash_unavailable
    assert world.bond(worker) == BOND and world.job(job).state == JobState.SETTLED
    assert not list(LATE.items(world.state()))


def lapse(world: World, name: str, job: bytes, chunk: int = CHUNK) -> None:
    """A late claim whose maker shows nothing to anybody."""
    world.accuse(name, job, chunk)
    world.judge(job, Outcome.UNSERVED)
    world.blocks(PARAMS.dispute_window)
    assert not list(LATE.items(world.state()))


def convict(world: World, job: bytes) -> None:
    world.accuse(FINDER, job, CHUNK)
    world.judge(job, Outcome.DIFFERS)


def test_a_forger_cannot_have_a_friend_claim_its_chunk_in_vain_and_be_safe(world):
    job = settled(world)
    worker = world.worker_of(job)
    lapse(world, "validator-3", job)
    assert world.segment(job).cleared == (), "no quorum has re-run it"
    convict(world, job)
    assert world.bond(worker) == BOND - PARAMS.slash_worker
    assert world.job(job).state == JobState.REVOKED


def test_control_if_any_end_cleared_the_chunk_the_forgery_would_be_out_of_reach(world, monkeypatch):
    def closed(block: object, segment: Segment, claim: Claim, ruling: object) -> Segment:
        return replace(segment, claim=None, cleared=(*segment.cleared, claim.chunk))

    monkeypatch.setattr(late, "_closed", closed)
    job = settled(world)
    lapse(world, "validator-3", job)
    assert "re-run by all" in refusal(world, job)
    assert world.bond(world.worker_of(job)) == BOND


def test_who_claimed_in_vain_claims_no_more_in_that_segment(world):
    """So f of them delay others f times, and not for as long as they can pay."""
    job = settled(world)
    lapse(world, "validator-3", job)
    again = world.announced("validator-3", world.claim("validator-3", job, CHUNK + 1))
    world.ripen()
    assert "came to nothing" in world.do("validator-3", again).message
    assert [(f.kind, f.slashed) for f in world.faults()] == [
        ("unserved-claim", PARAMS.slash_unavailable)
    ]


def test_who_attested_the_very_chunk_is_not_paid_for_finding_it_later(world):
    job = world.running(segment=1000, tier="replicated")
    world.settle(job)
    assert CHUNK in world.slice_of(FINDER, job)
    before = world.balance(FINDER)
    convict(world, job)
    assert world.balance(FINDER) == before
    assert next(f for f in world.faults() if f.kind == "forged").finders == ()


def test_control_paid_like_anybody_it_gets_half_of_what_it_helped_to_earn(world, monkeypatch):
    monkeypatch.setattr(late, "attesters_of", lambda *about: ())
    job = world.running(segment=1000, tier="replicated")
    world.settle(job)
    before = world.balance(FINDER)
    convict(world, job)
    assert world.balance(FINDER) == before + PARAMS.slash_worker // 2


def claimed_and_shortened() -> tuple[World, bytes]:
    """A worker has left, a late claim is open, and a shorter time for bonds takes effect."""
    params = replace(PARAMS, epoch_blocks=5, unbonding_blocks=60, dispute_window=20)
    world = World(genesis=make_genesis(4, 2, params=params))
    job = world.running(segment=1000)
    world.settle(job)
    begun = world.height
    assert world.do(world.worker_of(job), Leave()).code == "ok"
    world.end_epoch()
    world.blocks(begun + 50 - world.height)
    claim = world.announced(FINDER, world.claim(FINDER, job, CHUNK))
    world.blocks(-world.height % 5)
    world.propose(SetParam("unbonding_blocks", 40))
    assert world.do(FINDER, claim).code == "ok"
    world.blocks(begun + 67 - world.height)
    assert list(LATE.items(world.state()))
    return world, job


def test_a_bond_stays_while_a_late_claim_is_open_whatever_was_changed_meanwhile():
    world, job = claimed_and_shortened()
    worker = world.worker_of(job)
    assert world.bond(worker) == BOND
    world.judge(job, Outcome.DIFFERS)
    assert world.bond(worker) == BOND - PARAMS.slash_worker


def test_control_counted_from_the_last_hard_segment_alone_it_is_gone(monkeypatch):
    class Nothing:
        items = staticmethod(lambda state: ())

    monkeypatch.setattr(epochs, "LATE", Nothing)
    world, job = claimed_and_shortened()
    assert world.bond(world.worker_of(job)) == 0


def test_nobody_is_asked_to_serve_work_that_is_hard(world):
    assert "nothing but fraud" in refusal(world, settled(world), kind=ClaimKind.UNSERVED)


def test_one_claim_after_the_other(world):
    job = settled(world)
    world.accuse(FINDER, job, CHUNK)
    assert "disputed already" in refusal(world, job, CHUNK + 1)


def test_what_is_revoked_is_not_accused_again(world):
    job = settled(world)
    world.accuse(FINDER, job, CHUNK)
    world.judge(job, Outcome.DIFFERS)
    assert "nothing but fraud" in refusal(world, job, CHUNK + 1)


def test_after_the_window_old_work_is_let_rest():
    world = World(genesis=make_genesis(params=replace(PARAMS, unbonding_blocks=5)))
    job = settled(world)
    world.blocks(5)
    assert "for too long" in refusal(world, job)


# ---- reviews ----------------------------------------------------------------------------------


def review(world: World, name: str, job: bytes, bits: int, **changes: object) -> None:
    commit = world.segment(job).commit
    assert commit is not None
    world.say(name, "reviews", replace(Reviewed(job, 0, commit_id(commit), bits), **changes))
    world.blocks(2)


def known(world: World, name: str, job: bytes) -> int:
    return get_review(world.segment(job), make_key(name).public)


def test_reviews_of_hard_work_add_up(world):
    job = settled(world)
    review(world, FINDER, job, 0b101)
    review(world, FINDER, job, 0b110)
    review(world, "validator-1", job, 0b1)
    assert known(world, FINDER, job) == 0b111 and known(world, "validator-1", job) == 1


def test_work_that_is_not_hard_is_not_reviewed(world):
    job = world.running()
    world.commit(job)
    review(world, FINDER, job, 1)
    assert not world.segment(job).reviews


def test_a_review_of_another_commit_or_of_no_stretch_counts_for_nothing(world):
    job = world.running(steps=10, segment=5)
    world.settle(job)
    review(world, FINDER, job, 1, commit=bytes(32))
    assert not world.segment(job).reviews
    review(world, FINDER, job, 2**31 | 1)
    assert known(world, FINDER, job) == 1, "five chunks are five stretches"


def test_reviews_do_not_grow_for_ever():
    world = World(genesis=make_genesis(params=replace(PARAMS, unbonding_blocks=5)))
    job = settled(world)
    world.blocks(5)
    review(world, FINDER, job, 1)
    assert not world.segment(job).reviews
