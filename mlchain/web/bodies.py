"""Request bodies: never more in memory than allowed, and large ones straight into the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE_TIMEOUT_S = 20.0
"""How long a client may be silent in the middle of a body."""
MIN_BYTES_PER_S = 16 << 10
"""A body that comes more slowly than this, after `PIECE_TIMEOUT_S` of grace, is given up: few are
taken at a time, and a client that sends a byte now and then would keep its place for ever."""
DRAIN_BYTES = 32 << 20
DRAIN_S = 5.0
"""How much of a refused body is still taken, and for how long, so that its sender hears why."""
MEDIA_TYPE = "application/octet-stream"


def check_type(request: Request) -> None:
    """Return if the body is declared as bytes.

    Browsers send that type across sites only after asking, and nobody here says yes: so no web
    page can make its visitor's browser write to a node on the visitor's machine.

    Raises:
        HTTPException: 415.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != MEDIA_TYPE:
        raise HTTPException(415, f"content-type is {given or 'missing'}; send {MEDIA_TYPE}")


def check_length(request: Request, limit: int) -> None:
    """Return if the length that the client declares, if any, is allowed.

    Raises:
        HTTPException: 413.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise HTTPException(413, f"body of {declared} bytes, at most {limit} allowed")


async def read_body(request: Request, limit: int) -> bytes:
    """Return the whole body of at most `limit` bytes.

    Raises:
        HTTPException: 408, 413, 415.
    """
    data = bytearray()
    async with aclosing(pieces(request, limit)) as body:
        async for piece in body:
            data += piece
    return bytes(data)


async def pieces(
    request: Request, limit: int, on_bytes: Callable[[int], None] = lambda size: None
) -> AsyncGenerator[bytes]:
    """Yield the body as it comes; `on_bytes` is told of each piece and may refuse it.

    Raises:
        HTTPException: 408, 413, 415.
    """
    check_type(request)
    check_length(request, limit)
    size, end = 0, trio.current_time() + PIECE_TIMEOUT_S
    async with aclosing(request.stream()) as stream:
        while True:
            too_slow_at = end + size / MIN_BYTES_PER_S
            with trio.move_on_at(min(too_slow_at, trio.current_time() + PIECE_TIMEOUT_S)) as wait:
                piece = await anext(stream, b"")
            if wait.cancelled_caught:
                raise HTTPException(408, "the body came too slowly, or not to its end")
            if not piece:  # the end, which starlette announces by an empty piece
                return
            size += len(piece)
            if size > limit:
                raise HTTPException(413, f"body of more than {limit} bytes")
            on_bytes(len(piece))
            yield piece


class BodyFile:
    """The body as a file to read from in a thread, while the event loop receives it."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end.

        Raises:
            HTTPException: as `pieces`.
        """
        while not self._rest:
            piece: Any = trio.from_thread.run(self._next)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    async def _next(self) -> bytes | None:
        try:
            return await anext(self._source, None)
        except ClientDisconnect:
            raise HTTPException(400, "the client went away") from None


class Drain:
    """ASGI middleware: answers an error at once, then takes the rest of the body, within bounds.

    A connection that is closed while bytes are still coming is reset, and with it the answer that
    was on its way: the client would hear nothing but that the server went away.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; see the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_error = is_whole = False

        async def receive_noting() -> Message:
            nonlocal is_whole
            message = await receive()
            is_whole = not message.get("more_body", False)
            return message

        async def send_then_drain(message: Message) -> None:
            nonlocal is_error
            is_error = is_error or message.get("status", 0) >= 400
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if not is_last or not is_error or is_whole:
                await send(message)
                return
            await send({**message, "more_body": True})
            size = 0
            with trio.move_on_after(DRAIN_S):
                while not is_whole and size < DRAIN_BYTES:
                    size += len((await receive_noting()).get("body", b""))
            await send({"type": "http.response.body", "body": b""})

        await self._app(scope, receive_noting, send_then_drain)
