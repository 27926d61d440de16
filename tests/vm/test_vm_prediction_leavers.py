"""Who leaves, is removed or changes keys with an answer still to show."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.asking import RIGHT, Scene
from vm.world import BOND, PARAMS, make_genesis

from mlchain.vm import committee, epochs, predicting
from mlchain.vm.families.changes import RemoveMember
from mlchain.vm.families.governance import ChangeKeys, Leave
from mlchain.vm.families.predictions import PredictionState, find_silent

EPOCH = 10
SHORT = replace(PARAMS, epoch_blocks=EPOCH)
ME = "validator-3"


def make_scene() -> Scene:
    return Scene(genesis=make_genesis(params=SHORT))


def bound_at_the_end(scene: Scene) -> bytes:
    """All are bound to an answer by the last block of an epoch."""
    world = scene.world
    world.blocks(-(world.height + 4) % EPOCH)
    request = scene.asked()
    scene.bind(request, scene.all_say(RIGHT))
    assert (world.height + 1) % EPOCH == 0
    assert scene.at(request).state == PredictionState.CLOSED
    return request


def leave(scene: Scene, way: str) -> None:
    """Ask to go; a quorum's wish comes before the end of this epoch, too."""
    world = scene.world
    if way == "leave":
        assert world.do(ME, Leave()).code == "ok"
    elif way == "change keys":
        assert world.do(ME, ChangeKeys(world.replacing(ME, "new-keys"))).code == "ok"
    elif way == "be removed":
        world.propose(RemoveMember(world.key(ME).public))
    else:
        world.propose(world.replacing(ME, "new-keys"))


def faults(scene: Scene) -> list[str]:
    return [fault.kind for fault in scene.world.faults()]


OWN, OF_A_QUORUM = ("leave", "change keys"), ("be removed", "be replaced")


@pytest.mark.parametrize("way", OWN)
def test_who_is_bound_stays_until_it_has_shown_its_answer(way):
    scene = make_scene()
    leave(scene, way)
    request = bound_at_the_end(scene)
    scene.world.block()
    assert ME in scene.world.validators, "the epoch's end is over"
    scene.tell(request, scene.all_say(RIGHT))
    assert scene.world.balance(ME) == 35, "paid like the others"
    scene.world.end_epoch()
    scene.world.block()
    assert ME not in scene.world.validators
    assert (faults(scene), scene.world.bond("new-keys" if way != "leave" else ME)) == ([], BOND)


def gone_with_an_answer_due(way: str) -> tuple[Scene, bytes]:
    """A validator that left bound to an answer, and the request that all others have answered."""
    scene = make_scene()
    leave(scene, way)
    request = bound_at_the_end(scene)
    scene.world.block()
    assert ME not in scene.world.validators
    others = [name for name in scene.world.validators if name != "new-keys"]
    scene.tell(request, dict.fromkeys(others, RIGHT))
    return scene, request


@pytest.mark.parametrize("way", OF_A_QUORUM)
def test_whoever_a_quorum_has_removed_owes_no_answer_and_nobody_waits_for_it(way):
    scene, request = gone_with_an_answer_due(way)
    assert scene.at(request).state == PredictionState.ANSWERED
    assert scene.at(request).bound == (), "and closed"
    scene.world.blocks(PARAMS.dispute_window + 1)
    assert faults(scene) == []


@pytest.mark.parametrize("way", (*OWN, *OF_A_QUORUM))
def test_control_without_these_rules_an_honest_one_pays_for_what_it_cannot_show(way, monkeypatch):
    monkeypatch.setattr(epochs, "owes_answer", lambda state, key: False)
    monkeypatch.setattr(predicting, "_silent", lambda block, prediction: find_silent(prediction))
    scene, _ = gone_with_an_answer_due(way)
    scene.world.blocks(PARAMS.dispute_window + 1)
    assert faults(scene) == ["answer-withheld"]


def drawn(scene: Scene) -> dict[str, None]:
    found = {}
    for place in range(12):
        request = scene.asked(tier="drawn:1", fee=1_000, inline=b"[1,2,3,%d]" % place)
        scene.world.block()
        found |= {scene.world.names[key]: None for key in scene.at(request).committee}
    return found


def test_who_has_asked_to_leave_is_not_drawn():
    scene = Scene()
    leave(scene, "leave")
    assert sorted(drawn(scene)) == ["validator-0", "validator-1", "validator-2"]


def test_control_drawn_all_the_same_it_would_be_waited_for(monkeypatch):
    monkeypatch.setattr(committee, "leaving_keys", lambda state: {})
    scene = Scene()
    leave(scene, "leave")
    assert ME in drawn(scene)
