"""Every code of docs/errors.md, provoked by a request; and every class of errors as a problem."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio
from doc_tables import error_kinds
from factories import make_chain
from msgspec.structs import replace
from web_harness import BYTES, Web, is_problem, open_web, transfers

from mlchain import codec, errors
from mlchain.ledger.transaction import Transaction, sign_transaction
from mlchain.ledger.unixfs import cid_text
from mlchain.web import problems
from mlchain.web.app import Limits
from mlchain.web.bodies import BodyFile

ROOT = Path(__file__).parents[2]
ERRORS = (ROOT / "docs" / "errors.md").read_text()
STRICT = Limits(requests=3, requests_per_s=1, trusts_loopback=False)

Provoke = Callable[[Web], Awaitable[httpx.Response]]


def rows_of(name: str) -> list[list[str]]:
    """The rows of a table of the page, without backticks."""
    block = re.findall(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", ERRORS, re.DOTALL)[0]
    lines = block.replace("`", "").splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


async def send(web: Web, transaction: Transaction) -> httpx.Response:
    return await web.http.post("/v1/txs", content=codec.encode(transaction), headers=BYTES)


def first(web: Web) -> Transaction:
    return codec.decode(Transaction, transfers(web.chain, 1)[0])


async def not_signed_so(web: Web) -> httpx.Response:
    return await send(web, replace(first(web), signature=bytes(64)))


async def of_another_chain(web: Web) -> httpx.Response:
    body = replace(first(web).body, chain_id="elsewhere")
    return await send(web, sign_transaction(body, web.chain.alice))


async def a_block_that_was_removed(web: Web) -> httpx.Response:
    for _ in range(4):
        web.chain.grow()
    web.chain.store.prune(3, 10)
    answer = await web.http.get("/v1/blocks/1")
    assert "archive node" in answer.json()["hint"]
    return answer


async def twice_under_one_number(web: Web) -> httpx.Response:
    """A transaction waits; another one would take its place for no better price."""
    one = first(web)
    assert (await send(web, one)).status_code == 200
    return await send(
        web, sign_transaction(replace(one.body, gas_limit=10**6 + 1), web.chain.alice)
    )


async def beyond_the_end(web: Web) -> httpx.Response:
    cid = cid_text(web.node.content.put(b"ten bytes!"))
    return await web.http.get(f"/v1/data/{cid}", headers={"range": "bytes=10-"})


async def while_it_catches_up(web: Web) -> httpx.Response:
    web.node.sync = SimpleNamespace(is_syncing=True)
    return await web.http.get("/readyz")


async def too_often(web: Web) -> httpx.Response:
    for _ in range(3):
        assert (await web.http.get("/healthz")).status_code == 200
    return await web.http.get("/healthz")


async def without_an_end(web: Web) -> httpx.Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await trio.sleep(2)

    return await web.http.post("/v1/txs", content=body(), headers=BYTES)


def asks(method: str, path: str, **more: Any) -> Provoke:
    return lambda web: web.http.request(method, path, **more)


PROVOKED: dict[tuple[int, str], Provoke] = {
    (404, "not_found"): asks("GET", "/v1/jobs/" + "f" * 64),
    (405, "method_not_allowed"): asks("DELETE", "/v1/status"),
    (408, "too_slow"): without_an_end,
    (409, "rejected"): twice_under_one_number,
    (410, "pruned"): a_block_that_was_removed,
    (413, "too_large"): asks("POST", "/v1/txs", content=bytes(1 << 22), headers=BYTES),
    (415, "unsupported_media_type"): asks("POST", "/v1/txs", content=b"x"),
    (416, "range_not_satisfiable"): beyond_the_end,
    (422, "invalid"): asks("GET", "/v1/jobs?limit=0"),
    (422, "invalid_transaction"): of_another_chain,
    (422, "invalid_signature"): not_signed_so,
    (422, "malformed"): asks("POST", "/v1/txs", content=b"x", headers=BYTES),
    (429, "too_many_requests"): too_often,
    (503, "busy"): while_it_catches_up,
}
IN_TROUBLE: dict[tuple[int, str], type[Exception]] = {
    (422, "rejected_program"): errors.RejectedProgram,
    (422, "verification_failed"): errors.VerificationFailed,
    (500, "internal"): ZeroDivisionError,
    (500, "store_corrupted"): errors.StoreCorrupted,
    (503, "unreachable"): errors.Unreachable,
    (504, "timeout"): errors.Timeout,
}
"""No request leads there while the node is well: a question to it fails so."""
UNHEARD = {(400, "bad_request")}
"""Whoever provokes it is not there any more."""
BEFORE = {problems.FETCHING}
"""Of a node that has no state yet: test_newcomer.py."""


def test_each_code_of_the_page_is_provoked():
    documented = {(int(status), code) for status, code, _ in rows_of("problems")}
    assert documented == {*PROVOKED, *IN_TROUBLE, *UNHEARD, *BEFORE}


@pytest.mark.parametrize("status", sorted({status for status, _ in PROVOKED}))
def test_a_request_that_is_wrong_is_told_how(monkeypatch, status):
    monkeypatch.setattr("mlchain.web.bodies.PIECE_TIMEOUT_S", 0.2)
    is_strict = status == 429

    async def main() -> None:
        for (number, code), provoke in PROVOKED.items():
            if number == status:
                async with open_web(make_chain(), STRICT if is_strict else None) as web:
                    answer = await provoke(web)
                    assert is_problem(answer, number, code), answer.text
                    assert answer.json()["detail"]

    trio.run(main)


def test_each_class_of_errors_is_the_problem_that_the_page_says(monkeypatch):
    """The class decides the status, and message and hint come through; a bug tells nothing."""
    said = {row[0].removeprefix("› ").strip(): int(row[3]) for row in rows_of("errors")}
    kinds = [kind for kind, _ in error_kinds()]
    assert [kind.__name__ for kind in kinds] == [*said]

    async def main() -> None:
        async with open_web() as web:

            async def ask(error: Exception) -> httpx.Response:
                def fail(self: Any) -> None:
                    raise error

                monkeypatch.setattr(type(web.node.query), "status", fail)
                return await web.http.get("/v1/status")

            for kind in kinds:
                body = (await ask(kind("what happened", "what next"))).json()
                assert body["status"] == said[kind.__name__]
                assert (body["detail"], body["hint"]) == ("what happened", "what next")
            for (status, code), trouble in IN_TROUBLE.items():
                assert is_problem(await ask(trouble("x")), status, code)
            assert "ZeroDivision" not in (await ask(ZeroDivisionError("x"))).text

    trio.run(main)


def test_who_goes_away_is_a_bad_request_that_nobody_reads():
    async def gone() -> AsyncIterator[bytes]:
        raise problems_client_gone()
        yield b""

    async def main() -> None:
        body = BodyFile(gone())
        with pytest.raises(problems.HTTPException) as caught:
            await trio.to_thread.run_sync(body.read, 10)
        answer = await problems._http(SimpleNamespace(), caught.value)
        assert (answer.status_code, json.loads(answer.body)["code"]) == (400, "bad_request")

    trio.run(main)


def problems_client_gone() -> Exception:
    from starlette.requests import ClientDisconnect

    return ClientDisconnect()


def test_each_status_that_is_raised_has_a_code():
    raised = {
        node.args[0].value
        for path in (ROOT / "mlchain" / "web").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "HTTPException"
        and isinstance(node.args[0], ast.Constant)
    }  # fmt: skip
    assert {413, 416, 429} < raised <= problems.CODES.keys()
