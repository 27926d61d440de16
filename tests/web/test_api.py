"""The HTTP API over a real socket: what it answers, and what it refuses."""

from __future__ import annotations

import binascii
import json
import re
from functools import partial

import pytest
import trio
from factories import make_chain
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from web_harness import BYTES, FakeNode, is_problem, open_web, transfers

from mlchain import codec
from mlchain.client.light import trust_genesis
from mlchain.consensus.light import LightPath, StateAnswer, follow, verify_answer
from mlchain.errors import ConfigError
from mlchain.ledger.content import cid_of, cid_text
from mlchain.ledger.transaction import (
    MAX_TRANSACTION_BYTES,
)
from mlchain.vm.families.accounts import ACCOUNTS, Account
from mlchain.vm.receipt import MAX_RECEIPT_BYTES, Receipt
from mlchain.web.app import make_app
from mlchain.web.chain_routes import MAX_BATCH
from mlchain.web.server import serve_http


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


def test_a_light_client_over_http_reaches_the_head_and_proves_an_account(settled):
    chain, _ = settled

    async def main() -> None:
        async with open_web(chain) as web:
            path = codec.decode(LightPath, (await web.http.get("/v1/light")).content)
            trusted = follow(trust_genesis(chain.genesis), path, chain.genesis.chain_id)
            assert trusted.id == chain.store.head_id
            key = ACCOUNTS.key(chain.alice.public)
            data = (await web.http.get(f"/v1/state/{key.hex()}")).content
            value = verify_answer(codec.decode(StateAnswer, data), trusted, key)
            assert codec.decode(Account, value).nonce == 2
            for odd in ("xyz", "00" * 257, "0"):
                assert is_problem(await web.http.get(f"/v1/state/{odd}"), 422, "malformed")
            far = await web.http.get("/v1/light?after=1&height=99999")
            assert is_problem(far, 404, "not_found")

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
            page = await web.http.get("/docs")
            assert page.headers["content-type"].startswith("text/html")
            for path in document["paths"]:
                assert path in page.text
            assert not re.search(r"<script|<link|src=|url\(|https?://", page.text)
            assert is_problem(await web.http.get("/redoc"), 404, "not_found")

    trio.run(main)


def test_a_transaction_goes_from_pending_to_included():
    chain = make_chain()

    async def main() -> None:
        async with open_web(chain) as web:
            (data,) = transfers(chain, 1)
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


def test_a_batch_is_taken_one_by_one_and_each_gets_its_own_answer():
    chain = make_chain()

    async def main() -> None:
        async with open_web(chain) as web:
            good = transfers(chain, 40)
            batch = codec.encode((*good[:20], b"garbage", good[0], *good[20:]))
            answer = await web.http.post("/v1/txs/batch", content=batch, headers=BYTES)
            rows = answer.json()["transactions"]
            assert [row.get("error", {}).get("code") for row in rows[:20]] == [None] * 20
            assert rows[20]["error"]["code"] == "malformed"
            assert rows[21]["id"] == rows[0]["id"]  # known already: no harm
            chain.grow()
            assert len(chain.store.receipts(1)) == 40

    trio.run(main)


@pytest.mark.parametrize(
    "batch",
    [b"", b"garbage", codec.encode((b"",) * (MAX_BATCH + 1)), codec.encode(("text",)),
     codec.encode((bytes(MAX_TRANSACTION_BYTES + 1),)), codec.encode(()) + b"\0"],
)  # fmt: skip
def test_what_is_no_batch_is_refused_whole(batch):
    async def main() -> None:
        async with open_web() as web:
            answer = await web.http.post("/v1/txs/batch", content=batch, headers=BYTES)
            assert is_problem(answer, 422, "malformed")

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


BREAKS_HYPERCORN = (
    b"GET /v1/status HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: A\r\n"
    b"connection: upgrade, http2-settings\r\n\r\n"
)


def test_a_client_that_provokes_a_bug_of_the_library_loses_only_its_own_connection(caplog):
    async def main() -> None:
        async with open_web() as web:
            stream = web.http.stream("GET", "/v1/stream")
            async with stream as other, trio.open_nursery():
                await web.raw(BREAKS_HYPERCORN)
                assert other.status_code == 200 and not other.is_closed
                assert (await web.http.get("/healthz")).status_code == 200

    trio.run(main)
    assert "connection dropped" in caplog.text


def test_control_the_librarys_own_loop_ends_by_it():
    async def main() -> None:
        config = Config()
        config.bind = ["127.0.0.1:0"]
        shutdown = trio.Event()
        async with trio.open_nursery() as nursery:
            serve = partial(hypercorn_serve, shutdown_trigger=shutdown.wait)
            (url,) = await nursery.start(serve, make_app(FakeNode(make_chain())), config)
            async with await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[-1])) as client:
                await client.send_all(BREAKS_HYPERCORN)
                with trio.fail_after(10):
                    await trio.sleep_forever()  # until the loop's failure ends us

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main)
    assert caught.group_contains(binascii.Error)


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
            view = chain.chain.state()
            mark = view.checkpoint()
            ACCOUNTS.put(view, Account(2**60, 0), bytes(range(32)))
            answer = await web.http.get("/v1/accounts/" + bytes(range(32)).hex())
            view.rollback(mark)
            assert answer.json()["balance"] == str(2**60)
            assert json.loads(answer.text)["nonce"] == 0

    trio.run(main)


def test_lists_of_jobs_and_models_are_paged_by_the_last_one_seen(settled):
    async def main() -> None:
        chain = make_chain(1, 1)
        jobs = [chain.run_job().hex() for _ in range(3)][::-1]
        async with open_web(chain) as web:
            for path, rows, name in (("/v1/jobs", "jobs", "id"), ("/v1/models", "models", "job")):
                seen, query = [], {"limit": 2}
                while query is not None:
                    page = (await web.http.get(path, params=query)).json()
                    seen += [row[name] for row in page[rows]]
                    query = {"limit": 2, "before": page["before"]} if page["before"] else None
                assert seen == jobs
                unknown = await web.http.get(path, params={"before": "0" * 64})
                assert is_problem(unknown, 404, "not_found")

    trio.run(main)


def test_what_is_final_is_kept_by_the_client_and_what_is_not_is_asked_for_again(settled):
    chain, job_id = settled

    async def main() -> None:
        async with open_web(chain) as web:
            cid = (await web.http.get(f"/v1/jobs/{job_id.hex()}")).json()["model"]
            final = ("/v1/blocks/3", f"/v1/txs/{job_id.hex()}", "/v1/genesis", f"/v1/data/{cid}")
            for path in final:
                answer = await web.http.get(path)
                assert "immutable" in answer.headers["cache-control"], path
                etag = answer.headers["etag"]
                again = await web.http.get(path, headers={"if-none-match": etag})
                assert (again.status_code, again.content) == (304, b""), path
            block = (await web.http.get("/v1/blocks/3")).json()
            tag = (await web.http.get("/v1/blocks/3")).headers["etag"]
            assert tag == f'"{block["id"]}"'
            unknown = "/v1/txs/" + "0" * 64
            for path in (f"/v1/jobs/{job_id.hex()}", "/v1/status", "/v1/blocks", unknown):
                answer = await web.http.get(path)
                assert "cache-control" not in answer.headers, path

    trio.run(main)


def test_a_proof_is_the_receipt(settled):
    chain, job_id = settled

    async def main() -> None:
        async with open_web(chain) as web:
            receipt = await web.http.get(f"/v1/jobs/{job_id.hex()}/receipt")
            proof = await web.http.get(f"/v1/proofs/{job_id.hex()}")
            assert receipt.content == proof.content != b""

    trio.run(main)
