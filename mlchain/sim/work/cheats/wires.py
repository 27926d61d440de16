"""What is done to, or with, messages: floods, garbage, replays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlchain.p2p.transport import Channel
from mlchain.sim.work.cheat import Cheat

if TYPE_CHECKING:
    from mlchain.sim.work.place import Place

MOST_KEPT = 400


class Garbage(Cheat):
    """Sends with every frame a second one: cut, flipped, or of another channel."""

    row = "25 malformed bytes"

    def outgoing(self, channel: int, frame: bytes, receiver: Place) -> list[bytes]:
        rng, spoilt = self.rng, bytearray(frame)
        for _ in range(1 + rng.randrange(4)):
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        cut = bytes(spoilt[: rng.randrange(1, len(spoilt) + 1)])
        return [frame, rng.choice((bytes(spoilt), cut, b"\xff" * 9, frame + b"\x00"))]


class Flood(Cheat):
    """Sends everything eight times, and old messages with it."""

    row = "26 flood"

    def outgoing(self, channel: int, frame: bytes, receiver: Place) -> list[bytes]:
        kept = self.world.memory.setdefault(channel, [])
        kept.append(frame)
        del kept[:-MOST_KEPT]
        return [frame] * 8 + [self.rng.choice(kept) for _ in range(4)]


class Mute(Cheat):
    """Takes part in nothing."""

    row = "26 stall"

    def outgoing(self, channel: int, frame: bytes, receiver: Place) -> list[bytes]:
        return []


class Replay(Cheat):
    """The network says again, later and to others, what somebody said at another height."""

    row = "23 replay across heights"
    corrupts = "network"

    async def run(self) -> None:
        """Listen in."""
        self.world.office.tampers.append(self._tamper)

    def _tamper(self, sender: Place, receiver: Place, channel: int, frame: bytes) -> list[bytes]:
        kept = self.world.memory.setdefault(channel, [])
        kept.append(frame)
        if len(kept) > MOST_KEPT:
            del kept[: MOST_KEPT // 2]
        if channel == Channel.CONSENSUS and self.rng.random() < 0.3:
            return [frame, self.rng.choice(kept)]
        return [frame]
