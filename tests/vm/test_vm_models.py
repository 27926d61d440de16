"""The registry of models: whose a name is, what a file is said to be, and when it counts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from vm.world import CONTENT, World

from mlchain.consensus.work.attestation import Available
from mlchain.crypto import digest
from mlchain.ledger.block import Receipt
from mlchain.vm import votes
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.data import DATASETS, RegisterData
from mlchain.vm.families.governance import ChangeKeys
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.families.models import (
    HOLD_MS,
    MODEL_FILES,
    NAMES,
    REGISTER_GAS,
    UNHELD,
    VERSIONS,
    ModelFile,
    RegisterModel,
    is_confirmed,
    is_usable,
)


def content(number: int) -> bytes:
    return b"\x01\x55\x12\x20" + digest("test-model", bytes([number]))


CANCER = RegisterModel(
    "cancer", content(1), 9_999, 30, 2, "class", 5_000, b"", b"", CONTENT, "MIT"
)  # fmt: skip


def file_of(world: World, number: int = 1) -> ModelFile | None:
    return MODEL_FILES.get(world.state(), content(number))


def register(world: World, sender: str = "alice", **changes: Any) -> Receipt:
    return world.do(sender, replace(CANCER, **changes))


def hold(world: World, *names: str, number: int = 1) -> None:
    for name in names:
        world.announce(name, content(number))
    world.blocks(2)


def looked_for(world: World) -> list[bytes]:
    return [content for (_, content), _ in UNHELD.items(world.state())]


def rich(name: str) -> World:
    """A world in which somebody else has money, too."""
    world = World()
    world.names[world.key(name).public] = name
    world.do("alice", Transfer(world.key(name).public, 10**8))
    return world


def test_a_registration_is_the_first_version_of_its_name():
    world = World()
    assert register(world).code == "ok"
    version = VERSIONS.get(world.state(), 1, b"cancer")
    assert version is not None and (version.content, version.licence) == (content(1), "MIT")
    assert NAMES.get(world.state(), b"cancer").owner == world.key("alice").public
    assert file_of(world).holders == ()


def test_the_same_name_again_is_its_next_version_with_the_first_as_parent():
    world = World()
    register(world)
    assert register(world, content=content(2), parent=content(1)).code == "ok"
    assert VERSIONS.get(world.state(), 2, b"cancer").parent == content(1)
    assert NAMES.get(world.state(), b"cancer").versions == 2


def test_a_name_belongs_to_who_used_it_first():
    world = rich("bob")
    register(world)
    assert "somebody else's" in register(world, "bob", content=content(2)).message
    assert register(world, "bob", name="bobs", content=content(2)).code == "ok"


def test_it_is_held_once_a_quorum_says_so_and_not_by_strangers():
    world = World()
    register(world)
    hold(world, "validator-0", "validator-1")
    assert not is_usable(file_of(world), get_validator_set(world.state()))
    hold(world, "validator-2")
    assert is_usable(file_of(world), get_validator_set(world.state()))
    assert looked_for(world) == [content(1)]
    hold(world, "validator-3")
    assert looked_for(world) == []


def test_wrong_facts_are_replaced_until_an_honest_validator_holds_the_file():
    world = rich("bob")
    register(world, "bob", name="squat", gas=1)
    hold(world, "validator-0")
    assert register(world).code == "ok"
    assert file_of(world).gas == CANCER.gas
    hold(world, "validator-0", "validator-1")
    assert "other numbers" in register(world, name="again", gas=2).message


def replace_in_the_block_that_carries_the_votes(world: World, wrong: Any) -> None:
    """All have examined what is registered, and say so while a block brings other numbers."""
    for name in world.validators:
        world.announce(name, wrong.content)
    assert world.do("bob", wrong).code == "ok"
    world.blocks(2)


WRONG = replace(CANCER, name="squat", gas=1)
DATA = RegisterData(content(3), 9_999, 100, 30)
WRONG_DATA = replace(DATA, rows=7)


def test_votes_are_about_what_was_said_of_the_file_and_confirm_nothing_else():
    world = rich("bob")
    register(world)
    replace_in_the_block_that_carries_the_votes(world, WRONG)
    assert (file_of(world).gas, file_of(world).holders) == (1, ())
    assert register(world, name="again").code == "ok" and file_of(world).gas == CANCER.gas


def test_votes_are_about_what_was_said_of_the_dataset_and_confirm_nothing_else():
    world = rich("bob")
    world.do("alice", DATA)
    replace_in_the_block_that_carries_the_votes(world, WRONG_DATA)
    assert DATASETS.get(world.state(), DATA.content).holders == ()
    assert world.do("alice", DATA).code == "ok"
    assert DATASETS.get(world.state(), DATA.content).rows == DATA.rows


@pytest.mark.parametrize("right, wrong", [(CANCER, WRONG), (DATA, WRONG_DATA)])
def test_control_votes_about_the_content_alone_confirm_numbers_that_nobody_saw(
    monkeypatch, right, wrong
):
    table, name = (MODEL_FILES, "add_model_holder") if right is CANCER else (DATASETS, "add_holder")
    add = getattr(votes, name)

    def add_whatever_is_said_now(state, said, *who):
        record = table.get(state, said.content)
        add(state, replace(said, facts=record.facts), *who)

    monkeypatch.setattr(votes, name, add_whatever_is_said_now)
    world = rich("bob")
    world.do("alice", right)
    replace_in_the_block_that_carries_the_votes(world, wrong)
    assert len(table.get(world.state(), right.content).holders) == len(world.validators)
    again = replace(right, name="again") if right is CANCER else right
    assert "other numbers" in world.do("alice", again).message


def test_a_model_and_a_dataset_of_one_content_are_two_things():
    world = World()
    register(world)
    world.do("alice", RegisterData(content(1), 9_999, 100, 30))
    facts = DATASETS.get(world.state(), content(1)).facts
    world.say("validator-0", "available", Available(content(1), facts))
    world.blocks(2)
    assert len(DATASETS.get(world.state(), content(1)).holders) == 1
    assert file_of(world).holders == ()


def lose_holders(world: World) -> None:
    """Two of four validators go on under other keys: two hold the file, of three that it takes."""
    register(world)
    hold(world, *world.validators)
    for old, new in (("validator-2", "new-2"), ("validator-3", "new-3")):
        assert world.do(old, ChangeKeys(world.replacing(old, new))).code == "ok"
        world.end_epoch()
        world.end_epoch()
    voters = get_validator_set(world.state())
    assert is_confirmed(file_of(world), voters) and not is_usable(file_of(world), voters)


def test_a_file_that_lost_holders_is_looked_for_when_it_is_registered_again():
    world = World()
    lose_holders(world)
    assert looked_for(world) == []
    assert register(world, name="again").code == "ok"
    assert looked_for(world) == [content(1)]
    hold(world, "new-2")
    assert is_usable(file_of(world), get_validator_set(world.state()))


def test_a_file_that_nobody_has_is_looked_for_until_a_time_and_anew_when_paid_for_again():
    world = World()
    register(world)
    world.block(after_ms=HOLD_MS)
    assert looked_for(world) == [content(1)]
    world.block()
    assert looked_for(world) == []
    receipt = register(world, name="again")
    assert receipt.code == "ok" and receipt.gas_used > REGISTER_GAS
    assert looked_for(world) == [content(1)]


def test_who_registers_the_same_again_takes_no_holder_away():
    world = World()
    register(world)
    hold(world, "validator-0")
    register(world, name="again")
    assert len(file_of(world).holders) == 1 and len(looked_for(world)) == 1


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"parent": content(9)}, "parent is not registered"),
        ({"parent": b"short"}, "content ids"),
        ({"job": bytes(32)}, "no job"),
        ({"job": b"short"}, "no job"),
    ],
)
def test_lineage_that_is_not_on_chain_is_refused(changes, words):
    world = World()
    assert words in register(world, **changes).message
    assert NAMES.get(world.state(), b"cancer") is None


def test_the_model_of_a_job_is_registered_by_who_paid_for_it():
    world = rich("bob")
    job = world.running()
    world.settle(job)
    assert "somebody else's" in register(world, "bob", job=job).message
    assert register(world, job=job).code == "ok"


def test_the_same_content_twice_in_a_row_is_no_new_version():
    world = World()
    register(world)
    assert "same content" in register(world).message
