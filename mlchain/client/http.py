"""How a client talks to a node over HTTP: what both clients share, waiting or awaiting."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from mlchain.client.events import EventReader
from mlchain.client.progress import describe_chain, describe_job
from mlchain.errors import CodecError, NotFound, Pruned, Rejected, Timeout, Unreachable

DEFAULT_URL = "http://127.0.0.1:8645"
MAX_ANSWER_BYTES = 1 << 30
"""No answer is read beyond this: models and datasets are the largest."""

UNIX = "unix:"
"""What a URL begins with that is the path of a socket."""

STREAM = "/v1/stream"
SILENCE_S = 60.0
"""Nodes send at least a comment every 15 s on a stream."""

Json = dict[str, Any]
Query = dict[str, str | int] | None
Notify = Callable[[str], None]


class Watch:
    """Patience: how long nothing new may come."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s, self._last = patience_s, None
        self._deadline = time.monotonic() + patience_s

    def is_new(self, value: Any) -> bool:
        """Tell whether a value is another than the last one; if so patience begins anew."""
        if value == self._last:
            return False
        self._last, self._deadline = value, time.monotonic() + self._patience_s
        return True

    def require_time(self, message: str, hint: str) -> None:
        """Return unless patience has ended.

        Raises:
            Timeout: with that message and hint.
        """
        if time.monotonic() >= self._deadline:
            raise Timeout(message, hint)


def is_included(found: Json) -> bool:
    """Tell whether a block has a transaction.

    Raises:
        Rejected: it has, and it failed; says why.
    """
    if found["state"] != "included":
        return False
    if found.get("code") != "ok":
        raise Rejected(str(found.get("message") or f"code {found.get('code')}"))
    return True


def describe_wait(identity: str, status: Json) -> str:
    """Return what a transaction waits for."""
    return f"transaction {identity[:8]} to be in a block: {describe_chain(status)}"


def describe_silence(job: Json, status: Json, patience_s: float) -> tuple[str, str]:
    """Return what is said of a job about which nothing new came, and what next."""
    name = str(job["id"])[:8]
    return (
        f"job {name}: nothing new for {patience_s:g} s, "
        f"{describe_job(job)}; {describe_chain(status)}",
        f"the job goes on: mlchain job show {name}",
    )


def connection(
    url: str, timeout_s: float, transport: Callable[..., Any] = httpx.HTTPTransport
) -> dict[str, Any]:
    """Return how httpx talks to a node: `http://HOST:PORT`, or `unix:PATH` to its admin socket.

    `transport` is httpx' kind of one, for those who wait or those who await.
    """
    if url.startswith(UNIX):
        local = transport(uds=url.removeprefix(UNIX))
        return {"base_url": "http://localhost", "timeout": timeout_s, "transport": local}
    return {
        "base_url": url,
        "timeout": timeout_s,
        "trust_env": False,
        "verify": url.startswith("https:"),  # reading all certificates takes a while
    }


def sending(query: Query, body: bytes | None) -> dict[str, Any]:
    """Return what httpx is told of one request."""
    headers = {"content-type": "application/octet-stream"} if body is not None else {}
    return {"params": query, "content": body, "headers": headers}


def streaming(reader: EventReader, silence_s: float) -> dict[str, Any]:
    """Return what httpx is told to open the stream, or to open it again."""
    seen = {} if reader.last is None else {"last-event-id": str(reader.last)}
    return {"headers": seen, "timeout": httpx.Timeout(10.0, read=silence_s)}


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what goes wrong on the way to a node into `Unreachable`."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Unreachable(f"the node at {url} does not answer in time", "mlchain status") from error
    except httpx.HTTPError as error:
        raise Unreachable(
            f"no node answers at {url}: {error}",
            "is the node running? name its --home"
            if url.startswith(UNIX)
            else "mlchain testnet up, or give --url",
        ) from error
    except (httpx.InvalidURL, ValueError) as error:
        raise Unreachable(f"not a URL: {url}", f"as in {DEFAULT_URL}") from error


def append(data: bytearray, piece: bytes, where: str) -> None:
    """Add a piece to an answer.

    Raises:
        CodecError: the answer is beyond any bound.
    """
    data += piece
    if len(data) > MAX_ANSWER_BYTES:
        raise CodecError(f"{where}: more than {MAX_ANSWER_BYTES} bytes")


def checked(status: int, data: bytes, where: str) -> bytes:
    """Return the body of an answer; raise the error that its status stands for."""
    if status >= 300:
        raise problem_error(status, data, where)
    return data


def problem_error(status: int, data: bytes, where: str) -> Exception:
    """Return the error that an answer of status >= 300 stands for (RFC 9457 problem details)."""
    try:
        problem = json.loads(data)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    message = str(problem.get("detail") or problem.get("title") or f"{where}: HTTP {status}")
    hint = str(problem.get("hint") or "")
    if status == 404:
        return NotFound(message, hint)
    if status == 410:
        return Pruned(message, hint)
    if status == 429 or status >= 500:
        return Unreachable(message, hint)
    return Rejected(message, hint)


def rows_of(answer: Any, name: str) -> list[Json]:
    """Return the rows of a list answer, bare or under its name beside a cursor."""
    return list(answer[name] if isinstance(answer, dict) else answer)
