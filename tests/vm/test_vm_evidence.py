"""Equivocation on chain: whoever signs two things is slashed and leaves (section 4)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import BOND, PARAMS, World, make_genesis

from mlchain.errors import InvalidBlock


@pytest.fixture
def world() -> World:
    made = World()
    made.blocks(2)
    return made


def test_an_equivocator_is_slashed_and_removed_and_the_proposer_gets_half(world):
    liar, proposer = world.validators[2], world.validators[0]
    world.block(evidence=(world.double_vote(liar),), proposer=proposer)
    assert liar not in world.validators and len(world.validators) == 3
    assert world.bond(liar) == BOND - PARAMS.slash_validator
    assert world.balance(proposer) == PARAMS.slash_validator // 2
    (fault,) = world.faults()
    assert (fault.kind, fault.slashed) == ("equivocation", PARAMS.slash_validator)


def test_the_removed_one_still_signs_for_the_block_that_removes_it_and_for_none_after(world):
    liar = world.validators[2]
    world.block(evidence=(world.double_vote(liar),))
    assert world.key(liar).public in [s.validator for s in world.last_commit.signatures]
    world.blocks(3)
    assert world.key(liar).public not in [s.validator for s in world.last_commit.signatures]


def test_to_report_oneself_earns_nothing(world):
    liar = world.validators[2]
    world.block(evidence=(world.double_vote(liar),), proposer=liar)
    assert world.balance(liar) == 0
    assert world.bond(liar) == BOND - PARAMS.slash_validator


def test_two_liars_in_one_block_are_both_kept_on_record(world):
    liars = world.validators[:2]
    proposer = world.validators[3]
    world.block(evidence=tuple(world.double_vote(liar) for liar in liars), proposer=proposer)
    assert {world.names[fault.offender] for fault in world.faults()} == set(liars)
    assert len(world.validators) == 2


def invalid(world: World, *evidence: bytes) -> str:
    with pytest.raises(InvalidBlock) as caught:
        world.compose(evidence=evidence)
    return caught.value.message


def test_evidence_counts_once(world):
    liar = world.validators[2]
    twice = (world.double_vote(liar), world.double_vote(liar, 1))
    assert "punished and gone" in invalid(world, *twice)
    world.block(evidence=(world.double_vote(liar),))
    assert "punished and gone" in invalid(world, world.double_vote(liar, 1))


def test_evidence_is_neither_of_the_future_nor_ancient():
    world = World(genesis=make_genesis(params=replace(PARAMS, unbonding_blocks=1)))
    world.blocks(2)
    liar = world.validators[2]
    assert "future" in invalid(world, world.double_vote(liar, world.height + 2))
    assert "too old" in invalid(world, world.double_vote(liar, world.height - 1))
    world.block(evidence=(world.double_vote(liar, world.height),))


def test_evidence_of_another_chain_proves_nothing(world):
    assert "signature" in invalid(world, world.double_vote(world.validators[2], 0, "other"))


def test_bytes_that_are_no_evidence_make_a_block_invalid(world):
    for data in (b"", b"\x01", b"\x07abc", bytes(500)):
        assert invalid(world, data).startswith("evidence:")


def test_the_last_validator_stays(world):
    """A chain without validators could not even record the fault."""
    for name in world.validators:
        proposer = world.validators[-1]
        world.block(evidence=(world.double_vote(name),), proposer=proposer)
    assert len(world.validators) == 1
    assert world.bond(world.validators[0]) == BOND - PARAMS.slash_validator, "slashed all the same"
    world.blocks(2)


def test_even_two_at_once_leave_one():
    world = World(validators=2)
    world.block()
    world.block(evidence=tuple(world.double_vote(name) for name in world.validators))
    assert len(world.validators) == 1
    assert len(world.faults()) == 2
