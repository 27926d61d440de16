"""Live blocks as server-sent events: a cursor over the stored blocks, woken by new ones.

A client that names the last height it saw (`Last-Event-ID`) gets every block since, from the same
store and in the same form as live ones; a slow client therefore costs no queue, only its cursor.
Of each block first come its `job` events, then a `prediction` event for each request that it
answered or gave up, then the `block` event, which alone carries the id: who is cut off in between
sees the whole block again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlchain.node.query import Query

PING_S = 15.0
"""Proxies close connections that are silent for longer."""
SEND_TIMEOUT_S = 30.0
RETRY_MS = 2_000
MAX_STREAMS = 48

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}


class BlockSource(Protocol):
    """Where blocks come from. `Node` fits."""

    query: Query

    def subscribe_blocks(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Any]]:
        """Give a channel on which something arrives after each block."""
        ...


class BlockStream(Response):
    """The answer to GET /v1/stream: events of the blocks after `last`, until the client goes."""

    def __init__(self, source: BlockSource, last: int, ping_s: float = PING_S) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._source = source
        self._last = last
        self._ping_s = ping_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events for ever."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
            with suppress(trio.TooSlowError):  # it does not read: let it go
                async with self._source.subscribe_blocks() as blocks:
                    await self._follow(blocks, send)
            nursery.cancel_scope.cancel()

    async def _follow(self, blocks: trio.MemoryReceiveChannel[Any], send: Send) -> None:
        query = self._source.query
        await _write(send, f"retry: {RETRY_MS}\n\n")
        while True:
            self._last = max(self._last, query.kept - 1)
            while self._last < query.height:
                self._last += 1
                await _write(send, block_events(query, self._last))
            try:
                with trio.move_on_after(self._ping_s) as silence:
                    await blocks.receive()
            except trio.EndOfChannel:
                return  # the node cut off a slow reader; the client comes back with its id
            if silence.cancelled_caught:
                await _write(send, ": ping\n\n")


def block_events(query: Query, height: int) -> str:
    """Return the events of one block."""
    jobs = [event("job", row) for row in query.job_events(height)]
    ended = [event("prediction", row) for row in query.predictions.events(height)]
    return "".join([*jobs, *ended, event("block", query.block_row(height), str(height))])


def event(kind: str, data: Mapping[str, Any], identity: str = "") -> str:
    """Return one event; JSON has no line breaks, so one `data` line is enough."""
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n"


async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _write(send: Send, text: str) -> None:
    """Send some events; a client that does not read them in time is let go."""
    with trio.fail_after(SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
