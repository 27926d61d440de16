"""The gate: how much a client may ask and store, and who is trusted to do everything."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from web_harness import BYTES, Web, is_problem, open_web, transfers

from mlchain import codec
from mlchain.web.app import Limits
from mlchain.web.gate import MAX_CLIENTS, Buckets, is_loopback, is_trusted


def test_a_batch_counts_as_many_requests_as_it_holds():
    """The control: trusted, the same client hands it in."""
    strict = Limits(requests=30, requests_per_s=1, trusts_loopback=False)

    async def main() -> None:
        for limits, status in ((strict, 429), (replace(strict, trusts_loopback=True), 200)):
            async with open_web(limits=limits) as web:
                batch = codec.encode(tuple(transfers(web.chain, 30)))
                answer = await web.http.post("/v1/txs/batch", content=batch, headers=BYTES)
                assert answer.status_code == status

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


def test_a_page_of_another_site_is_told_nothing_and_may_write_nothing():
    """No CORS header, ever: the browser hides answers from it, and asks before it sends bytes."""
    from_page = {"origin": "https://elsewhere.example"}
    asks = {**from_page, "access-control-request-method": "POST"}

    async def main() -> None:
        async with open_web() as web:
            (transfer,) = transfers(web.chain, 1)
            answers = [
                await web.http.get("/v1/status", headers=from_page),
                await web.http.options("/v1/txs", headers=asks),
                await web.http.post("/v1/txs", content=transfer, headers=from_page),
            ]
            assert [answer.status_code for answer in answers] == [200, 405, 415]
            for answer in answers:
                assert not [name for name in answer.headers if name.startswith("access-control")]
            sent = await web.http.post("/v1/txs", content=transfer, headers=BYTES)  # the control
            assert sent.status_code == 200

    trio.run(main)
