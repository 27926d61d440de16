"""Our loop around hypercorn: an answer leaves in one piece."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio
from factories import make_chain
from hypercorn.events import Closed, RawData
from hypercorn.trio.tcp_server import TCPServer
from web_harness import FakeNode

from mlchain.web.api import HttpApi
from mlchain.web.server import Connection, serve_http


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/none":
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.body", "body": b"body", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ask(port: int, path: str) -> list[bytes]:
    """Return what arrives on a connection of its own, piece by piece."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(
        b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path.encode()
    )
    pieces = [piece async for piece in stream]
    await stream.aclose()
    return pieces


@pytest.mark.parametrize("path", ["/some", "/none"])
def test_an_answer_is_whole(path):
    async def scenario():
        async with trio.open_nursery() as nursery:
            shutdown = trio.Event()
            port = await nursery.start(serve_http, app, "127.0.0.1", 0, shutdown)
            answer = b"".join(await ask(port, path))
            assert answer.startswith(b"HTTP/1.1 200")
            assert (b"body" in answer) is (path == "/some")
            shutdown.set()

    trio.run(scenario)


@pytest.mark.parametrize("ours", [True, False])
def test_a_head_waits_for_what_follows_and_leaves_with_it(monkeypatch, ours):
    sent = []

    async def record(self, event):
        sent.append(event.data if isinstance(event, RawData) else type(event).__name__)

    monkeypatch.setattr(TCPServer, "protocol_send", record)
    connection = object.__new__(Connection)
    send = connection.protocol_send if ours else lambda event: record(connection, event)

    async def scenario():
        for event in (
            RawData(data=b"HTTP/1.1 200 \r\n\r\n"), RawData(data=b"body"), RawData(data=b""),
            RawData(data=b"HTTP/1.1 100 \r\n\r\n"),
            RawData(data=b"HTTP/1.1 204 \r\n\r\n"), Closed(),
        ):  # fmt: skip
            await send(event)

    trio.run(scenario)
    whole = [
        b"HTTP/1.1 200 \r\n\r\nbody", b"HTTP/1.1 100 \r\n\r\n", b"HTTP/1.1 204 \r\n\r\n", "Closed",
    ]  # fmt: skip
    assert (sent == whole) is ours, "the control sends six pieces"


def test_a_node_that_was_served_is_forgotten():
    """FastAPI keeps handlers in caches: without care, a node would stay with its open databases."""

    async def main() -> None:
        node = FakeNode(make_chain())
        with HttpApi(port=0) as api:
            async with trio.open_nursery() as nursery:
                await nursery.start(api.serve_node, node)
                nursery.cancel_scope.cancel()
        gone.append(weakref.ref(node))

    gone: list[weakref.ref[FakeNode]] = []
    trio.run(main)
    gc.collect()
    assert gone[0]() is None
