"""Nothing real gets in: what would make two runs of one seed differ is refused while one runs.

A part of the node that was not taken to the invented machine does not fail there by itself. It
reads the real clock, or starts a real process, and one seed is no longer one run; seldom, and by
little. So the doors are closed.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CLOCKS = (
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "sleep",
)
"""Of the module `time`. Refused to this package only: logging and trio may look."""
DOORS: tuple[tuple[Any, str], ...] = (
    (os, "urandom"),
    (random, "_urandom"),  # what `secrets` and `SystemRandom` draw from
    (threading.Thread, "start"),
    (subprocess.Popen, "__init__"),
    (socket.socket, "__init__"),
)
"""Refused to everybody."""
OURS = __name__.partition(".")[0]


class NotInvented(RuntimeError):
    """Code under simulation reached for the real machine."""


@contextmanager
def sealed(tell: Callable[[str], None]) -> Iterator[None]:
    """Refuse real clocks, randomness, threads, processes and sockets while inside.

    Whoever uses one gets `NotInvented`; `tell` is told of it too, for the node may survive it.
    """

    def refuse(name: str) -> None:
        tell(f"{name} is real")
        raise NotInvented(f"{name} is real: a simulated node takes it from its machine")

    def door(name: str) -> Callable[..., Any]:
        return lambda *args, **how: refuse(name)

    def clock(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def look(*args: Any) -> Any:
            if sys._getframe(1).f_globals.get("__name__", "").partition(".")[0] == OURS:
                refuse(f"time.{name}")
            return real(*args)

        return look

    kept = [(owner, name, getattr(owner, name)) for owner, name in DOORS]
    kept += [(time, name, getattr(time, name)) for name in CLOCKS]
    try:
        for owner, name, real in kept:
            what = f"{getattr(owner, '__name__', owner)}.{name}"
            setattr(owner, name, clock(name, real) if owner is time else door(what))
        yield
    finally:
        for owner, name, real in kept:
            setattr(owner, name, real)
