"""The registry of models, and predictions."""

from __future__ import annotations

from typing import Annotated

import trio
from fastapi import FastAPI, Query
from starlette.responses import Response

from mlchain import codec
from mlchain.errors import NotFound
from mlchain.node.plain import Json, parse_hash
from mlchain.web import model_answers as answers
from mlchain.web.node_api import HashText, Limit, NodeApi
from mlchain.web.openapi import BYTES, says
from mlchain.web.replies import as_json


def add_registry(app: FastAPI, node: NodeApi) -> None:
    """Add names, versions and what is known of model files."""

    @app.get(
        "/v1/registry",
        summary="The last version of every name, in the order of the names",
        **says(answers.Registry, 422),
    )
    async def registry(limit: Limit = 50) -> Response:
        return as_json({"models": node.query.registry.list(limit)})

    @app.get(
        "/v1/registry/{model}",
        summary="A model file by NAME, NAME@VERSION or content id",
        **says(answers.RegistryRow, 404, 422),
    )
    async def registered(model: str) -> Response:
        return as_json(node.query.registry.find(model))


MAX_WAIT_S = 60
MAX_WAITING = 32
"""Clients that wait for an answer at a time."""
MAX_RECEIPTS = 2
"""Made at a time; others wait for their turn."""
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S)]


def add_predictions(app: FastAPI, node: NodeApi) -> None:
    """Add requests, their answers and receipts."""
    turn, waiting = trio.CapacityLimiter(MAX_RECEIPTS), trio.CapacityLimiter(MAX_WAITING)

    @app.get(
        "/v1/predictions/{identity}",
        summary="A request and its answer; `wait` so many seconds for its end",
        **says(answers.PredictionView, 404, 422),
    )
    async def prediction(identity: HashText, wait: Wait = 0) -> Response:
        if waiting.available_tokens < 1:  # the client asks again
            return as_json(node.query.predictions.find(identity))
        async with waiting:
            return as_json(await wait_for_answer(node, identity, wait))

    @app.get(
        "/v1/predictions/{identity}/receipt",
        summary="The proof of an answer, with model, rows and answer where the node has them",
        **says(BYTES, 404, 422),
    )
    async def receipt(identity: HashText) -> Response:
        request = parse_hash(identity, "a prediction's id")

        def make() -> bytes:
            return codec.encode(node.query.prediction_receipt(request))

        return Response(await trio.to_thread.run_sync(make, limiter=turn), media_type=BYTES)


async def wait_for_answer(node: NodeApi, identity: str, wait_s: float) -> Json:
    """Return a prediction, once it has ended if that is within `wait_s` seconds.

    Its transaction may still be on the way to a block: that is waited for, too.

    Raises:
        NotFound: no such request after that time.
    """
    if wait_s and not _has_ended(node, identity):
        async with node.subscribe_blocks() as blocks:
            with trio.move_on_after(wait_s):
                while not _has_ended(node, identity):
                    await blocks.receive()
    return node.query.predictions.find(identity)


def _has_ended(node: NodeApi, identity: str) -> bool:
    try:
        return node.query.predictions.find(identity)["state"] in ("answered", "failed")
    except NotFound:
        return bool(node.query.transaction(identity)["state"] != "pending")  # failed, or unknown
