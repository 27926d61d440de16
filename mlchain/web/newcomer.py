"""What a node answers while it fetches the state: that it lives, and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlchain.node.fetching import Fetching
from mlchain.node.plain import Json
from mlchain.p2p.transport import Transport
from mlchain.web.admin import add_process
from mlchain.web.app import add_health, make_guarded_app
from mlchain.web.gate import Clients, Limits
from mlchain.web.metrics import MEDIA_TYPE as METRICS_TYPE
from mlchain.web.openapi import JSON
from mlchain.web.problems import FETCHING, problem
from mlchain.web.replies import as_json

RETRY_S = 2
"""When a client is told to ask again."""
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class NewcomerApi(Protocol):
    """What is told of a node that has no chain yet. `node.fetching.Newcomer` fits."""

    fetching: Fetching
    transport: Transport
    home: Path

    def status(self) -> Json:
        """Return what `Query.status` does, with `state_sync`."""
        ...

    def progress(self) -> Json:
        """Return how far state sync is."""
        ...

    def genesis(self) -> str:
        """Return the text of the genesis file."""
        ...


class LastAnswer:
    """ASGI middleware: an answer is the last on its connection, for the next server takes over."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_last)


def make_newcomer_admin_app(newcomer: NewcomerApi) -> FastAPI:
    """Return what the operator is served: the same, and what concerns the process."""
    app = make_guarded_app(Clients(Limits(trusts_all=True)))
    add_process(app)
    _add_paths(app, newcomer)
    return app


def make_newcomer_app(newcomer: NewcomerApi, limits: Limits | None = None) -> FastAPI:
    """Return the ASGI application of a node that fetches the state."""
    app = make_guarded_app(Clients(limits or Limits()))
    _add_paths(app, newcomer)
    return app


def _add_paths(app: FastAPI, newcomer: NewcomerApi) -> None:
    app.add_middleware(LastAnswer)
    add_health(app)

    @app.get("/v1/status")
    async def status() -> Response:
        return as_json(newcomer.status())

    @app.get("/v1/genesis")
    async def genesis() -> Response:
        return Response(newcomer.genesis(), media_type=JSON)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(_metrics(newcomer), headers={"content-type": METRICS_TYPE})

    @app.api_route("/{path:path}", methods=METHODS)
    async def rest(request: Request) -> Response:
        return problem(
            *FETCHING,
            str(newcomer.fetching),
            "ask again later, or another node; mlchain status tells how far this one is",
            {"retry-after": str(RETRY_S)},
            progress=newcomer.progress(),
        )


def _metrics(newcomer: NewcomerApi) -> bytes:
    registry, fetching = CollectorRegistry(), newcomer.fetching
    for name, text, value in (
        ("height", "The last final block.", 0),
        ("peers", "Connected peers.", sum(p.connected for p in newcomer.transport.peers())),
        ("state_sync_height", "Block of the snapshot that is fetched.", fetching.height),
        ("state_sync_chunks", "Chunks of it that are here.", fetching.chunks),
        ("state_sync_bytes", "Bytes of chunks fetched by this process.", fetching.bytes),
    ):
        Gauge(f"mlchain_{name}", text, registry=registry).set(value)
    return generate_latest(registry)
