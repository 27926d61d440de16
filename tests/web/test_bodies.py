"""Bodies: never more in memory than allowed, never in the way of the loop."""

from __future__ import annotations

import contextlib
import threading
import tracemalloc

import trio
import trio.testing
from web_harness import BYTES, Web, is_problem, open_web

from mlchain.ledger.content import ContentStore, cid_of, cid_text
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.transaction import (
    MAX_TRANSACTION_BYTES,
)


def test_a_body_must_be_declared_as_bytes_so_that_no_web_page_can_write():
    async def main() -> None:
        async with open_web() as web:
            for path in ("/v1/txs", "/v1/data"):
                for kind in ("text/plain", "multipart/form-data", ""):
                    answer = await web.http.post(path, content=b"x", headers={"content-type": kind})
                    assert is_problem(answer, 415, "unsupported_media_type")
            answer = await web.http.options("/v1/txs", headers={"origin": "http://elsewhere"})
            assert "access-control-allow-origin" not in answer.headers

    trio.run(main)


def test_a_body_that_declares_too_much_is_refused_before_it_is_sent():
    async def main() -> None:
        async with open_web() as web:
            head = (
                b"POST /v1/txs HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
                b"Content-Length: 999999999\r\n\r\n"
            )
            assert b" 413 " in (await web.raw(head)).split(b"\r\n")[0]

    trio.run(main)


def test_a_body_without_a_length_is_cut_off_at_the_limit():
    piece = b"10000\r\n" + bytes(65_536) + b"\r\n"
    head = (
        b"POST /v1/txs HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )

    async def main() -> None:
        async with open_web() as web:
            stream = await trio.open_tcp_stream("127.0.0.1", web.port)
            sent = 0

            async def send_for_ever() -> None:
                nonlocal sent
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(head)
                    while True:
                        await stream.send_all(piece)
                        sent += len(piece)

            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(send_for_ever)
                with trio.fail_after(10):
                    assert b" 413 " in (await stream.receive_some()).split(b"\r\n")[0]
                nursery.cancel_scope.cancel()
            assert sent < MAX_TRANSACTION_BYTES + (16 << 20)  # the rest is sockets' buffers

    trio.run(main)


def test_data_is_streamed_into_the_store_and_comes_back_by_its_id():
    async def main() -> None:
        async with open_web() as web:
            data = bytes(range(256)) * 6_000  # several blocks

            async def in_pieces():
                for start in range(0, len(data), 10_007):
                    yield data[start : start + 10_007]

            answer = await web.http.post("/v1/data", content=in_pieces(), headers=BYTES)
            assert answer.json() == {"cid": cid_text(cid_of(data)), "size": len(data)}
            path = f"/v1/data/{answer.json()['cid']}"
            back = await web.http.get(path)
            assert back.content == data and "immutable" in back.headers["cache-control"]
            again = await web.http.get(path, headers={"if-none-match": back.headers["etag"]})
            assert again.status_code == 304 and not again.content
            info = (await web.http.get(f"{path}/info")).json()
            named = {"cid": answer.json()["cid"], "size": len(data), "profile": "kubo-cli"}
            assert info == named | {"whole": True, "pinned": False}
            answer = await web.http.post(
                "/v1/data?profile=unixfs-v1-2025", content=data, headers=BYTES
            )
            assert answer.json()["cid"] == cid_text(cid_of(data, "unixfs-v1-2025"))
            answer = await web.http.post("/v1/data?profile=other", content=data, headers=BYTES)
            assert answer.status_code == 422

            empty = await web.http.post("/v1/data", content=b"", headers=BYTES)
            assert empty.json()["size"] == 0

    trio.run(main)


class SlowDisk(MemoryKeyValue):
    """Keeps nothing, and does not finish a write before it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.allowed = threading.Event(), threading.Event()

    def write(self, puts, deletes=()):
        self.begun.set()
        assert self.allowed.wait(10), "nobody allowed it"


def test_the_loop_goes_on_while_the_disk_writes():
    async def main() -> None:
        disk = SlowDisk()
        async with open_web() as web:
            web.node.content = ContentStore(disk)

            async def upload() -> None:
                await web.http.post("/v1/data", content=bytes(1 << 20), headers=BYTES)

            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(upload)
                    while not disk.begun.is_set():
                        await trio.sleep(0.005)
                    assert (await web.http.get("/healthz")).status_code == 200
                    disk.allowed.set()

    trio.run(main)


def test_memory_does_not_grow_with_what_is_uploaded():
    size = 24 << 20
    disk = SlowDisk()
    disk.allowed.set()

    async def send(web: Web) -> bytes:
        head = (
            f"POST /v1/data HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
        )
        stream = await trio.open_tcp_stream("127.0.0.1", web.port)
        async with stream:
            await stream.send_all(head.encode())
            for _ in range(size >> 16):
                await stream.send_all(PIECE)
            return b"".join([piece async for piece in stream])

    async def main() -> None:
        async with open_web() as web:
            web.node.content = ContentStore(disk)
            tracemalloc.start()
            assert b" 200 " in await send(web)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < size // 2  # a few leaves, whatever the size

    trio.run(main)


PIECE = bytes(1 << 16)


def test_a_client_that_goes_away_in_the_middle_of_a_body_harms_nobody():
    async def main() -> None:
        async with open_web() as web:
            for path in (b"/v1/txs", b"/v1/data"):
                head = (
                    b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n"
                    b"Content-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\nhalf"
                )
                stream = await trio.open_tcp_stream("127.0.0.1", web.port)
                await stream.send_all(head)
                await trio.sleep(0.02)
                await stream.aclose()
            assert (await web.http.get("/healthz")).status_code == 200

    trio.run(main)


async def ask_again_after_a_refusal(web: Web) -> bytes:
    """Be refused before the body is sent, send it all the same, and ask for something else."""
    head = b"POST /v1/txs HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
    stream = await trio.open_tcp_stream("127.0.0.1", web.port)
    async with stream:
        await stream.send_all(head + b"Content-Length: 1000\r\n\r\n")
        with trio.fail_after(10):
            refusal = await stream.receive_some()
            while not refusal.endswith(b"}"):
                refusal += await stream.receive_some()
        assert b" 415 " in refusal.split(b"\r\n")[0], "at once, though the body is missing"
        await trio.testing.wait_all_tasks_blocked(0.05)  # a server that closes does so now
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(bytes(1000) + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            with trio.fail_after(10):
                return bytes(await stream.receive_some())
    return b""


def test_a_refused_body_is_taken_to_its_end_so_that_the_connection_goes_on():
    async def main() -> None:
        async with open_web() as web:
            assert b" 200 " in (await ask_again_after_a_refusal(web)).split(b"\r\n")[0]

    trio.run(main)


def test_control_without_that_the_next_request_is_lost(monkeypatch):
    monkeypatch.setattr("mlchain.web.bodies.DRAIN_BYTES", 0)

    async def main() -> None:
        async with open_web() as web:
            assert await ask_again_after_a_refusal(web) == b""

    trio.run(main)


def test_a_body_without_an_end_is_taken_only_for_a_while(monkeypatch):
    monkeypatch.setattr("mlchain.web.bodies.DRAIN_S", 0.1)
    head = b"POST /v1/txs HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"

    async def main() -> None:
        async with open_web() as web:
            stream = await trio.open_tcp_stream("127.0.0.1", web.port)
            async with stream:
                await stream.send_all(head + b"Content-Length: 1000\r\n\r\n")
                with trio.fail_after(10):
                    async for _ in stream:
                        pass  # until the server closes

    trio.run(main)
