"""Row 31: who is found lazy has a friend report it first: half of that slash comes back."""

from __future__ import annotations

import pytest
from vm import reporting
from vm.test_vm_custody import ME, YOU, Scene, fault_kinds, make_scene
from vm.world import BOND, PARAMS

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.tickets import BEACON
from mlchain.ledger.block import Receipt
from mlchain.vm import settlement
from mlchain.vm.families import reports
from mlchain.vm.families.custody import CUSTODY_CLAIMS
from mlchain.vm.families.members import VALIDATORS
from mlchain.vm.families.reports import ReportReveal

FRIEND = "alice"
HALF = PARAMS.slash_lazy // 2
AHEAD_OF_TIME = 40
OTHERS = ("validator-1", "validator-2", "validator-3")


@pytest.fixture
def scene() -> Scene:
    return make_scene()


def prepare(scene: Scene) -> ReportReveal:
    """Announce a report of an element of the far future, long before anything is found."""
    height = scene.world.height + AHEAD_OF_TIME
    element = scene.world.chain(ME, BEACON).at(height)
    return reporting.announce(scene.world, FRIEND, ME, BEACON, height, element)


def accuse(scene: Scene, number: int = 0, sender: str = YOU) -> Receipt:
    chunk = scene.chunks[number]
    return scene.claim(chunk, scene.opening(chunk), sender)


def report_when_found(scene: Scene) -> tuple[int, int]:
    """Be found, have oneself reported, be judged; return what the auditor and the friend got."""
    world, ready = scene.world, prepare(scene)
    before = world.balance(YOU), world.balance(FRIEND)
    assert accuse(scene).code == "ok"
    assert world.do(FRIEND, ready).code == "ok" and scene.is_out(ME)
    scene.judge(Outcome.DIFFERS, *OTHERS)
    return world.balance(YOU) - before[0], world.balance(FRIEND) - before[1]


def test_who_reports_itself_pays_for_both_and_its_finder_is_paid(scene):
    assert report_when_found(scene) == (HALF, 0)
    faults = [(kind, slashed) for kind, _, slashed in fault_kinds(scene)]
    assert faults == [("early-reveal", PARAMS.slash_lazy), ("wrong-digest", PARAMS.slash_lazy)]
    assert scene.world.bond(ME) == BOND - 2 * PARAMS.slash_lazy


def test_control_if_the_first_fault_ended_all_liability_the_finder_gets_nothing(scene, monkeypatch):
    advance = settlement._advance

    def forget_who_is_out(block, place, claim):
        if VALIDATORS.get(block.state, place[2]).jailed_height:
            CUSTODY_CLAIMS.delete(block.state, *place)
        else:
            advance(block, place, claim)

    monkeypatch.setattr(settlement, "_advance", forget_who_is_out)
    assert report_when_found(scene) == (0, 0)
    assert scene.world.bond(ME) == BOND - PARAMS.slash_lazy


def test_control_if_reports_were_always_paid_half_of_one_slash_comes_back(scene, monkeypatch):
    monkeypatch.setattr(reports, "is_accused", lambda state, validator: False)
    assert report_when_found(scene) == (HALF, HALF)


def test_a_digest_that_is_in_somebodys_hand_can_still_be_claimed_wrong_but_none_is_asked_for(scene):
    world, ready = scene.world, prepare(scene)
    world.ripen()
    assert world.do(FRIEND, ready).code == "ok" and scene.is_out(ME)
    assert "it cannot answer" in scene.claim(scene.chunks[1]).message
    assert accuse(scene).code == "ok"
    scene.judge(Outcome.DIFFERS, *OTHERS)
    assert [kind for kind, _, _ in fault_kinds(scene)] == ["early-reveal", "wrong-digest"]


def test_all_faults_together_take_no_more_than_the_bond(scene):
    world, ready, before = scene.world, prepare(scene), scene.world.balance(YOU)
    world.ripen()
    assert world.do(FRIEND, ready).code == "ok"
    for number, chunk in enumerate(scene.chunks[:3]):
        assert accuse(scene, number).code == "ok"
        scene.judge(Outcome.DIFFERS, *OTHERS, chunk=chunk)
    assert sum(slashed for _, _, slashed in fault_kinds(scene)) == BOND
    assert world.bond(ME) == 0 and world.balance(YOU) == before + HALF


def test_who_is_asked_and_has_itself_reported_gains_nothing_by_it(scene):
    """It is out and can answer no more; the slash is as great, and nobody has half of it."""
    world, ready = scene.world, prepare(scene)
    before = world.balance(FRIEND)
    assert scene.claim().code == "ok"
    assert world.do(FRIEND, ready).code == "ok"
    assert world.balance(FRIEND) == before and world.bond(ME) == BOND - PARAMS.slash_lazy


def test_a_report_is_paid_when_nothing_is_asked_or_judged(scene):
    world, ready = scene.world, prepare(scene)
    before = world.balance(FRIEND)
    scene.claim()
    scene.show()
    assert world.do(FRIEND, ready).code == "ok"
    assert world.balance(FRIEND) == before + HALF
