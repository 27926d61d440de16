"""The node's HTTP API: a thin layer that turns paths into questions to `node.query`.

Nothing here may change the chain but a signed transaction. There is no CORS header and no cookie:
a web page of another site can neither read nor write.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mlchain import __version__
from mlchain.web import answers, problems
from mlchain.web.admin import add_administration
from mlchain.web.bodies import Drain
from mlchain.web.chain_routes import add_chain, add_members, add_transactions
from mlchain.web.data_routes import add_data, add_datasets
from mlchain.web.docs_page import render_docs
from mlchain.web.gate import Clients, Gate, Limits
from mlchain.web.job_routes import add_jobs, add_receipts
from mlchain.web.metrics import MEDIA_TYPE as METRICS_TYPE
from mlchain.web.metrics import Metrics
from mlchain.web.model_routes import add_predictions, add_registry
from mlchain.web.node_api import NodeApi
from mlchain.web.openapi import EVENTS, JSON, TEXT, describe, says
from mlchain.web.replies import as_json, final
from mlchain.web.stream import MAX_STREAMS, BlockStream

PAGE = "text/html; charset=utf-8"
PAGE_POLICY = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


def make_admin_app(node: NodeApi, metrics: Metrics | None = None) -> FastAPI:
    """Return what the operator is served: everything, without bounds, and what is theirs alone."""
    app = make_app(node, Limits(trusts_all=True), metrics)
    add_administration(app, node)
    return app


def make_app(
    node: NodeApi, limits: Limits | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """Return the ASGI application of one node. It runs in the node's own trio loop.

    `metrics` are those that somebody has watch the node; without, the counters stand still.
    """
    clients = Clients(limits or Limits())
    app = make_guarded_app(clients)
    metrics = metrics or Metrics(node)
    add_transactions(app, node, clients)  # routes are tried in turn: first what is asked most
    add_health(app)
    _add_node(app, node)
    _add_pages(app, metrics)
    add_chain(app, node)
    add_members(app, node)
    add_jobs(app, node)
    add_receipts(app, node)
    add_data(app, node, clients)
    add_datasets(app, node)
    add_registry(app, node)
    add_predictions(app, node)
    _add_stream(app, node, metrics)
    return app


def make_guarded_app(clients: Clients) -> FastAPI:
    """Return an application without a path, that bounds its clients and answers with problems."""
    app = FastAPI(
        title="mlchain node",
        version=__version__,
        docs_url=None,  # its pages load scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    describe(app)
    app.add_middleware(Gate, clients=clients)
    app.add_middleware(Drain)  # the outermost: the gate's answers, too, have to arrive
    return app


def add_health(app: FastAPI) -> None:
    """Add the path that says that the process lives."""

    @app.get("/healthz", summary="The process answers", **says(answers.Okay))
    async def healthz() -> Response:
        return as_json({"ok": True})


def _add_node(app: FastAPI, node: NodeApi) -> None:
    @app.get(
        "/readyz", summary="The node knows of no block that it lacks", **says(answers.Okay, 503)
    )
    async def readyz() -> Response:
        if node.query.status()["syncing"]:
            raise HTTPException(503, "catching up with the chain")
        return as_json({"ok": True})

    @app.get("/v1/status", summary="Head, peers, mempool", **says(answers.Status))
    async def status() -> Response:
        return as_json(node.query.status())

    @app.get("/v1/genesis", summary="The genesis file", **says(answers.GenesisFile, is_tagged=True))
    async def genesis(request: Request) -> Response:
        tag = str(node.query.status()["genesis"])
        return final(request, tag, lambda: Response(node.query.genesis(), media_type=JSON))


def _add_pages(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/metrics", summary="For Prometheus", **says(TEXT))
    async def read_metrics() -> Response:
        return Response(await metrics.text(), headers={"content-type": METRICS_TYPE})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(render_docs(app.openapi()), headers=PAGE_POLICY, media_type=PAGE)


def _add_stream(app: FastAPI, node: NodeApi, metrics: Metrics) -> None:
    open_streams = 0

    class Counted(BlockStream):
        """A stream that counts while it runs."""

        async def __call__(self, *arguments: Any) -> None:
            nonlocal open_streams
            open_streams += 1
            try:
                with metrics.streams.track_inprogress():
                    await super().__call__(*arguments)
            finally:
                open_streams -= 1

    @app.get(
        "/v1/stream",
        summary="Blocks and what they do to jobs, as server-sent events",
        **says(EVENTS, 422, 503),
    )
    async def stream(
        last_event_id: Annotated[int | None, Header(ge=0, le=2**53)] = None,
    ) -> Response:
        if open_streams >= MAX_STREAMS:
            raise HTTPException(503, "too many streams are open", {"retry-after": "5"})
        height = node.query.height
        return Counted(node, height - 1 if last_event_id is None else min(last_event_id, height))
