"""Row 29: a proposer sees a report that earns half a slash, and sends it as its own."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.reporting import announce, ripen
from vm.world import PARAMS, World

from mlchain.consensus.work.tickets import CUSTODY
from mlchain.vm.families import reports
from mlchain.vm.families.reports import (
    REPORTS,
    AnnounceReport,
    ReportReveal,
    report_hash,
)

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
    about = (shown.validator, shown.purpose, shown.height, shown.element)
    said = AnnounceReport(report_hash(world.key(THIEF).public, *about))
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
    monkeypatch.setattr(reports, "ripe_height", lambda block, announced: announced)
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
    assert len(list(REPORTS.items(world.state()))) == 1
    monkeypatch.setattr(reports, "REPORT_BLOCKS", 3)
    world.blocks(4)
    assert list(REPORTS.items(world.state())) == []
