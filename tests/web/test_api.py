"""The HTTP API over a real socket: what it answers, and what it refuses without falling over."""

from __future__ import annotations

import contextlib
import json
import threading
import tracemalloc
from dataclasses import replace

import pytest
import trio
from factories import make_chain
from web_harness import Web, is_problem, open_web

from mlchain import codec
from mlchain.errors import ConfigError
from mlchain.ledger.content import ContentStore, cid_of, cid_text
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.transaction import MAX_TRANSACTION_BYTES
from mlchain.vm.receipt import MAX_RECEIPT_BYTES, Receipt
from mlchain.web.app import Limits, make_app
from mlchain.web.gate import MAX_CLIENTS, Buckets, is_loopback, is_trusted
from mlchain.web.server import serve_http

BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def settled():
    chain = make_chain(4, 2)
    return chain, chain.run_job()


def test_a_settled_job_can_be_read_in_every_way_the_client_knows(settled):
    chain, job_id = settled

    async def main() -> None:
        async with open_web(chain) as web:
            status = (await web.http.get("/v1/status")).json()
            assert status["height"] == chain.store.height and status["peers"][0]["connected"]
            job = (await web.http.get(f"/v1/jobs/{job_id.hex()[:8]}")).json()
            assert job["state"] == "settled" and len(job["segments"]) == 2
            listed = (await web.http.get("/v1/jobs?state=settled&limit=5")).json()["jobs"]
            assert [row["id"] for row in listed] == [job_id.hex()]
            model = await web.http.get(f"/v1/jobs/{job_id.hex()}/model")
            assert cid_text(cid_of(model.content)) == job["model"]
            data = await web.http.get(f"/v1/jobs/{job_id.hex()}/receipt")
            receipt = codec.decode(Receipt, data.content, MAX_RECEIPT_BYTES)
            assert receipt.job_id == job_id and receipt.files
            bare = await web.http.get(f"/v1/jobs/{job_id.hex()}/receipt?files=false")
            assert codec.decode(Receipt, bare.content) == codec.decode(
                Receipt, codec.encode(_without_files(receipt))
            )
            account = chain.alice.public.hex()
            assert (await web.http.get(f"/v1/accounts/{account}")).json()["nonce"] == 2
            for path in ("/healthz", "/readyz", "/v1/workers", "/v1/validators", "/v1/genesis"):
                assert (await web.http.get(path)).status_code == 200

    trio.run(main)


def _without_files(receipt: Receipt) -> Receipt:
    from msgspec.structs import replace as replace_field

    return replace_field(receipt, files=())


def test_lists_of_blocks_are_paged_by_height(settled):
    async def main() -> None:
        async with open_web(settled[0]) as web:
            heights, query = [], {"limit": 5}
            while True:
                page = (await web.http.get("/v1/blocks", params=query)).json()
                heights += [block["height"] for block in page["blocks"]]
                if page["before"] is None:
                    break
                query["before"] = page["before"]
            assert heights == list(range(settled[0].store.height, -1, -1))

    trio.run(main)


def test_openapi_is_served_and_no_page_that_loads_from_elsewhere(settled):
    async def main() -> None:
        async with open_web(settled[0]) as web:
            document = (await web.http.get("/openapi.json")).json()
            assert "/v1/jobs/{job}/receipt" in document["paths"]
            for path in ("/docs", "/redoc"):
                assert is_problem(await web.http.get(path), 404, "not_found")

    trio.run(main)


def test_a_transaction_goes_from_pending_to_included():
    chain = make_chain()

    async def main() -> None:
        async with open_web(chain) as web:
            from mlchain.ledger.transaction import TransactionBody, sign_transaction
            from mlchain.vm.families.accounts import Transfer

            payload = Transfer(bytes(range(32)), 7)
            body = TransactionBody(
                chain.genesis.chain_id, chain.alice.public, 0, 10**6, 1, payload.KIND,
                codec.encode(payload),
            )  # fmt: skip
            data = codec.encode(sign_transaction(body, chain.alice))
            forged = data[:-1] + bytes([data[-1] ^ 1])
            answer = await web.http.post("/v1/txs", content=forged, headers=BYTES)
            assert is_problem(answer, 422, "invalid_signature")
            sent = await web.http.post("/v1/txs", content=data, headers=BYTES)
            path = f"/v1/txs/{sent.json()['id']}"
            assert (await web.http.get(path)).json()["state"] == "pending"
            chain.grow()
            found = (await web.http.get(path)).json()
            assert (found["state"], found["code"], found["height"]) == ("included", "ok", 1)
            assert found["kind"] == "Transfer"
            unknown = (await web.http.get("/v1/txs/" + "00" * 32)).json()
            assert unknown["state"] == "unknown"
            answer = await web.http.post("/v1/txs", content=data, headers=BYTES)
            assert is_problem(answer, 422, "invalid_transaction")  # its nonce is used

    trio.run(main)


MISTAKES = [
    ("GET", "/v1/nothing", 404, "not_found"),
    ("GET", "/v1/jobs/zz", 404, "not_found"),
    ("GET", "/v1/jobs/%00", 404, "not_found"),
    ("GET", "/v1/jobs/" + "f" * 64 + "/receipt", 404, "not_found"),
    ("GET", "/v1/jobs?state=dreaming", 422, "malformed"),
    ("GET", "/v1/jobs?limit=0", 422, "invalid"),
    ("GET", "/v1/jobs?limit=" + "9" * 5000, 422, "invalid"),
    ("GET", "/v1/blocks/99999", 404, "not_found"),
    ("GET", "/v1/blocks/-1", 422, "invalid"),
    ("GET", "/v1/blocks?before=x", 422, "invalid"),
    ("GET", "/v1/txs/zz", 422, "malformed"),
    ("GET", "/v1/txs/" + "0" * 62 + "%20%20", 422, "malformed"),
    ("GET", "/v1/accounts/mlc1wrong", 422, "malformed"),
    ("GET", "/v1/data/notacid", 422, "malformed"),
    ("GET", "/v1/data/" + cid_text(cid_of(b"nobody has this")), 404, "not_found"),
    ("DELETE", "/v1/status", 405, "method_not_allowed"),
    ("PUT", "/v1/txs", 405, "method_not_allowed"),
    ("POST", "/v1/blocks", 405, "method_not_allowed"),
]


def test_every_mistake_is_a_problem_with_a_code():
    async def main() -> None:
        async with open_web() as web:
            for method, path, status, code in MISTAKES:
                answer = await web.http.request(method, path)
                assert is_problem(answer, status, code), (method, path, answer.text)
                assert status != 405 or answer.headers["allow"]
            assert (await web.http.get("/healthz")).status_code == 200

    trio.run(main)


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


GARBAGE = [
    b"\x00" * 64 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 8,
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    b"POST /v1/txs HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/txs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /v1/accounts/%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
]


def test_garbage_on_the_socket_is_answered_or_dropped():
    async def main() -> None:
        async with open_web() as web:
            for garbage in GARBAGE:
                answer = await web.raw(garbage)
                assert b" 200 " not in answer.split(b"\r\n")[0], garbage[:40]
                assert (await web.http.get("/healthz")).status_code == 200

    trio.run(main)


def test_a_client_that_asks_too_often_waits_and_others_do_not():
    """The control: with the operator's own machine trusted, the same burst passes."""
    strict = Limits(requests=5, requests_per_s=1, trusts_loopback=False)

    async def burst(web: Web) -> list[int]:
        return [(await web.http.get("/healthz")).status_code for _ in range(8)]

    async def main() -> None:
        async with open_web(limits=strict) as web:
            assert await burst(web) == [200] * 5 + [429] * 3
            answer = await web.http.get("/healthz")
            assert is_problem(answer, 429, "too_many_requests")
            assert int(answer.headers["retry-after"]) >= 1
        async with open_web(limits=replace(strict, trusts_loopback=True)) as web:
            assert await burst(web) == [200] * 8

    trio.run(main)


@pytest.mark.parametrize(
    ("host", "trusted"),
    [("127.0.0.1:8645", True), ("localhost", True), ("[::1]:80", True), ("evil.example", False),
     ("127.0.0.1.evil.example:8645", False), ("", False), ("[::1", False), ("a]b[", False)],
)  # fmt: skip
def test_a_name_that_was_pointed_at_this_machine_is_not_trusted(host, trusted):
    scope = {"client": ("127.0.0.1", 5), "headers": [(b"host", host.encode())]}
    assert is_trusted(scope, Limits()) is trusted
    assert not is_trusted(scope, Limits(trusts_loopback=False))
    assert not is_trusted({**scope, "client": ("10.0.0.1", 5)}, Limits())


def test_a_remote_client_may_store_only_so_much():
    """The control: trusted, the same client stores it."""
    strict = Limits(stored_bytes=100_000, stored_bytes_per_s=1, trusts_loopback=False)

    async def main() -> None:
        async with open_web(limits=strict) as web:
            for size, status in ((60_000, 200), (60_000, 413), (30_000, 200)):
                answer = await web.http.post("/v1/data", content=bytes(size), headers=BYTES)
                assert answer.status_code == status, size
        async with open_web(limits=replace(strict, trusts_loopback=True)) as web:
            answer = await web.http.post("/v1/data", content=bytes(200_000), headers=BYTES)
            assert answer.status_code == 200

    trio.run(main)


def test_buckets_refill_with_time_and_forget_the_longest_silent():
    buckets = Buckets(capacity=2, per_s=1)
    assert [buckets.take("a", 1, 0.0) for _ in range(3)] == [0, 0, 1.0]
    assert buckets.take("a", 1, 1.0) == 0
    for n in range(MAX_CLIENTS):
        buckets.take(f"other {n}", 1, 1.0)
    assert buckets.take("a", 2, 1.0) == 0  # forgotten, so full again


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True),
     ("10.0.0.1", False), ("::ffff:10.0.0.1", False), ("", False), ("localhost", False)],
)  # fmt: skip
def test_loopback_is_told_by_the_number(address, expected):
    assert is_loopback(address) is expected


def test_an_address_that_is_taken_is_a_configuration_error():
    async def main() -> None:
        async with open_web() as web:
            app = make_app(web.node)
            with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{web.port}.*in use"):
                await serve_http(app, "127.0.0.1", web.port, trio.Event())
            with pytest.raises(ConfigError):
                await serve_http(app, "192.0.2.1", 1, trio.Event())
            with pytest.raises(ConfigError):
                await serve_http(app, "127.0.0.1", 70_000, trio.Event())

    trio.run(main)


def test_a_bug_is_a_problem_without_details(monkeypatch):
    async def main() -> None:
        async with open_web() as web:
            monkeypatch.setattr(type(web.node.query), "status", lambda self: 1 / 0)
            answer = await web.http.get("/v1/status")
            assert is_problem(answer, 500, "internal") and "ZeroDivision" not in answer.text
            assert (await web.http.get("/healthz")).status_code == 200

    trio.run(main)


def test_amounts_beyond_what_javascript_counts_are_text(settled):
    chain, _ = settled

    async def main() -> None:
        async with open_web(chain) as web:
            from mlchain.vm.families.accounts import ACCOUNTS, Account

            view = chain.chain.state()
            mark = view.checkpoint()
            ACCOUNTS.put(view, Account(2**60, 0), bytes(range(32)))
            answer = await web.http.get("/v1/accounts/" + bytes(range(32)).hex())
            view.rollback(mark)
            assert answer.json()["balance"] == str(2**60)
            assert json.loads(answer.text)["nonce"] == 0

    trio.run(main)
