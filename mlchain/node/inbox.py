"""Received batches of transactions: a small queue for each peer, and the peers in turn.

Whoever sends more than is looked at fills its own queue and loses its own batches.
"""

from __future__ import annotations

from collections import deque

import trio

Batch = tuple[bytes, ...]
"""Encoded transactions."""

MAX_BATCHES = 64
MAX_BYTES = 8 << 20
"""What may wait of one peer; more of it is dropped."""


class Inbox:
    """Batches that wait to be looked at."""

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[tuple[int, Batch]]] = {}  # in turn; none is empty
        self._bytes: dict[bytes, int] = {}
        self._has_some = trio.Event()

    def push(self, peer: bytes, batch: Batch, size: int) -> bool:
        """Append a batch of `size` bytes from `peer`; False if there is no room for it."""
        queue, waiting = self._queues.get(peer), self._bytes.get(peer, 0)
        if queue is not None and (len(queue) >= MAX_BATCHES or waiting + size > MAX_BYTES):
            return False
        self._queues.setdefault(peer, deque()).append((size, batch))
        self._bytes[peer] = waiting + size
        self._has_some.set()
        return True

    async def pop(self) -> tuple[bytes, Batch]:
        """Wait for a batch; remove and return the oldest of the peer whose turn it is, with it."""
        await self._has_some.wait()
        peer = next(iter(self._queues))
        queue = self._queues.pop(peer)
        size, batch = queue.popleft()
        self._bytes[peer] -= size
        if queue:
            self._queues[peer] = queue  # behind all others
        else:
            del self._bytes[peer]
        if not self._queues:
            self._has_some = trio.Event()
        return peer, batch
