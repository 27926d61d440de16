"""Every stall is explained: who held the quorum back, by which fault, and until when.

A correct validator that wants a block and decides nothing for `STALL_MS` stalls. The faults of a
run are known, for the simulator made them. What is left of the stall after the last of them is time
that the protocol itself took; it may take the rounds of all liars and a few more. Else nothing
explains the stall, and that breaks the promise of liveness.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from mlchain.consensus.effects import Timeouts
from mlchain.ledger.validators import ValidatorSet
from mlchain.sim.network import Weather

STALL_MS = 500
"""Ten times what a height takes here in fair weather."""
SPARE_ROUNDS = 3
"""To come together in one round, to learn of the newest lock, and one more."""
ANSWER_MS = 40
"""What messages, building and checking add to a round in the calm."""
NEVER_MS = 1 << 62

DOWN, PARTITION, SILENCED, WEATHER = "down", "partition", "silenced", "weather"
PATIENCE = "patience"
"""A correct validator objected to a block, and was within its time for it."""
LIARS, ROUNDS = "liars", "rounds"
"""Nothing was broken: in these rounds a liar proposed, or one that nobody had asked for a block."""


class Stall(NamedTuple):
    """One of them. `cause` is "" if nothing explains it; until `until_ms` there were faults."""

    place: int
    height: int
    from_ms: int
    until_ms: int
    length_ms: int
    cause: str
    who: tuple[int, ...]

    def __str__(self) -> str:
        names = "".join(f" {p}" for p in self.who)
        held = f"{self.cause}{names} until {self.until_ms} ms"
        held = held if self.cause else f"no fault after {self.until_ms} ms explains it"
        what = f"place {self.place} stood at height {self.height} for {self.length_ms} ms"
        return f"{what} from {self.from_ms} ms: {held}"


@dataclass
class Stalls:
    """Notes the faults of a run as they happen, and says of each stall which explains it.

    `correct` are the places of the validators that follow the protocol; `patience_ms` is how long
    one of them may object to blocks.
    """

    validators: ValidatorSet
    correct: tuple[int, ...]
    weather: Weather
    timeouts: Timeouts
    patience_ms: int = 0
    found: list[Stall] = field(default_factory=list)
    _since: dict[int, int] = field(default_factory=dict)
    _wants: dict[int, list[int]] = field(default_factory=dict)
    """By height: when those that decided it want the next block."""
    _rounds: dict[int, int] = field(default_factory=dict)
    _downs: list[tuple[int, int, int]] = field(default_factory=list)
    _mutes: list[tuple[int, int, int]] = field(default_factory=list)
    _dumb: list[tuple[int, int, int]] = field(default_factory=list)
    _moves: list[tuple[int, list[int]]] = field(default_factory=list)
    _objections: list[tuple[int, int]] = field(default_factory=list)

    @property
    def liars(self) -> int:
        """How many validators do not follow the protocol."""
        return len(self.validators.keys) - len(self.correct)

    def on_down(self, place: int, at_ms: int, until_ms: int = NEVER_MS) -> None:
        """A process crashed, and starts again at `until_ms`."""
        self._downs.append((place, at_ms, until_ms))

    def on_up(self, place: int, at_ms: int) -> None:
        """A process that crashed at a time unknown is as it was from `at_ms` on."""
        for index, (who, begin, end) in enumerate(self._downs):
            if who == place and end == NEVER_MS:
                self._downs[index] = place, begin, at_ms

    def on_mute(self, place: int, at_ms: int, until_ms: int) -> None:
        """The network swallows what a place says."""
        self._mutes.append((place, at_ms, until_ms))

    def on_dumb(self, place: int, at_ms: int, until_ms: int) -> None:
        """Somebody answers no question: who is behind and asked it for blocks waits."""
        self._dumb.append((place, at_ms, until_ms))

    def on_move(self, at_ms: int, sides: list[int]) -> None:
        """A partition moved."""
        self._moves.append((at_ms, sides))

    def on_objection(self, place: int, at_ms: int) -> None:
        """A correct place would not vote for a valid block."""
        self._objections.append((place, at_ms))

    def on_progress(
        self, place: int, height: int, round_: int, now_ms: int, rest_ms: int = 0
    ) -> Stall | None:
        """Note that a correct place decided `height`; return the stall that this ends, if any.

        The place need not want the next block for `rest_ms`.
        """
        stall = self.look(place, height, round_, now_ms)
        self._since[place] = now_ms
        self._wants.setdefault(height, []).append(now_ms + rest_ms)
        self._rounds.pop(place, None)
        if stall is not None:
            self.found.append(stall)
        return stall

    def look(self, place: int, height: int, round_: int, now_ms: int) -> Stall | None:
        """Return the stall that a correct place is in, if it is in one."""
        self._rounds[place] = round_ = max(round_, self._rounds.get(place, 0))
        since = max(self._since.get(place, 0), self._rested(height - 1))
        if now_ms - since < STALL_MS:
            return None
        return self.explain(place, height, since, now_ms, round_)

    def _rested(self, height: int) -> int:
        """Return since when so many want the block after `height` that the others come along."""
        wants = sorted(self._wants.get(height, ()))
        return wants[self.validators.faults] if len(wants) > self.validators.faults else 0

    def explain(self, place: int, height: int, since: int, now_ms: int, round_: int) -> Stall:
        """Name the fault that took most of the stall, if what is left after the last is short."""
        spans: dict[str, int] = {}
        who: dict[str, tuple[int, ...]] = {}
        last = since
        for begin, end in self._spans(since, now_ms):
            cause, names = self._fault(place, begin)
            if not cause and self._wants.get(height):  # others have decided it
                names = tuple(p for p, at, until in self._dumb if at <= begin < until)
                cause = SILENCED if names else ""
            if cause:
                spans[cause] = spans.get(cause, 0) + end - begin
                who[cause] = names
                last = end
        cause = max(spans, key=lambda name: spans[name], default="")
        for other, at in self._objections:
            if last <= at <= min(now_ms, since + self.patience_ms):
                cause, last, who[PATIENCE] = PATIENCE, at, (other,)
        if now_ms - last > self.most_ms(round_):
            cause = ""
        elif not cause:
            cause = LIARS if self.liars else ROUNDS
        return Stall(
            place, height, since, last, now_ms - since, cause, who.get(cause, ())
        )  # fmt: skip

    def most_ms(self, round_: int) -> int:
        """Return how long the protocol may take from the last fault to a decision in `round_`."""
        waits = self.timeouts.delay_ms(self.timeouts.propose_ms, round_)
        waits += 2 * self.timeouts.delay_ms(self.timeouts.vote_ms, round_)
        rounds = self.liars + SPARE_ROUNDS
        return 2 * self.timeouts.gossip_ms + rounds * (waits + ANSWER_MS)

    def _spans(self, since: int, now_ms: int) -> Iterator[tuple[int, int]]:
        """Cut the time into pieces in which no fault begins or ends."""
        cuts = {since, now_ms, self.weather.begin_ms, self.weather.gst_ms}
        cuts.update(at for at, _ in self._moves)
        cuts.update(
            t for _, at, until in (*self._downs, *self._mutes, *self._dumb) for t in (at, until)
        )
        inside = sorted(cut for cut in cuts if since <= cut <= now_ms)
        return pairwise(inside)

    def _fault(self, place: int, at_ms: int) -> tuple[str, tuple[int, ...]]:
        """Return what keeps `place` from a quorum of correct ones at one time, and whom."""
        down = {p for p, begin, end in self._downs if begin <= at_ms < end}
        if place in down:
            return DOWN, (place,)
        up = [p for p in self.correct if p not in down]
        if len(up) < self.validators.quorum:
            return DOWN, tuple(p for p in self.correct if p in down)
        if not self.weather.begin_ms <= at_ms < self.weather.gst_ms:
            return "", ()
        sides = next((sides for at, sides in reversed(self._moves) if at <= at_ms), None)
        near = [p for p in up if sides is None or sides[p] == sides[place]]
        if len(near) < self.validators.quorum:
            return PARTITION, tuple(p for p in up if p not in near)
        mute = {p for p, begin, end in self._mutes if begin <= at_ms < end}
        if place in mute or len([p for p in near if p not in mute]) < self.validators.quorum:
            return SILENCED, tuple(p for p in near if p in mute)
        weather = self.weather
        is_slow = 10 * weather.delay_ms > self.timeouts.vote_ms  # late ones take ten times as long
        is_bad = weather.loss or weather.block_loss or is_slow
        return (WEATHER, ()) if is_bad else ("", ())
