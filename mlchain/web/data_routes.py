"""Content by its id over HTTP: to store, to fetch, and to learn what is here of it."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import trio
from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from mlchain.errors import CodecError
from mlchain.ledger.content import ContentStore, cid_text, parse_cid
from mlchain.ledger.unixfs import DEFAULT, LAYOUTS
from mlchain.node.plain import Json, parse_hash
from mlchain.vm.families.data import MAX_DATASET_BYTES
from mlchain.web import answers, data_answers
from mlchain.web.bodies import BodyFile, pieces
from mlchain.web.gate import Clients
from mlchain.web.node_api import CidText, HashText, Limit, NodeApi
from mlchain.web.openapi import BYTES, says
from mlchain.web.replies import IMMUTABLE, as_json, send_block, send_content

MAX_UPLOADS = 4
"""Bodies stored at a time; others wait for their turn."""

Before = Annotated[int | None, Query(ge=0, le=2**53)]
Profile = Annotated[str, Query(json_schema_extra={"enum": list(LAYOUTS)})]


def add_data(app: FastAPI, node: NodeApi, clients: Clients) -> None:
    """Add content, in and out."""
    turn = trio.CapacityLimiter(MAX_UPLOADS)

    @app.post(
        "/v1/data",
        summary="Store bytes; the answer is their content id",
        **says(data_answers.Stored, body=MAX_DATASET_BYTES),
    )
    async def put_data(request: Request, profile: Profile = DEFAULT) -> Response:
        if profile not in LAYOUTS:
            raise CodecError(f"no profile {profile[:40]!r}", "one of " + ", ".join(LAYOUTS))
        size = 0

        def count(more: int) -> None:
            nonlocal size
            size += more
            clients.charge_bytes(request.scope, more)
            node.keeper.check_room(more)

        async with aclosing(pieces(request, MAX_DATASET_BYTES, count)) as body:
            cid = await trio.to_thread.run_sync(
                node.content.put, BodyFile(body), profile, limiter=turn
            )
        return as_json({"cid": cid_text(cid), "size": size})

    @app.get(
        "/v1/data/{cid}",
        summary="Bytes by content id",
        **says(BYTES, 404, 422, is_tagged=True, is_ranged=True),
    )
    async def data(request: Request, cid: CidText) -> Response:
        return await send_content(request, node.content, parse_cid(cid), IMMUTABLE)

    @app.get(
        "/v1/data/{cid}/block",
        summary="One block of a file, by its own id: bytes of the file, or a node above them",
        **says(BYTES, 404, 422),
    )
    async def block(cid: CidText) -> Response:
        return await send_block(node.content, parse_cid(cid), IMMUTABLE)

    @app.get(
        "/v1/data/{cid}/info",
        summary="What is here of a content id",
        **says(data_answers.ContentInfo, 404, 422),
    )
    async def info(cid: CidText) -> Response:
        return as_json(await trio.to_thread.run_sync(_describe, node.content, parse_cid(cid)))


def add_datasets(app: FastAPI, node: NodeApi) -> None:
    """Add what the chain knows of datasets: who holds one, and the draws of its parts."""

    @app.get(
        "/v1/data/{cid}/holders",
        summary="Which validators hold a dataset",
        **says(data_answers.DatasetHolders, 422),
    )
    async def holders(cid: CidText) -> Response:
        return as_json(node.query.dataset(parse_cid(cid)))

    @app.get(
        "/v1/data/{cid}/draws",
        summary="The draws of partitions of a dataset",
        **says(data_answers.Draws, 422),
    )
    async def draws(cid: CidText, limit: Limit = 20) -> Response:
        return as_json({"draws": node.query.draws.list(parse_cid(cid), limit)})

    @app.get(
        "/v1/draws/{identity}",
        summary="A draw: its seed, its parts, and what was merged of them",
        **says(data_answers.DrawView, 404, 422),
    )
    async def draw(identity: HashText) -> Response:
        return as_json(node.query.draws.find(parse_hash(identity, "draw")))


def add_keeping(app: FastAPI, node: NodeApi) -> None:
    """Add what the operator does about the room that content takes."""

    @app.get(
        "/v1/content",
        summary="The files that are kept, newest first, of an order below `before`",
        **says(data_answers.ContentFiles, 422),
    )
    async def files(limit: Limit = 50, before: Before = None) -> Response:
        rows: list[Json] = [
            {"cid": cid_text(kept.cid), "size": None if kept.size < 0 else kept.size}
            | {"order": kept.order, "pinned": kept.is_pinned}
            for kept in await node.keeper.files(limit, before)
        ]
        last = rows[-1]["order"] if len(rows) == limit else 0
        return as_json(
            {"files": rows, "before": last or None}
            | {"used": await node.keeper.used(), "quota": node.keeper.quota}
        )

    @app.post(
        "/v1/data/{cid}/pin",
        summary="Fetch a file from peers if need be, and keep it",
        **says(data_answers.ContentInfo, 404, 422, 503, 504),
    )
    async def pin(cid: CidText) -> Response:
        content = parse_cid(cid)
        await node.keeper.pin(content)
        return as_json(await trio.to_thread.run_sync(_describe, node.content, content))

    @app.post(
        "/v1/data/{cid}/unpin",
        summary="Let a file make way again",
        **says(answers.Okay, 422),
    )
    async def unpin(cid: CidText) -> Response:
        await node.keeper.unpin(parse_cid(cid))
        return as_json({"ok": True})

    @app.post(
        "/v1/content/collect",
        summary="Remove what nobody needs beyond the quota, or at all",
        **says(data_answers.Collected),
    )
    async def collect() -> Response:
        return as_json({"freed": await node.keeper.collect(), "used": await node.keeper.used()})


def _describe(content: ContentStore, cid: bytes) -> Json:
    return {
        "cid": cid_text(cid),
        "size": content.size(cid),
        "profile": content.profile(cid),
        "whole": content.has(cid),
        "pinned": content.is_pinned(cid),
    }
