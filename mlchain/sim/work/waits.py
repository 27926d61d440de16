"""Tells `Stalls` what befalls whole nodes, and has every spell without a block explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlchain.ledger.validators import Validator, ValidatorSet
from mlchain.node.agreement import WATCH_MS, timeouts_of
from mlchain.node.chain import PATIENCE_MS, Committed
from mlchain.sim.checkers import Violation
from mlchain.sim.network import Weather
from mlchain.sim.stalls import Stall, Stalls
from mlchain.sim.work.cast import PARAMS
from mlchain.sim.work.wire import PostOffice, now_ms
from mlchain.vm.agenda import count_open

if TYPE_CHECKING:
    from mlchain.sim.work.place import Place


class Waits:
    """Watches the honest validators of one run."""

    def __init__(self, places: list[Place], office: PostOffice, weather: Weather) -> None:
        self._places = {p.index: p for p in places if p.role == "validator" and p.is_honest}
        keys = dict.fromkeys(sorted(p.key for p in places if p.role == "validator"))
        validators = ValidatorSet(tuple(Validator(key, 1) for key in keys))
        timeouts = timeouts_of(PARAMS)
        self.stalls = Stalls(validators, tuple(self._places), weather, timeouts, PATIENCE_MS)
        for index, place in self._places.items():
            self.stalls.on_progress(index, 0, 0, 0, PARAMS.heartbeat_ms)
            place.on_start.append(self._on_start)
            place.on_crash.append(lambda place: self.stalls.on_down(place.index, now_ms()))
        office.on_mute = self._on_mute

    def _on_mute(self, place: int, at_ms: int, until_ms: int) -> None:
        note = self.stalls.on_mute if place in self._places else self.stalls.on_dumb
        note(place, at_ms, until_ms)

    def on_commit(self, place: Place, committed: Committed, round_: int) -> Stall | None:
        """Note that an honest validator decided a block; return the stall that this ends.

        Raises:
            Violation: nothing explains it.
        """
        if place.index not in self._places:
            return None
        node, height = place.node, committed.block.header.height
        assert node is not None
        breath = min(node.agreement._earliest_ms - now_ms(), PARAMS.heartbeat_ms)
        rest = max(_rest_ms(place), breath)
        stall = self.stalls.on_progress(place.index, height, round_, now_ms(), rest)
        self.stalls.validators = committed.validators
        return self._explained(stall)

    def on_refused(self, place: Place, verdict: str) -> None:
        """Note that somebody would not vote for a block."""
        if verdict == "UNWANTED" and place.index in self._places:
            self.stalls.on_objection(place.index, now_ms())

    def look(self) -> None:
        """Look at who stands now.

        Raises:
            Violation: one does, and nothing explains it.
        """
        for index, place in self._places.items():
            if place.node is not None:
                driver = place.node.agreement._driver
                height = place.node.chain.height + 1
                self._explained(self.stalls.look(index, height, driver.round, now_ms()))

    def _explained(self, stall: Stall | None) -> Stall | None:
        if stall is not None and not stall.cause:
            raise Violation(f"liveness: {stall}")
        return stall

    def _on_start(self, place: Place) -> None:
        """A node that starts wants no block at once: to the others it is as good as down."""
        self.stalls.on_up(place.index, now_ms() + _rest_ms(place))


def _rest_ms(place: Place) -> int:
    """Return how long a node may do without a block when nothing new comes up."""
    assert place.node is not None
    is_busy = count_open(place.node.chain.state())
    return WATCH_MS if is_busy else PARAMS.heartbeat_ms
