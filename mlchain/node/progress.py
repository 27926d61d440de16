"""Lines about something long: how far it is, and how fast it goes."""

from __future__ import annotations

import time

import structlog

log = structlog.get_logger("progress")

TELL_S = 2.0
"""Pause between two lines."""


class Progress:
    """Says now and then how far something is, and how fast it goes."""

    def __init__(self, event: str, total: int, done: int = 0) -> None:
        self.event, self.total, self.done = event, total, done
        self._first, self._started, self._told = done, time.monotonic(), time.monotonic()

    def tell(self, **more: int) -> None:
        """Log a line, unless one was logged a moment ago."""
        now = time.monotonic()
        if now - self._told < TELL_S:
            return
        self._told = now
        rate = (self.done - self._first) / (now - self._started)
        log.info(self.event, done=self.done, of=self.total, each_s=round(rate, 1), **more)
