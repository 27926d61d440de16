"""Row 17: an operator validates its own work.

The chain knows members by their keys. A key in both roles is void as a judge of its own work. An
operator with two keys is one of the f that may lie: the tickets of the others decide.
"""

from __future__ import annotations

from msgspec.structs import replace
from vm.world import JOB, World, make_genesis, make_member

from mlchain.consensus.work.rewards import segment_fee, split_fee
from mlchain.ledger.genesis import Genesis
from mlchain.vm.families.jobs import SegmentState
from mlchain.vm.families.members import WORKERS

OPERATOR = "validator-0"


def both_roles() -> Genesis:
    genesis = make_genesis(workers=0)
    worker = replace(make_member(OPERATOR, "worker"), name="its-worker")
    return replace(genesis, members=(*genesis.members, worker))


def attested(world: World) -> bytes:
    """The operator and two more attest its segment."""
    job = world.running()
    world.commit(job)
    world.attest(job, names=(OPERATOR, "validator-1", "validator-2"))
    world.blocks(3)
    return job


def world_of(genesis: Genesis) -> World:
    world = World(genesis=genesis)
    world.names[world.key(OPERATOR).public] = OPERATOR
    return world


def test_the_operators_own_attestation_is_void():
    world = world_of(both_roles())
    job = attested(world)
    assert world.key(OPERATOR).public == world.segment(job).worker
    assert len(world.segment(job).attestations) == 2
    world.attest(job, names=("validator-3",))
    world.blocks(3)
    world.block(finalise=(world.ref(job),))
    assert world.segment(job).state == SegmentState.HARD, "three others are a quorum"


def test_it_does_not_earn_as_a_verifier_of_itself():
    world = world_of(both_roles())
    job = world.running()
    world.commit(job)
    world.harden(job)
    share = split_fee(segment_fee(JOB.fee, 0, 200, 1000), verifiers=3)
    assert world.balance(OPERATOR) == share.worker
    assert WORKERS.get(world.state(), world.key(OPERATOR).public) is not None


def test_control_under_another_key_the_same_attestation_counts():
    """So one honest validator less is needed: this is what f is for."""
    world = World(workers=1)
    job = attested(world)
    assert len(world.segment(job).attestations) == 3
    world.block(finalise=(world.ref(job),))
    assert world.segment(job).state == SegmentState.HARD
