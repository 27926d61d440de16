"""Who listens to final blocks: a bounded queue each, and whoever lags too far is cut off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mlchain.errors import ConfigError
from mlchain.node.chain import Committed

MAX_SUBSCRIBERS = 64
SUBSCRIBER_BLOCKS = 256
"""Blocks a slow subscriber may lag behind before it is cut off."""


class Subscribers:
    """The queues of those who listen."""

    def __init__(self) -> None:
        self._queues: list[trio.MemorySendChannel[Committed]] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[trio.MemoryReceiveChannel[Committed]]:
        """Give a channel of the blocks that become final from now on.

        Raises:
            ConfigError: too many listen.
        """
        if len(self._queues) >= MAX_SUBSCRIBERS:
            raise ConfigError("too many subscribers", "close another one")
        send, receive = trio.open_memory_channel[Committed](SUBSCRIBER_BLOCKS)
        self._queues.append(send)
        try:
            yield receive
        finally:
            if send in self._queues:
                self._queues.remove(send)
            await send.aclose()

    def tell(self, committed: Committed) -> None:
        """Hand a block to everybody; never waits."""
        for queue in list(self._queues):
            try:
                queue.send_nowait(committed)
            except trio.WouldBlock:
                self._queues.remove(queue)
                queue.close()
