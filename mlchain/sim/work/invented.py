"""Invented time: trio with a clock that jumps, one order of tasks for each seed, no threads.

A node is made of trio tasks. In here, time passes only when every task waits; which of several
ready tasks goes first is drawn from the seed; what would go to a thread is done at once; what the
nodes log is heard by the simulation; and the real machine is out of reach (`sealed.py`). So a run
is a function of its seed, on every machine.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import structlog
import trio
import trio._core._run as scheduler
import trio.testing

from mlchain.sim.work.sealed import sealed

Hear = Callable[[str, dict[str, Any]], None]
"""Takes the name of what a node logged, and its details."""


class _Bugs(logging.Handler):
    """Hears of exceptions that a transport survives: in a node they are bugs."""

    def __init__(self, hear: Hear) -> None:
        super().__init__(logging.ERROR)
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        """Report one."""
        what = repr(record.exc_info[1]) if record.exc_info else ""
        self._hear("bug", {"what": record.getMessage(), "reason": what})


def run_invented(main: Callable[[], Awaitable[None]], seed: str, hear: Hear) -> None:
    """Run `main` to its end in invented time."""

    async def run() -> None:  # trio itself starts with a pair of sockets, and ends without them
        with sealed(lambda what: hear("bug", {"what": what})):
            await main()

    with _invented(Random(seed), hear):
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def _at_once(function: Callable[..., Any], *args: Any, **how: Any) -> Any:
    """Stand in for a thread."""
    await trio.lowlevel.checkpoint()
    return function(*args)


@contextmanager
def _invented(rng: Random, hear: Hear) -> Iterator[None]:
    def catch(logger: Any, method: str, event: dict[str, Any]) -> Any:
        hear(str(event.pop("event", "")), event)
        raise structlog.DropEvent

    kept = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r, trio.to_thread.run_sync
    configured = structlog.get_config()
    transport_log, bugs = logging.getLogger("mlchain.p2p"), _Bugs(hear)
    was_propagating = transport_log.propagate
    transport_log.addHandler(bugs)
    transport_log.propagate = False
    structlog.configure(
        processors=[catch], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO)
    )
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r = rng
    trio.to_thread.run_sync = _at_once
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r, trio.to_thread.run_sync = kept  # type: ignore[misc]
        structlog.configure(**configured)
        transport_log.removeHandler(bugs)
        transport_log.propagate = was_propagating
