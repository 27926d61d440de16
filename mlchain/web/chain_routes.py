"""What the chain is, and the way in for transactions."""

from __future__ import annotations

from typing import Annotated, Any

import trio
from fastapi import FastAPI, Query, Request
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mlchain import codec
from mlchain.errors import MlchainError
from mlchain.ledger.transaction import MAX_TRANSACTION_BYTES
from mlchain.node.plain import Json
from mlchain.web import answers, problems
from mlchain.web.bodies import read_body
from mlchain.web.gate import Clients
from mlchain.web.node_api import AccountText, HashText, Height, KeyText, Limit, NodeApi
from mlchain.web.openapi import BYTES, says
from mlchain.web.replies import as_json, final

MAX_BATCH = 500
MAX_BATCH_BYTES = 4 << 20
BATCH_STRIDE = 16
_BATCH: Any = Annotated[
    tuple[Annotated[bytes, Meta(max_length=MAX_TRANSACTION_BYTES)], ...], Meta(max_length=MAX_BATCH)
]

Since = Annotated[int, Query(ge=0, le=2**62)]
Before = Annotated[int | None, Query(ge=0, le=2**53)]


def add_chain(app: FastAPI, node: NodeApi) -> None:
    """Add blocks, accounts, and what light clients ask for."""

    @app.get(
        "/v1/accounts/{account}",
        summary="Balance and nonce, by address or hex key",
        **says(answers.AccountRow, 422),
    )
    async def account(account: AccountText) -> Response:
        return as_json(node.query.account(account))

    @app.get(
        "/v1/blocks",
        summary="Blocks, newest first, below height `before`",
        **says(answers.Blocks, 422),
    )
    async def blocks(before: Before = None, limit: Limit = 20) -> Response:
        rows = node.query.blocks(before, limit)
        last = rows[-1]["height"] if rows else 0
        return as_json({"blocks": rows, "before": last or None})

    @app.get(
        "/v1/blocks/{height}",
        summary="One block",
        **says(answers.BlockView, 404, 410, 422, is_tagged=True),
    )
    async def block(request: Request, height: Height) -> Response:
        found = node.query.block(height)
        return final(request, found["id"], lambda: as_json(found))

    @app.get(
        "/v1/chain",
        summary="A page of whole blocks after height `after`, and the certificate of the last",
        **says(BYTES, 404, 422),
    )
    async def chain(after: Since = 0) -> Response:
        page = await trio.to_thread.run_sync(node.query.block_page, after)
        return Response(page, media_type=BYTES)

    @app.get(
        "/v1/light",
        summary="Certified headers from height `after` to `height` (0: the last)",
        **says(BYTES, 404, 410, 422),
    )
    async def light(after: Since = 0, height: Since = 0) -> Response:
        return Response(node.query.light_path(after, height), media_type=BYTES)

    @app.get(
        "/v1/state/{key}",
        summary="A value of the state, by its key in hex, with its proof",
        **says(BYTES, 404, 422),
    )
    async def state(key: KeyText) -> Response:
        return Response(node.query.prove(key), media_type=BYTES)


def add_members(app: FastAPI, node: NodeApi) -> None:
    """Add who votes, who trains, and what they decide."""

    @app.get(
        "/v1/governance",
        summary="Epoch, parameters, members and proposals",
        **says(answers.GovernanceView),
    )
    async def governance() -> Response:
        return as_json(node.query.governance())

    @app.get(
        "/v1/validators",
        summary="Who votes, with bonds and faults",
        **says(answers.Validators),
    )
    async def validators() -> Response:
        return as_json({"validators": node.query.validators()})

    @app.get("/v1/workers", summary="Who trains, with bonds and faults", **says(answers.Workers))
    async def workers() -> Response:
        return as_json({"workers": node.query.workers()})


def add_transactions(app: FastAPI, node: NodeApi, clients: Clients) -> None:
    """Add the way in for signed transactions, one or many, and what became of them."""

    @app.post(
        "/v1/txs",
        summary="Hand in an encoded signed transaction",
        **says(answers.Submitted, 409, body=MAX_TRANSACTION_BYTES),
    )
    async def submit(request: Request) -> Response:
        data = await read_body(request, MAX_TRANSACTION_BYTES)
        return as_json({"id": (await node.submit_transaction(data)).hex()})

    @app.post(
        "/v1/txs/batch",
        summary="Hand in many: the canonical msgpack array of them",
        **says(answers.Batch, body=MAX_BATCH_BYTES),
    )
    async def submit_batch(request: Request) -> Response:
        data = await read_body(request, MAX_BATCH_BYTES)
        transactions: tuple[bytes, ...] = codec.decode(_BATCH, data, MAX_BATCH_BYTES)
        clients.charge_requests(request.scope, len(transactions))
        rows: list[Json] = []
        for transaction in transactions:
            try:
                rows.append({"id": (await node.submit_transaction(transaction)).hex()})
            except MlchainError as error:
                _, code = problems.classify(error)
                reason = {"code": code, "detail": error.message, "hint": error.hint}
                rows.append({"error": reason})
            if len(rows) % BATCH_STRIDE == 0:
                await trio.lowlevel.checkpoint()  # agreement must not wait for the whole batch
        return as_json({"transactions": rows})

    @app.get("/v1/txs/batch", include_in_schema=False)
    async def not_an_id() -> Response:
        raise HTTPException(405, "Method Not Allowed", {"allow": "POST"})

    @app.get(
        "/v1/txs/{identity}",
        summary="Where a transaction stands",
        **says(answers.TransactionView, 422, is_tagged=True),
    )
    async def transaction(request: Request, identity: HashText) -> Response:
        found = node.query.transaction(identity)
        if found["state"] != "included":
            return as_json(found)
        return final(request, found["id"], lambda: as_json(found))
