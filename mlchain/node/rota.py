"""A rota: things that are tried until they are done, several at a time, each in its turn.

What fails, or takes too long, makes way: what is new goes before it, and each time it rests longer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from mlchain.errors import MlchainError, Timeout

Act = Callable[[], Awaitable[None]]

FETCH_S = 60.0
"""For one try at a file, besides its transfer at `SLOWEST_BYTES_PER_S`."""
SLOWEST_BYTES_PER_S = 1 << 20


@contextmanager
def fetching(size: int) -> Iterator[None]:
    """Give up on fetching `size` bytes in the end.

    Raises:
        Timeout: it took too long; what came is kept.
    """
    limit_s = FETCH_S + size / SLOWEST_BYTES_PER_S
    with trio.move_on_after(limit_s) as scope:
        yield
    if scope.cancelled_caught:
        raise Timeout(f"not here after {limit_s:.0f} s")


@dataclass
class Rota:
    """Does what is due, `places` things at a time; an act fails by raising an `MlchainError`."""

    places: int
    pause_s: float
    longest_s: float
    """A failure rests for `pause_s`, then twice as long each time, at most so long."""
    _at_work: dict[bytes, None] = field(default_factory=dict)
    _failures: dict[bytes, int] = field(default_factory=dict)
    _rests: dict[bytes, float] = field(default_factory=dict)
    _wake: trio.Event = field(default_factory=trio.Event)

    async def run(self, find: Callable[[], Awaitable[Mapping[bytes, Act]]]) -> None:
        """Begin what `find` says is due, in its order, whenever there is room; for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                due = await find()
                for key in self.choose(due, trio.current_time()):
                    self._at_work[key] = None
                    nursery.start_soon(self._try, key, due[key])
                with trio.move_on_after(self.pause_s):
                    await self._wake.wait()

    def wake(self) -> None:
        """Look at once at what is due."""
        self._wake.set()

    def choose(self, due: Mapping[bytes, Act], now: float) -> list[bytes]:
        """Return what to begin, those with fewest failures first; what is not due is forgotten."""
        for table in (self._failures, self._rests):
            for key in [key for key in table if key not in due and key not in self._at_work]:
                del table[key]
        ready = [
            key for key in due if key not in self._at_work and self._rests.get(key, now) <= now
        ]
        ready.sort(key=lambda key: self._failures.get(key, 0))
        return ready[: max(0, self.places - len(self._at_work))]

    async def _try(self, key: bytes, act: Act) -> None:
        try:
            await act()
        except MlchainError:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            rest_s = min(self.pause_s * 2 ** min(failures - 1, 32), self.longest_s)
            self._rests[key] = trio.current_time() + rest_s
        finally:
            del self._at_work[key]
            self.wake()
