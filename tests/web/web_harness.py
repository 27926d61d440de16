"""The API of a real chain on a free port of this machine, inside the test's own trio loop."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import httpx
import trio
from factories import GrowingChain, make_chain

from mlchain import codec
from mlchain.errors import NotFound
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id
from mlchain.node.files import SYSTEM
from mlchain.node.keeper import Keeper
from mlchain.node.prosecution import Cases
from mlchain.node.query import Query
from mlchain.p2p.transport import PeerStatus
from mlchain.vm.families.accounts import Transfer
from mlchain.web.admin import serve_admin
from mlchain.web.app import Limits, make_admin_app, make_app
from mlchain.web.metrics import Metrics
from mlchain.web.server import serve_http


class FakeNode:
    """A node without network: its chain grows when the test says so."""

    def __init__(self, chain: GrowingChain) -> None:
        self.grown, self.chain = chain, chain.chain
        self.auditor = None
        self.cases = Cases(SYSTEM, Path("/nonexistent/fraud"))
        self.home = Path("/nonexistent")
        self.name = "validator-0"
        self.membership = SimpleNamespace(members=chain.genesis.members[:1])
        self.content = chain.content
        self.keeper = Keeper(chain.content, 0, chain.chain, self.hold)
        self.elsewhere: dict[bytes, bytes] = {}
        self.sync = SimpleNamespace(is_syncing=False)
        self.worker = None
        self.transport = SimpleNamespace(peers=lambda: [PEER])
        self.query = Query(chain.chain, chain.genesis, chain.content, self)
        self.subscribers: list[trio.MemorySendChannel[Any]] = []
        chain.on_block.append(self._on_block)

    async def hold(self, cid: bytes, max_bytes: int) -> None:
        """Have what another node has."""
        if cid in self.elsewhere:
            self.content.put(self.elsewhere[cid])
        elif not self.content.has(cid):
            raise NotFound("none of 1 peers has it")

    async def gather_files(self, job_id: bytes) -> None:
        """Everything is here."""

    async def submit_transaction(self, data: bytes) -> bytes:
        self.chain.add_transaction(data)
        return transaction_id(data)

    @asynccontextmanager
    async def subscribe_blocks(self) -> AsyncIterator[trio.MemoryReceiveChannel[Any]]:
        send, receive = trio.open_memory_channel(64)
        self.subscribers.append(send)
        try:
            yield receive
        finally:
            self.subscribers.remove(send)

    def _on_block(self, committed: Any) -> None:
        for subscriber in self.subscribers:
            subscriber.send_nowait(committed)


BYTES = {"content-type": "application/octet-stream"}
PEER = PeerStatus(bytes(32), "validator-1", "validator", True, 40, 1, 1, 0, 0, 0)


@dataclass
class Web:
    """A served node and a client of it."""

    node: FakeNode
    http: httpx.AsyncClient
    port: int
    admin: httpx.AsyncClient
    """What the operator has, by the socket."""
    socket: Path

    @property
    def chain(self) -> GrowingChain:
        return self.node.grown

    async def raw(self, data: bytes, most: int = 1 << 20) -> bytes:
        """Send bytes that no client library would, and return what comes back until the end."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        answer = b""
        async with stream:
            with trio.move_on_after(0.3):
                await stream.send_all(data)
                async for piece in stream:
                    answer += piece
                    if len(answer) > most:
                        break
        return answer


@asynccontextmanager
async def open_web(chain: GrowingChain | None = None, limits: Limits | None = None):
    """Serve a chain until the test is done with it."""
    node = FakeNode(chain or make_chain())
    shutdown = trio.Event()
    with TemporaryDirectory(prefix="mlchain-web-") as folder:
        socket = Path(folder) / "admin.sock"
        async with trio.open_nursery() as nursery:
            metrics = Metrics(node)
            await nursery.start(metrics.watch)
            app, admin_app = make_app(node, limits, metrics), make_admin_app(node, metrics)
            nursery.start_soon(serve_admin, admin_app, socket, socket.parent, shutdown)
            port = await nursery.start(serve_http, app, "127.0.0.1", 0, shutdown)
            url, local = f"http://127.0.0.1:{port}", httpx.AsyncHTTPTransport(uds=str(socket))
            async with (
                httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http,
                httpx.AsyncClient(base_url="http://node", transport=local, timeout=10) as admin,
            ):
                yield Web(node, http, port, admin, socket)
            shutdown.set()
            nursery.cancel_scope.cancel()


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    """Tell whether an answer is a well-formed problem of this status and code."""
    body = answer.json()
    return (
        answer.status_code == status
        and answer.headers["content-type"].startswith("application/problem+json")
        and {"status", "title", "code", "detail", "hint"} <= set(body)
        and (body["status"], body["code"]) == (status, code)
    )


def json_events(text: str) -> list[tuple[str, str, Any]]:
    """Return (id, event, data) of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        rows = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in rows:
            found.append((rows.get("id", ""), rows["event"], json.loads(rows["data"])))
    return found


def transfers(chain: GrowingChain, count: int) -> list[bytes]:
    """Signed transactions of one sender, in order."""
    payload = Transfer(bytes(range(32)), 7)
    bodies = [
        TransactionBody(
            chain.genesis.chain_id, chain.alice.public, nonce, 10**6, 1, payload.KIND,
            codec.encode(payload),
        )
        for nonce in range(count)
    ]  # fmt: skip
    return [codec.encode(sign_transaction(body, chain.alice)) for body in bodies]
