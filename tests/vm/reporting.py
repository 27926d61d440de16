"""Reports of early elements, as whoever holds one makes them."""

from __future__ import annotations

from vm.world import World

from mlchain.consensus.work.tickets import PURPOSES
from mlchain.ledger.block import Receipt
from mlchain.vm.cover import finality_depth
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.families.reports import AnnounceReport, ReportReveal, report_hash


def announce(
    world: World, sender: str, owner: str, purpose: str, height: int, element: bytes
) -> ReportReveal:
    """Put the announcement into the next block; returns what shows it later."""
    about = (world.key(owner).public, PURPOSES.index(purpose), height, element)
    said = AnnounceReport(report_hash(world.key(sender).public, *about))
    assert world.do(sender, said).code == "ok"
    return ReportReveal(*about, world.height)


def ripen(world: World) -> None:
    """Make the blocks in which an honest proposer comes to its turn."""
    world.blocks(finality_depth(get_validator_set(world.state())) - 1)


def report(
    world: World, sender: str, owner: str, purpose: str, height: int, element: bytes
) -> Receipt:
    """Announce, wait and show."""
    shown = announce(world, sender, owner, purpose, height, element)
    ripen(world)
    return world.do(sender, shown)
