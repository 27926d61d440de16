"""Row 17: an operator validates its own work.

A worker and a validator that say they belong together gain turns to propose by it, and the
validator is void as a judge of that work. An operator that keeps silent about its two keys is one
of the f that may lie: the tickets of the others decide, and its work earns it no turns.
"""

from __future__ import annotations

import pytest
from vm.world import JOB, World

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.rewards import segment_fee, split_fee
from mlchain.errors import InvalidBlock
from mlchain.ledger.genesis import check_genesis
from mlchain.vm.families.jobs import Segment, SegmentState
from mlchain.vm.families.operators import ConfirmWorker, NameOperator

OPERATOR, WORKER = "validator-0", "worker-0"
OTHERS = ("validator-1", "validator-2", "validator-3")


def declared() -> World:
    world = World(workers=1)
    check_genesis(world.genesis)
    assert world.do(WORKER, NameOperator(world.key(OPERATOR).public)).code == "ok"
    assert world.do(OPERATOR, ConfirmWorker(world.key(WORKER).public, True)).code == "ok"
    return world


def attested(world: World, **job) -> bytes:
    """The operator and two more attest its worker's segment."""
    job = world.running(**job)
    world.commit(job)
    world.blocks(2)  # a tier may deal out the chunks first
    world.attest(job, names=(OPERATOR, *OTHERS[:2]))
    world.blocks(3)
    return job


@pytest.mark.parametrize("tier", ["audited", "covered:2"])
def test_the_operators_own_attestation_is_void(tier):
    world = declared()
    job = attested(world, tier=tier)
    assert len(world.segment(job).attestations) == 2
    assert world.slice_of(OPERATOR, job) == ()
    with pytest.raises(InvalidBlock, match="attested by weight 2 of 3"):
        world.block(finalise=(world.ref(job),))
    world.attest(job, names=OTHERS[2:])
    world.block(finalise=(world.ref(job),))
    assert world.segment(job).state == SegmentState.HARD, "three others are a quorum"


def test_it_does_not_earn_as_a_verifier_of_itself():
    world = declared()
    job = world.running()
    world.commit(job)
    world.harden(job)
    share = split_fee(segment_fee(JOB.fee, 0, 200, 1000), verifiers=3)
    assert world.balance(WORKER) == share.worker
    paid = {name: world.balance(name) for name in (OPERATOR, *OTHERS)}
    proposer = world.validators[0]
    paid[proposer] -= share.proposer
    assert paid == {OPERATOR: 0, **dict.fromkeys(OTHERS, share.verifier)}


def test_it_gets_no_share_of_what_its_worker_is_slashed():
    """Half of the slash would come back to it, whenever it saw that it would be found."""
    world = declared()
    job = world.running()
    world.commit(job)
    world.accuse(OPERATOR, job, 3)
    assert world.segment(job).claim.finders == ()


def test_it_votes_on_claims_so_that_one_liar_cannot_keep_its_worker_from_being_cleared():
    world = declared()
    job = world.running()
    world.commit(job)
    world.accuse("validator-1", job, 3)
    world.judge(job, Outcome.EQUAL, (OPERATOR, "validator-2", "validator-3"))
    assert world.segment(job).cleared == (3,)
    assert [fault.kind for fault in world.faults()] == ["false-accusation"]


def test_control_if_it_were_not_void_the_operator_would_be_one_of_its_own_quorum(monkeypatch):
    monkeypatch.setattr(Segment, "is_own", lambda segment, validator: False)
    world = declared()
    job = attested(world)
    assert len(world.segment(job).attestations) == 3
    world.block(finalise=(world.ref(job),))
    assert world.segment(job).state == SegmentState.HARD


def test_an_operator_that_keeps_silent_about_it_counts_as_one_of_the_f_and_gains_no_turns():
    world = World(workers=1)
    job = attested(world)
    assert len(world.segment(job).attestations) == 3
    world.block(finalise=(world.ref(job),))
    assert world.segment(job).state == SegmentState.HARD
    assert world.segment(job).operator == b""
