"""What an adversary of whole nodes is: a real node with one part exchanged, or a tampered wire.

Everything else about it is the real node: what catches it is the real defence.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from mlchain.ledger.genesis import Genesis
from mlchain.sim.work.lesson import RememberedCompute
from mlchain.sim.work.machine import SimulatedNode

if TYPE_CHECKING:
    from mlchain.sim.work.place import Place
    from mlchain.sim.work.world import World


class Cheat:
    """Plays at one place. `corrupts` says whose: "worker", "validator", "submitter", "network", or
    "operator": at all places of a key that has two roles.

    `parts` are class attributes of `node.Node` to exchange. One object lives as long as the run, so
    it remembers over crashes.
    """

    row: ClassVar[str] = ""
    """Number of the row of the attack table in the protocol, and what it is."""
    corrupts: ClassVar[str] = "validator"
    accomplice: ClassVar[str] = ""
    """For a worker's cheat: f validators help, each with this one."""
    misbehaviour: ClassVar[str] = ""
    """What `mlchain node --adversary` of the same name is given."""
    must_fail: ClassVar[bool] = False
    """Whether it must have been slashed when the run ends."""
    parts: ClassVar[dict[str, Any]] = {}

    def __init__(self, world: World, place: Place | None, rng: Random) -> None:
        self.world = world
        self.place = place
        self.rng = rng
        if place is not None:
            place.cheat = self
            named = {**self.parts, "make_compute": lambda node: self.compute()}
            place.node_type = type("CheatingNode", (SimulatedNode,), named)

    @classmethod
    def name(cls) -> str:
        """What it is called on the command line."""
        return "".join("-" + c.lower() if c.isupper() else c for c in cls.__name__)[1:]

    @classmethod
    def found(cls, genesis: Genesis) -> Genesis:
        """Return the genesis of a chain on which it can be played."""
        return genesis

    def order(self) -> None:
        """Change what is ordered, before the run."""

    def is_refused(self) -> bool:
        """Whether what must not come of it did not, at the end."""
        return True

    def compute(self) -> RememberedCompute:
        """Return what computes for it."""
        return RememberedCompute()

    def corrupt(self, node: SimulatedNode) -> None:
        """Change a node that was just made."""

    def outgoing(self, channel: int, frame: bytes, receiver: Place) -> list[bytes]:
        """Return what is sent in place of a frame."""
        return [frame]

    async def run(self) -> None:
        """Act on its own; for adversaries without a place."""
