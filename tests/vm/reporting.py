"""Reports of early elements, as whoever holds one makes them."""

from __future__ import annotations

from vm.world import World

from mlchain.consensus.work.tickets import PURPOSES
from mlchain.ledger.block import Receipt
from mlchain.vm.families.reports import ReportReveal


def announce(
    world: World, sender: str, owner: str, purpose: str, height: int, element: bytes
) -> ReportReveal:
    """Put the announcement into the next block; returns what shows it later."""
    about = (world.key(owner).public, PURPOSES.index(purpose), height, element)
    return world.announced(sender, ReportReveal(*about, 0))


def ripen(world: World) -> None:
    """Make the blocks in which an honest proposer comes to its turn."""
    world.ripen()


def report(
    world: World, sender: str, owner: str, purpose: str, height: int, element: bytes
) -> Receipt:
    """Announce, wait and show."""
    shown = announce(world, sender, owner, purpose, height, element)
    ripen(world)
    return world.do(sender, shown)
