"""A hash chain serves one member, for one purpose, once."""

from __future__ import annotations

import pytest
from factories import make_key
from msgspec.structs import replace
from vm.world import BOND, PARAMS, World, make_genesis, make_member

from mlchain.vm.families import changes
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.governance import ChangeKeys, Leave, Propose
from mlchain.vm.families.members import VALIDATORS

FIRST = make_member("validator-0", "validator")
OWN = make_member("validator-4", "validator")
FIELDS = ("ticket_tip", "beacon_tip", "custody_tip")


@pytest.fixture
def world() -> World:
    made = World(genesis=make_genesis(params=replace(PARAMS, epoch_blocks=10)))
    made.block()
    assert made.do("alice", Transfer(OWN.key, BOND)).code == "ok"
    return made


def refusal(world: World, **tips: bytes) -> str:
    receipt = world.do("validator-1", Propose(world.add("validator-4", **tips)))
    return "" if receipt.code == "ok" else receipt.message


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("theirs", FIELDS)
def test_nobody_joins_with_the_chain_of_another(world, field, theirs):
    """However far that chain was shown since, and whatever it is for."""
    world.blocks(3)
    assert "is " + FIRST.key.hex()[:16] in refusal(world, **{field: getattr(FIRST, theirs)})


def test_no_chain_serves_two_purposes(world):
    assert "are equal" in refusal(world, custody_tip=OWN.beacon_tip)


def test_control_chains_of_ones_own_are_taken(world):
    assert refusal(world) == ""


def test_the_chain_of_one_that_has_gone_stays_taken(world):
    world.do("validator-0", Leave())
    world.end_epoch()
    world.block()
    assert "validator-0" not in world.validators
    assert "is " + FIRST.key.hex()[:16] in refusal(world, ticket_tip=FIRST.ticket_tip)


def test_a_new_key_has_new_chains(world):
    change = world.replacing("validator-3", "new", beacon_tip=FIRST.beacon_tip)
    assert world.do("validator-3", ChangeKeys(change)).code != "ok"
    mine = make_member("validator-3", "validator").beacon_tip
    change = world.replacing("validator-3", "new", beacon_tip=mine)
    assert world.do("validator-3", ChangeKeys(change)).code != "ok"


def test_of_two_proposals_with_one_chain_the_second_fails(world):
    world.do("alice", Transfer(make_key("validator-5").public, BOND))
    one = world.propose(world.add("validator-4"))
    two = world.propose(world.add("validator-5", ticket_tip=OWN.ticket_tip))
    world.end_epoch()
    assert world.outcome(one) == "effective"
    world.block()
    world.end_epoch()
    assert world.outcome(two) == "failed"


def test_control_without_the_rule_two_validators_have_one_chain(world, monkeypatch):
    monkeypatch.setattr(changes, "check_tips", lambda state, tips: None)
    tips = {field: getattr(FIRST, field) for field in FIELDS}
    number = world.propose(world.add("validator-4", **tips))
    world.end_epoch()
    assert world.outcome(number) == "effective"
    records = [VALIDATORS.get(world.state(), key) for key in (FIRST.key, OWN.key)]
    first, copy = (record.tickets for record in records)
    assert first == copy, "who shows a ticket shows the other's as well"
