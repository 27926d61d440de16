"""The node's HTTP API: a thin layer that turns paths into questions to `node.query`.

Nothing here may change the chain but a signed transaction. There is no CORS header and no cookie:
a web page of another site can neither read nor write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Annotated, Any, Protocol

import trio
from fastapi import FastAPI, Header, Path, Query, Request
from msgspec import Meta
from starlette.concurrency import iterate_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from mlchain import __version__, codec
from mlchain.errors import MlchainError, NotFound
from mlchain.ledger.content import ContentStore, cid_text, parse_cid
from mlchain.ledger.transaction import MAX_TRANSACTION_BYTES
from mlchain.node.prosecution import CaseName, Cases
from mlchain.node.query import MAX_ROWS, Json
from mlchain.vm.families.data import MAX_DATASET_BYTES
from mlchain.web import problems
from mlchain.web.bodies import BodyFile, Drain, pieces, read_body
from mlchain.web.gate import Clients, Gate, Limits
from mlchain.web.server import serve_http
from mlchain.web.stream import MAX_STREAMS, BlockSource, BlockStream

MAX_UPLOADS = 4
MAX_RECEIPTS = 2
"""Bodies and receipts handled at a time; others wait for their turn."""

IMMUTABLE = {"cache-control": "public, max-age=31536000, immutable"}
BYTES = "application/octet-stream"

MAX_BATCH = 500
MAX_BATCH_BYTES = 4 << 20
BATCH_STRIDE = 16
_BATCH: Any = Annotated[
    tuple[Annotated[bytes, Meta(max_length=MAX_TRANSACTION_BYTES)], ...], Meta(max_length=MAX_BATCH)
]

Height = Annotated[int, Path(ge=0, le=2**53)]
Since = Annotated[int, Query(ge=0, le=2**62)]
Before = Annotated[int | None, Query(ge=0, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=MAX_ROWS)]


class NodeApi(BlockSource, Protocol):
    """What the API needs of a node. `Node` fits."""

    content: ContentStore
    cases: Cases

    async def submit_transaction(self, data: bytes) -> bytes:
        """Admit an encoded transaction and return its id.

        Raises:
            MlchainError: says why not.
        """
        ...

    async def gather_files(self, job_id: bytes) -> None:
        """Fetch from peers what the job's receipt carries and is not here yet, as far as had."""
        ...


async def serve(
    node: NodeApi,
    host: str = "127.0.0.1",
    port: int = 8645,
    *,
    limits: Limits | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a node's API until cancelled; started once it listens, with the port.

    Raises:
        ConfigError: the address cannot be had.
    """
    await serve_http(
        make_app(node, limits or Limits()), host, port, trio.Event(), task_status=task_status
    )


def make_app(node: NodeApi, limits: Limits | None = None) -> FastAPI:
    """Return the ASGI application of one node. It runs in the node's own trio loop."""
    app = FastAPI(
        title="mlchain node",
        version=__version__,
        docs_url=None,  # its pages load scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
    )
    clients = Clients(limits or Limits())
    problems.install(app)
    app.add_middleware(Gate, clients=clients)
    app.add_middleware(Drain)  # the outermost: the gate's answers, too, have to arrive
    _add_node(app, node)
    _add_chain(app, node)
    _add_transactions(app, node, clients)
    _add_jobs(app, node)
    _add_data(app, node, clients)
    _add_stream(app, node)
    return app


def _add_node(app: FastAPI, node: NodeApi) -> None:
    @app.get("/healthz", summary="The process answers")
    async def healthz() -> Response:
        return _json({"ok": True})

    @app.get("/readyz", summary="The node knows of no block that it lacks")
    async def readyz() -> Response:
        if node.query.status()["syncing"]:
            raise HTTPException(503, "catching up with the chain")
        return _json({"ok": True})

    @app.get("/v1/status", summary="Head, peers, mempool")
    async def status() -> Response:
        return _json(node.query.status())

    @app.get("/v1/genesis", summary="The genesis file")
    async def genesis() -> Response:
        return Response(node.query.genesis(), media_type="application/json")


def _add_chain(app: FastAPI, node: NodeApi) -> None:
    @app.get("/v1/accounts/{account}", summary="Balance and nonce, by address or hex key")
    async def account(account: str) -> Response:
        return _json(node.query.account(account))

    @app.get("/v1/blocks", summary="Blocks, newest first, below height `before`")
    async def blocks(before: Before = None, limit: Limit = 20) -> Response:
        rows = node.query.blocks(before, limit)
        last = rows[-1]["height"] if rows else 0
        return _json({"blocks": rows, "before": last or None})

    @app.get("/v1/blocks/{height}", summary="One block")
    async def block(request: Request, height: Height) -> Response:
        found = node.query.block(height)
        return _tagged(request, found["id"], lambda: _json(found))

    @app.get("/v1/light", summary="Certified headers from height `after` to `height` (0: the last)")
    async def light(after: Since = 0, height: Since = 0) -> Response:
        return Response(node.query.light_path(after, height), media_type=BYTES)

    @app.get("/v1/state/{key}", summary="A value of the state, by its key in hex, with its proof")
    async def state(key: str) -> Response:
        return Response(node.query.prove(key), media_type=BYTES)

    @app.get("/v1/governance", summary="Epoch, parameters, members and proposals")
    async def governance() -> Response:
        return _json(node.query.governance())

    @app.get("/v1/validators", summary="Who votes, with bonds and faults")
    async def validators() -> Response:
        return _json({"validators": node.query.validators()})

    @app.get("/v1/workers", summary="Who trains, with bonds and faults")
    async def workers() -> Response:
        return _json({"workers": node.query.workers()})


def _add_transactions(app: FastAPI, node: NodeApi, clients: Clients) -> None:
    @app.post("/v1/txs", summary="Hand in an encoded signed transaction")
    async def submit(request: Request) -> Response:
        data = await read_body(request, MAX_TRANSACTION_BYTES)
        return _json({"id": (await node.submit_transaction(data)).hex()})

    @app.post("/v1/txs/batch", summary="Hand in many: the canonical msgpack array of them")
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
        return _json({"transactions": rows})

    @app.get("/v1/txs/{identity}", summary="Where a transaction stands")
    async def transaction(identity: str) -> Response:
        return _json(node.query.transaction(identity))


def _add_jobs(app: FastAPI, node: NodeApi) -> None:
    turn = trio.CapacityLimiter(MAX_RECEIPTS)

    @app.get("/v1/jobs", summary="The newest jobs, all or those in one state")
    async def jobs(state: str = "", limit: Limit = 50) -> Response:
        return _json({"jobs": node.query.jobs(state, limit)})

    @app.get("/v1/jobs/{job}", summary="A job, by its id or a unique beginning of it")
    async def job(job: str) -> Response:
        return _json(node.query.job(job))

    @app.get("/v1/jobs/{job}/model", summary="The encoded final state")
    async def model(request: Request, job: str) -> Response:
        content = node.query.model(job)
        await node.gather_files(node.query.find_job(job)[0])
        return await _send_content(request, node.content, content)

    @app.get("/v1/jobs/{job}/receipt", summary="The job's proof; without its files if files=false")
    async def receipt(job: str, files: bool = True) -> Response:
        job_id, _ = node.query.find_job(job)

        def make() -> bytes:
            return codec.encode(node.query.receipt(job_id, files))

        if files:
            await node.gather_files(job_id)
        return Response(await trio.to_thread.run_sync(make, limiter=turn), media_type=BYTES)

    @app.get("/v1/jobs/{job}/fraud", summary="The fraud files this node made about a job")
    async def fraud(job: str) -> Response:
        job_id, _ = node.query.find_job(job)
        names = await trio.to_thread.run_sync(lambda: list(node.cases.names(job_id)))
        return _json({"files": [name._asdict() | {"job": name.job.hex()} for name in names]})

    @app.get("/v1/jobs/{job}/fraud/{segment}/{attempt}/{chunk}", summary="One fraud file")
    async def fraud_file(job: str, segment: Height, attempt: Height, chunk: Height) -> Response:
        job_id, _ = node.query.find_job(job)
        name = CaseName(job_id, segment, attempt, chunk)
        data = await trio.to_thread.run_sync(node.cases.read, name, limiter=turn)
        if data is None:
            raise NotFound(f"no fraud file about chunk {chunk} here", "ask another validator")
        return Response(data, media_type=BYTES)


def _add_data(app: FastAPI, node: NodeApi, clients: Clients) -> None:
    turn = trio.CapacityLimiter(MAX_UPLOADS)

    @app.post("/v1/data", summary="Store bytes; the answer is their content id")
    async def put_data(request: Request) -> Response:
        size = 0

        def count(more: int) -> None:
            nonlocal size
            size += more
            clients.charge_bytes(request.scope, more)

        async with aclosing(pieces(request, MAX_DATASET_BYTES, count)) as body:
            cid = await trio.to_thread.run_sync(node.content.put, BodyFile(body), limiter=turn)
        return _json({"cid": cid_text(cid), "size": size})

    @app.get("/v1/data/{cid}", summary="Bytes by content id")
    async def data(request: Request, cid: str) -> Response:
        return await _send_content(request, node.content, parse_cid(cid))


def _add_stream(app: FastAPI, node: NodeApi) -> None:
    open_streams = 0

    class Counted(BlockStream):
        """A stream that counts while it runs."""

        async def __call__(self, *arguments: Any) -> None:
            nonlocal open_streams
            open_streams += 1
            try:
                await super().__call__(*arguments)
            finally:
                open_streams -= 1

    @app.get("/v1/stream", summary="Blocks and what they do to jobs, as server-sent events")
    async def stream(
        last_event_id: Annotated[int | None, Header(ge=0, le=2**53)] = None,
    ) -> Response:
        if open_streams >= MAX_STREAMS:
            raise HTTPException(503, "too many streams are open", {"retry-after": "5"})
        height = node.query.height
        return Counted(node, height - 1 if last_event_id is None else min(last_event_id, height))


async def _send_content(request: Request, content: ContentStore, cid: bytes) -> Response:
    """Return the bytes of a content id, leaf by leaf, read in threads.

    Raises:
        NotFound: not all of it is here.
    """
    if not await trio.to_thread.run_sync(content.has, cid):
        raise NotFound(f"no content {cid_text(cid)} here", "ask another node")

    def answer() -> Response:
        leaves: Iterator[bytes] = content.read(cid)
        headers = {**IMMUTABLE, "content-length": str(content.size(cid))}
        return StreamingResponse(iterate_in_threadpool(leaves), 200, headers, BYTES)

    return _tagged(request, cid_text(cid), answer)


def _tagged(request: Request, tag: str, answer: Callable[[], Response]) -> Response:
    """Return `answer` with its ETag, or 304 to a client that has it."""
    etag = f'"{tag}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag})
    response = answer()
    response.headers["etag"] = etag
    return response


def _json(value: Json) -> Response:
    return Response(json.dumps(value), media_type="application/json")
