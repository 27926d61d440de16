"""The registry of models: whose a name is, what a file is said to be, and when it counts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from vm.world import CONTENT, World

from mlchain.crypto import digest
from mlchain.ledger.block import Receipt
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.models import (
    MODEL_FILES,
    NAMES,
    UNHELD,
    VERSIONS,
    ModelFile,
    RegisterModel,
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
        world.say(name, "available", content(number))
    world.blocks(2)


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
    assert UNHELD.get(world.state(), content(1)) is not None
    hold(world, "validator-2")
    assert UNHELD.get(world.state(), content(1)) is None
    assert len(file_of(world).holders) == 3


def test_wrong_facts_are_replaced_until_an_honest_validator_holds_the_file():
    world = rich("bob")
    register(world, "bob", name="squat", gas=1)
    hold(world, "validator-0")
    assert register(world).code == "ok"
    assert file_of(world).gas == CANCER.gas
    hold(world, "validator-0", "validator-1")
    assert "other numbers" in register(world, name="again", gas=2).message


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
