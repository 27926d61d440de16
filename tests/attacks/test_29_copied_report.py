"""Row 29: a proposer sees a report, or a claim, that earns half a slash, and copies it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from vm.reporting import announce, ripen
from vm.test_vm_custody import ME as ACCUSED
from vm.test_vm_custody import make_scene
from vm.world import PARAMS, World

from mlchain.consensus.work.tickets import CUSTODY
from mlchain.crypto import digest
from mlchain.vm.families import announcements
from mlchain.vm.families.announcements import ANNOUNCED, Announce, announcement
from mlchain.vm.families.custody import ClaimDigest
from mlchain.vm.families.reports import ReportReveal
from mlchain.vm.families.segments import MakeClaim

LENDER, FINDER, THIEF = "validator-0", "worker-0", "validator-1"
"""Of the thief we suppose that it builds the block in which the report would be shown."""


@pytest.fixture
def world() -> World:
    made = World()
    made.blocks(5)
    return made


def announced(world: World) -> ReportReveal:
    height = world.height + 1
    return announce(world, FINDER, LENDER, CUSTODY, height, world.chain(LENDER, CUSTODY).at(height))


def steal(world: World, shown: ReportReveal) -> list[str]:
    """The thief's block: its announcement and its report go before the finder's."""
    mine = replace(shown, announced=world.height + 1)
    said = Announce(announcement(world.key(THIEF).public, mine))
    receipts = world.block(
        world.transaction(THIEF, said),
        world.transaction(THIEF, mine, ahead=1),
        proposer=THIEF,
    )
    return [receipt.code for receipt in receipts]


def test_who_copies_a_report_has_to_wait_until_the_first_one_is_paid(world):
    shown = announced(world)
    ripen(world)
    before = world.balance(FINDER), world.balance(THIEF)
    assert steal(world, shown) == ["ok", "invalid-transaction"]
    assert world.do(FINDER, shown).code == "ok", "by the next honest proposer"
    assert world.balance(FINDER) == before[0] + PARAMS.slash_lazy // 2
    copied = replace(shown, announced=world.height - 1)
    ripen(world)
    assert "no validator" in world.do(THIEF, copied).message
    assert world.balance(THIEF) == before[1]


def test_control_without_the_wait_the_copy_is_paid(world, monkeypatch):
    monkeypatch.setattr(announcements, "ripe_height", lambda state, validators, height: height)
    shown = announced(world)
    before = world.balance(FINDER), world.balance(THIEF)
    assert steal(world, shown) == ["ok", "ok"]
    assert "no validator" in world.do(FINDER, shown).message
    assert world.balance(THIEF) == before[1] + PARAMS.slash_lazy // 2
    assert world.balance(FINDER) == before[0]


def test_an_announcement_is_of_no_use_to_another(world):
    shown = announced(world)
    ripen(world)
    assert "not announced by its sender" in world.do(THIEF, shown).message
    assert world.faults() == []


def test_what_was_announced_in_time_counts_when_the_element_is_public_at_last(world):
    shown = announced(world)
    world.blocks(PARAMS.attest_window + 5)
    assert world.do(FINDER, shown).code == "ok"
    assert [fault.kind for fault in world.faults()] == ["early-reveal"]


def test_what_is_announced_when_it_is_due_earns_nothing(world):
    height = world.height
    world.blocks(PARAMS.attest_window + 5)
    element = world.chain(LENDER, CUSTODY).at(height)
    shown = announce(world, FINDER, LENDER, CUSTODY, height, element)
    ripen(world)
    assert "was secret" in world.do(FINDER, shown).message


def test_announcements_are_forgotten(world, monkeypatch):
    announced(world)
    assert len(list(ANNOUNCED.items(world.state()))) == 1
    monkeypatch.setattr(announcements, "ANNOUNCED_BLOCKS", 3)
    world.blocks(4)
    assert list(ANNOUNCED.items(world.state())) == []


# ---- claims that nothing waits for


def late_claim() -> tuple[World, MakeClaim, Callable[[], bytes]]:
    """A forged chunk of work that is HARD."""
    world = World()
    job = world.running()
    world.commit(job)
    world.harden(job)
    claim = replace(world.claim(FIRST, job, 7), ticket=digest("test-salt"))

    def accuser() -> bytes:
        found = world.segment(job).claim
        assert found is not None
        return found.accuser

    return world, claim, accuser


def digest_claim() -> tuple[World, ClaimDigest, Callable[[], bytes]]:
    """A validator's digest that is wrong."""
    scene = make_scene()
    chunk, accused = scene.chunks[0], scene.world.key(ACCUSED).public
    claim = ClaimDigest(scene.job, 0, accused, chunk, scene.opening(chunk), digest("test-salt"), 0)

    def accuser() -> bytes:
        found = scene.on_chain(chunk)
        assert found is not None
        return found.accuser

    return scene.world, claim, accuser


FIRST = "validator-2"


@pytest.mark.parametrize("make", [late_claim, digest_claim])
@pytest.mark.parametrize("is_waited", [True, False], ids=["as it is", "control: without the wait"])
def test_a_claim_that_is_copied_when_it_is_shown_comes_too_late(make, is_waited, monkeypatch):
    if not is_waited:
        monkeypatch.setattr(announcements, "ripe_height", lambda state, voters, height: height)
    world, claim, accuser = make()
    shown = world.announced(FIRST, claim)
    ripen(world)
    copied = replace(claim, announced=world.height + 1)
    said = Announce(announcement(world.key(THIEF).public, copied))
    receipts = world.block(
        world.transaction(THIEF, said), world.transaction(THIEF, copied, ahead=1), proposer=THIEF
    )
    assert receipts[0].code == "ok"
    assert receipts[1].code == ("invalid-transaction" if is_waited else "ok")
    assert (world.do(FIRST, shown).code == "ok") == is_waited
    assert world.names[accuser()] == (FIRST if is_waited else THIEF)


@pytest.mark.parametrize("make", [late_claim, digest_claim])
def test_such_a_claim_is_not_taken_unannounced(make):
    world, claim, _ = make()
    assert "not announced by its sender" in world.do(FIRST, claim).message


def test_there_is_one_announcement_a_block_for_free_ones_fill_nothing(world):
    said = [Announce(digest("test-finding", bytes([i]))) for i in range(2)]
    receipts = world.block(*(world.transaction(THIEF, it, ahead=i) for i, it in enumerate(said)))
    assert [receipt.code for receipt in receipts] == ["ok", "invalid-transaction"]
