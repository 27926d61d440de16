"""A node's HTTP API in a thread, answering from a table: the other end of the client in tests."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_UNIX
from typing import Any

from mlchain.ledger import unixfs

Answer = tuple[int, bytes]


@dataclass
class FakeNode:
    """`routes` maps "GET /v1/status" to bytes, a JSON value, or a function of the request's body.

    A list is played once, answer by answer; the last one stays.
    """

    url: str = ""
    routes: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def answer(self, route: str, body: bytes) -> Answer:
        self.requests.append((route, body))
        value = self.routes.get(route.split("?")[0])
        if isinstance(value, list) and value:
            value = value.pop(0) if len(value) > 1 else value[0]
        if isinstance(value, Callable):
            value = value(body)
        if value is None:
            return problem(404, "not_found", f"nothing at {route}")
        if isinstance(value, tuple):
            return value
        return 200, value if isinstance(value, bytes) else json.dumps(value).encode()


def serve_file(node: FakeNode, data: bytes, profile: str = unixfs.DEFAULT) -> str:
    """Have a node serve a file as real ones do, block by block and from any byte; return its id."""
    root = unixfs.cid_text(unixfs.add(data, partial(_serve_block, node), profile))

    def send(_: bytes) -> Answer:
        start = node.headers[-1].get("range", "")[len("bytes=") : -1]
        return (206, data[int(start) :]) if start else (200, data)

    node.routes[f"GET /v1/data/{root}"] = send
    return root


def _serve_block(node: FakeNode, cid: bytes, block: bytes) -> None:
    node.routes[f"GET /v1/data/{unixfs.cid_text(cid)}/block"] = block


def problem(status: int, code: str, detail: str, hint: str = "") -> Answer:
    document = {"code": code, "title": code, "detail": detail, "hint": hint, "status": status}
    return status, json.dumps(document).encode()


class UnixServer(ThreadingHTTPServer):
    """The same at the path of a socket."""

    address_family = AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)

    def get_request(self) -> Any:
        return self.socket.accept()[0], ("", 0)


@contextmanager
def serve(node: FakeNode | None = None, socket: Path | None = None) -> Iterator[FakeNode]:
    """Serve on a port of this machine, or at the path of a socket."""
    node = node or FakeNode()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            node.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, data = node.answer(f"{self.command} {self.path}", body)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    if socket is None:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        node.url = f"http://127.0.0.1:{server.server_address[1]}"
    else:
        server = UnixServer(str(socket), Handler)  # type: ignore[arg-type]  # a path, no port
        node.url = f"unix:{socket}"
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield node
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


STATUS = {
    "chain_id": "test-1",
    "genesis": "7d1f" * 16,
    "height": 12,
    "block_id": "ab" * 32,
    "time_ms": 1_700_000_000_000,
    "kept": 0,
    "role": "validator",
    "roles": ["validator"],
    "validators": 3,
    "name": "validator-1",
    "peers": [
        {"name": "validator-2", "role": "validator", "connected": True, "last_seen_ms": 1},
        {"name": "worker-1", "role": "worker", "connected": False, "last_seen_ms": 1},
    ],
    "mempool": 3,
    "chains_end": 50_000,
    "syncing": False,
}

SCORE = {"name": "accuracy", "correct": 29, "total": 30, "value": "0.967"}
JOB_ID = "7f3ae1c2" * 8


def fault(**fields: Any) -> dict[str, Any]:
    """A punished misdeed in the job, as the API shows it."""
    return {
        "offender_key": "0d" * 32,
        "job": JOB_ID,
        "segment": 0,
        "chunk": 0,
        "slashed": 1,
        "finders": [],
    } | fields


def transaction(**fields: Any) -> dict[str, Any]:
    """A transaction in a block, as the API shows it."""
    return {
        "id": JOB_ID,
        "state": "included",
        "height": 13,
        "index": 0,
        "code": "ok",
        "gas_used": 900,
        "message": "",
        "events": [],
    } | fields


def job(state: str, **changes: Any) -> dict[str, Any]:
    """A job of 80 chunks in 2 segments, as the API shows it."""
    hard = state == "settled"
    segments = [
        {
            "index": index,
            "state": "hard" if hard else "assigned",
            "worker": "worker-1",
            "worker_key": "0a" * 32,
            "attempt": 0,
            "first": 40 * index,
            "chunks": 40,
            "deadline_ms": 1_700_000_600_000,
            "commit_height": 20 + index if hard else None,
            "end_digest": "cd" * 32 if hard else None,
            "end": "bafkreiend" if hard else None,
            "trap_step": None,
            "slices": {f"mlc1v{i}": 5 for i in range(3)} if hard else {},
            "chunks_rerun": 13 if hard else 0,
            "chunks_reviewed": 0,
            "chunks_seen": 13 if hard else 0,
            "disputed_chunk": None,
            "attestations": [f"mlc1v{i}" for i in range(3)] if hard else [],
            "hard_height": 24 + index if hard else None,
        }
        for index in range(2)
        if state in ("running", "settled")
    ]
    return {
        "id": JOB_ID,
        "name": "iris",
        "state": state,
        "submitter": "mlc1alice",
        "submitter_key": "0b" * 32,
        "tier": "audited",
        "fee": 120_000,
        "gas": 90_000,
        "steps": 400,
        "chunk": 5,
        "chunks": 80,
        "dataset": "bafkreidata",
        "train_rows": 120,
        "test_rows": 30,
        "submitted_ms": 1_700_000_000_000,
        "height": 12,
        "seed": None,
        "order_seed": "0c" * 32,
        "segments": segments,
        "total_segments": 2,
        "faults": [],
        "progress": {"done_chunks": 80 if hard else 0, "total_chunks": 80},
        "metrics": {"name": "accuracy", "correct": 29, "total": 30, "value": "0.967"}
        if hard
        else None,
        "model": "bafybeidmodel" if hard else None,
        "state_digest": "ef" * 32 if hard else None,
        "verified": {
            "rerun": 26,
            "reviewed": 0,
            "seen": 26,
            "chunks": 80,
            "by": ["validator-1", "validator-2", "validator-3"],
            "of": 3,
            "miss_1_in_10": "0.036",
            "miss_1_in_100": "0.675",
        },
    } | changes
