"""Row 30: a proposer sees a claim of fraud, and makes it its own to have the finder's share.

Nothing is announced first, for a forged chunk must not be paid for meanwhile. What a thief cannot
copy is the slice: a ticket shows whose it was to re-run that chunk.
"""

from __future__ import annotations

import pytest
from vm.world import BOND, PARAMS, World

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.errors import InvalidTransaction
from mlchain.vm import lifecycle
from mlchain.vm.families.accounts import get_burned
from mlchain.vm.families.jobs import SegmentState
from mlchain.vm.families.segments import AdmitFault, MakeClaim

FINDER, THIEF, OTHER = "validator-0", "validator-1", "validator-2"
HALF = PARAMS.slash_worker // 2


def make_world(validators: int = 4) -> tuple[World, bytes]:
    world = World(validators, workers=3)
    job = world.running()
    world.commit(job)
    return world, job


@pytest.fixture
def scene() -> tuple[World, bytes]:
    return make_world()


def chunk_of(world: World, job: bytes, holders: tuple[str, ...], strangers: tuple[str, ...]) -> int:
    """A chunk that is in the slices of some and not in those of others."""
    slices = {name: world.slice_of(name, job) for name in (*holders, *strangers)}
    return next(
        chunk
        for chunk in range(200)
        if all(chunk in slices[name] for name in holders)
        and not any(chunk in slices[name] for name in strangers)
    )


def steal(world: World, job: bytes, chunk: int, blocks: int = 1) -> bytes:
    """The thief's block: its claim is in it, the finder's is not. Returns the finder's."""
    seen = world.transaction(FINDER, world.claim(FINDER, job, chunk))
    (receipt,) = world.block(
        world.transaction(THIEF, world.claim(THIEF, job, chunk)), proposer=THIEF
    )
    assert receipt.code == "ok"
    return seen


def test_who_copies_a_claim_of_fraud_gets_nothing_and_its_finder_the_whole_share(scene):
    world, job = scene
    seen = steal(world, job, chunk_of(world, job, (FINDER,), (THIEF,)))
    (receipt,) = world.block(seen, proposer=FINDER)
    assert receipt.code == "ok"
    world.judge(job, Outcome.DIFFERS)
    assert (world.balance(FINDER), world.balance(THIEF)) == (HALF, 0)
    (fault,) = world.faults()
    assert [world.names[key] for key in fault.finders] == [FINDER]


def test_control_paid_by_being_first_the_copy_is_paid_and_its_finder_shut_out(scene, monkeypatch):
    def shut_out(self: MakeClaim, *args: object) -> None:
        raise InvalidTransaction("the segment is disputed already")

    monkeypatch.setattr(MakeClaim, "_has_drawn", lambda *args: True)
    monkeypatch.setattr(MakeClaim, "_join", shut_out)
    world, job = scene
    seen = steal(world, job, chunk_of(world, job, (FINDER,), (THIEF,)))
    (receipt,) = world.block(seen, proposer=FINDER)
    assert "disputed already" in receipt.message
    world.judge(job, Outcome.DIFFERS)
    assert (world.balance(FINDER), world.balance(THIEF)) == (0, HALF)


def test_all_whose_slices_held_the_chunk_share_alike(scene):
    world, job = scene
    chunk = chunk_of(world, job, (FINDER, OTHER), (THIEF,))
    world.accuse(FINDER, job, chunk)
    claims = {
        name: world.transaction(name, world.claim(name, job, chunk)) for name in (OTHER, THIEF)
    }
    receipts = world.block(*claims.values())
    assert receipts[0].code == "ok" and "not in one's own slice" in receipts[1].message
    world.judge(job, Outcome.DIFFERS)
    assert world.balance(FINDER) == world.balance(OTHER) == HALF // 2
    assert world.balance(THIEF) == 0
    assert get_burned(world.state()) == PARAMS.slash_worker - HALF


def test_a_ticket_made_up_or_another_s_shows_no_slice(scene):
    world, job = scene
    chunk = chunk_of(world, job, (FINDER,), (THIEF,))
    identity, ticket = world.drawn(FINDER, job, 0)
    for shown in (ticket, bytes(32)):
        claim = MakeClaim(job, 0, identity, chunk, int(ClaimKind.FRAUD), shown)
        if world.segment(job).claim is None:
            assert world.do(THIEF, claim).code == "ok", "it is a claim all the same"
        else:
            assert "own slice" in world.do(THIEF, claim).message
    world.judge(job, Outcome.DIFFERS)
    assert world.balance(THIEF) == 0
    assert world.faults()[0].finders == () and get_burned(world.state()) == PARAMS.slash_worker


def test_who_attested_the_chunk_as_equal_found_nothing(scene):
    world, job = scene
    chunk = chunk_of(world, job, (FINDER, THIEF), ())
    world.attest(job, names=(THIEF,))
    steal(world, job, chunk)
    assert world.do(FINDER, world.claim(FINDER, job, chunk)).code == "ok"
    world.judge(job, Outcome.DIFFERS)
    assert (world.balance(FINDER), world.balance(THIEF)) == (HALF, 0)


def test_who_asked_for_the_chunk_gives_way_to_who_found_it_wrong(scene):
    world, job = scene
    chunk = chunk_of(world, job, (FINDER, THIEF), ())
    world.accuse(THIEF, job, chunk, ClaimKind.UNSERVED)
    assert world.do(FINDER, world.claim(FINDER, job, chunk)).code == "ok"
    world.judge(job, Outcome.DIFFERS)
    assert (world.balance(FINDER), world.balance(THIEF)) == (HALF, 0)


def test_who_joins_a_false_claim_pays_like_its_maker(scene):
    world, job = scene
    chunk = chunk_of(world, job, (THIEF, OTHER), ())
    world.accuse(THIEF, job, chunk)
    world.accuse(OTHER, job, chunk)
    world.judge(job, Outcome.EQUAL)
    assert world.bond(THIEF) == world.bond(OTHER) == BOND - PARAMS.slash_validator


def test_nobody_joins_twice_or_with_another_chunk(scene):
    world, job = scene
    chunk = chunk_of(world, job, (FINDER, OTHER), ())
    other = next(it for it in world.slice_of(OTHER, job) if it != chunk)
    world.accuse(FINDER, job, chunk)
    for name, claimed in ((FINDER, chunk), (OTHER, other)):
        receipt = world.do(name, world.claim(name, job, claimed))
        assert "disputed already" in receipt.message


# ---- f proposers in a row, who leave the finder out

HOSTILE = tuple(f"validator-{i}" for i in range(1, 4))


def leave_out(world: World, job: bytes) -> None:
    """Three blocks by hostile proposers: the copy, the quorum's verdicts, and nothing else."""
    seen = steal(world, job, chunk_of(world, job, (FINDER,), (THIEF,)))
    world.judge(job, Outcome.DIFFERS)  # two blocks
    if world.segment(job).state == SegmentState.DISPUTED:
        (receipt,) = world.block(seen, proposer=FINDER)
        assert receipt.code == "ok"


def test_a_claim_is_upheld_when_an_honest_proposer_had_its_turn():
    world, job = make_world(validators=10)
    leave_out(world, job)
    assert (world.balance(FINDER), world.balance(THIEF)) == (HALF, 0)


def test_control_upheld_at_once_the_finder_comes_too_late(monkeypatch):
    monkeypatch.setattr(lifecycle, "had_honest_proposer", lambda block, since: True)
    world, job = make_world(validators=10)
    leave_out(world, job)
    assert world.faults()[0].kind == "forged" and world.balance(FINDER) == 0


# ---- the accused is a friend of the proposer, and admits first


def admission(world: World, job: bytes, chunk: int) -> bytes:
    commit = world.segment(job).commit
    assert commit is not None
    return world.transaction(world.worker_of(job), AdmitFault(job, 0, commit_id(commit), chunk))


@pytest.mark.parametrize("is_claimed", [False, True])
def test_an_admission_pays_nobody_so_nobody_gains_by_when_it_comes(scene, is_claimed):
    world, job = scene
    worker, chunk = world.worker_of(job), chunk_of(world, job, (FINDER,), (THIEF,))
    if is_claimed:
        world.accuse(FINDER, job, chunk)
    world.block(admission(world, job, chunk), proposer=THIEF)
    assert world.bond(worker) == BOND - PARAMS.fee_admission
    assert get_burned(world.state()) == PARAMS.fee_admission
    assert world.balance(FINDER) == world.balance(THIEF) == 0


def test_a_claim_behind_an_admission_in_one_block_opens_no_dispute(scene):
    """Else an honest worker would pay the fee, and then the slash too."""
    world, job = scene
    worker = world.worker_of(job)
    admitted = admission(world, job, 7)
    _, receipt = world.block(admitted, world.transaction(FINDER, world.claim(FINDER, job, 7)))
    assert "admitted" in receipt.message
    assert world.segment(job).state == SegmentState.ASSIGNED and world.worker_of(job) != worker
