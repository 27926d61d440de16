"""An invented network: it loses, delays, repeats and partitions, until it calms down.

Before `gst_ms` (the paper's global stabilisation time) anything may happen to a message; after
it every message arrives within a few milliseconds. All times are simulated milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

CALM_DELAY_MS = 5
PARTITION_MS = 400


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad it is before the calm. Rates are percent."""

    gst_ms: int
    loss: int
    block_loss: int
    """Further loss of proposals: they are large."""
    repeat: int
    delay_ms: int
    """A typical delay; one message in eight takes up to ten times as long."""
    partitions: int
    """How many partitions come up, one after another."""
    envy: int
    """How often a place the adversary favours is silenced when it is about to decide."""
    partition_ms: int = PARTITION_MS
    begin_ms: int = 0
    """Until then it is calm, too."""


def make_weather(rng: Random, gst_ms: int) -> Weather:
    """Return a random weather; delays near the timeouts are the hard ones."""
    return Weather(
        gst_ms,
        loss=rng.choice((0, 5, 15, 30)),
        block_loss=rng.choice((0, 20, 40)),
        repeat=rng.choice((0, 5)),
        delay_ms=rng.choice((3, 10, 25, 60)),
        partitions=rng.randrange(7),
        envy=rng.choice((40, 95)),
    )


class Network:
    """Decides when, how often, and whether a message arrives."""

    def __init__(self, rng: Random, weather: Weather, size: int, twins: list[tuple[int, int]]):
        """`twins` are pairs of places that partitions like to separate."""
        self._rng = rng
        self._weather = weather
        self._twins = twins
        self._sides: list[int] = [0] * size
        self._mute_until: list[int] = [0] * size
        self._moves = sorted(rng.randrange(weather.gst_ms) for _ in range(weather.partitions))
        self.on_move: Callable[[int, list[int]], None] = lambda at, sides: None
        """Told of the sides that were drawn, place by place 0 or 1, and since when they hold."""
        self.on_mute: Callable[[int, int, int], None] = lambda place, at, until: None
        """Told who is silenced, from when, until when."""

    def is_calm(self, now_ms: int) -> bool:
        """Tell whether the bad weather is over."""
        return not self._weather.begin_ms <= now_ms < self._weather.gst_ms

    def is_connected(self, sender: int, receiver: int, now_ms: int) -> bool:
        """Tell whether messages get from one place to the other at all."""
        while self._moves and self._moves[0] <= now_ms:
            self._move()
        if self.is_calm(now_ms):
            return True
        return now_ms >= self._mute_until[sender] and self._sides[sender] == self._sides[receiver]

    def silences(self, place: int, now_ms: int) -> bool:
        """Perhaps silence a place that is about to precommit, and so perhaps to decide alone.

        The model lets the adversary schedule messages as it likes before the calm, and this is
        when it hurts most: one knows the decision, and the others must not decide otherwise.
        """
        if self.is_calm(now_ms) or self._rng.random() * 100 >= self._weather.envy:
            return False
        self._mute_until[place] = now_ms + 300 + int(self._rng.random() * 1_200)
        self.on_mute(place, now_ms, self._mute_until[place])
        return True

    def delays(self, sender: int, receiver: int, now_ms: int, is_block: bool) -> list[int]:
        """Return after how many milliseconds the message arrives; empty: never."""
        rng, weather = self._rng, self._weather
        if not weather.begin_ms <= now_ms < weather.gst_ms:
            return [1 + int(rng.random() * CALM_DELAY_MS)]
        loss = weather.loss + (weather.block_loss if is_block else 0)
        if not self.is_connected(sender, receiver, now_ms) or rng.random() * 100 < loss:
            return []
        delays = [self._delay()]
        if rng.random() * 100 < weather.repeat:
            delays.append(self._delay() + 10 * weather.delay_ms)
        return delays

    def _delay(self) -> int:
        most = self._weather.delay_ms * (2 if self._rng.random() * 8 >= 1 else 10)
        return 1 + int(self._rng.random() * most)

    def _move(self) -> None:
        """Draw new sides, and perhaps the time of the next move."""
        start = self._moves.pop(0)
        self._sides = [self._rng.randrange(2) for _ in self._sides]
        for one, other in self._twins:
            self._sides[other] = 1 - self._sides[one]
        self.on_move(start, self._sides)
        again = start + 1 + self._rng.randrange(2 * self._weather.partition_ms)
        if again < self._weather.gst_ms:
            self._moves = sorted([*self._moves, again])
