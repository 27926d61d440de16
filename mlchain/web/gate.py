"""The gate before the API: how often a client may ask, and how much it may store.

Clients on this machine are the operator's own and pass; others have one bucket of requests and
one of stored bytes for each address. A request from this machine that was meant for a named host
is not the operator's own: a proxy sent it on, or a web page whose name was pointed at us.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

import trio
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlchain.web.problems import CODES, problem

MAX_CLIENTS = 4_096
"""Addresses remembered; the one that was silent longest is forgotten first."""


_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d*)?")
"""A Host header: a name or an address, then perhaps a port."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one remote address may do. Buckets refill steadily and start full."""

    requests: int = 200
    requests_per_s: int = 50
    stored_bytes: int = 256 << 20
    stored_bytes_per_s: int = 64 << 10
    trusts_loopback: bool = True
    trusts_all: bool = False
    """Whoever gets here is the operator: the file system let nobody else in."""


class Buckets:
    """A token bucket for each of a bounded number of clients."""

    def __init__(self, capacity: int, per_s: int) -> None:
        self._capacity = capacity
        self._per_s = per_s
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at when

    def take(self, client: str, amount: int, now_s: float) -> float:
        """Take tokens and return 0, or leave them and return in how many seconds to try again."""
        level, then = self._levels.pop(client, (float(self._capacity), now_s))
        level = min(self._capacity, level + (now_s - then) * self._per_s)
        wait_s = 0.0 if level >= amount else (amount - level) / self._per_s
        self._levels[client] = (level if wait_s else level - amount), now_s
        if len(self._levels) > MAX_CLIENTS:
            self._levels.popitem(last=False)
        return wait_s


class Clients:
    """What every client may still do; the operator's own may do everything."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._requests = Buckets(limits.requests, limits.requests_per_s)
        self._stored = Buckets(limits.stored_bytes, limits.stored_bytes_per_s)

    def charge_requests(self, scope: Scope, count: int) -> None:
        """Count requests, or transactions: each costs about as much.

        Raises:
            HTTPException: 429, too many.
        """
        wait_s = self._take(self._requests, scope, count)
        if wait_s:
            headers = {"retry-after": str(math.ceil(wait_s))}
            raise HTTPException(429, f"too many requests, of {self._limits.requests}", headers)

    def charge_bytes(self, scope: Scope, size: int) -> None:
        """Count bytes that are stored.

        Raises:
            HTTPException: 413, too many.
        """
        if self._take(self._stored, scope, size):
            most = self._limits.stored_bytes
            raise HTTPException(413, f"you may store {most} bytes, and more as time goes by")

    def _take(self, buckets: Buckets, scope: Scope, amount: int) -> float:
        if is_trusted(scope, self._limits):
            return 0.0
        return buckets.take(client_of(scope), amount, trio.current_time())


class Gate:
    """ASGI middleware: refuses clients that ask too often, and adds headers to every answer."""

    def __init__(self, app: ASGIApp, clients: Clients) -> None:
        self._app = app
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429."""
        if scope["type"] == "http":
            try:
                self._clients.charge_requests(scope, 1)
            except HTTPException as error:
                answer = problem(429, CODES[429], error.detail, "slow down", error.headers)
                await answer(scope, receive, send)
                return
            send = _with_headers(send)
        await self._app(scope, receive, send)


def is_trusted(scope: Scope, limits: Limits) -> bool:
    """Tell whether a request is the operator's own: from this machine, and to it by number."""
    if limits.trusts_all:
        return True
    if not (limits.trusts_loopback and is_loopback(client_of(scope))):
        return False
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
    found = _HOST.fullmatch(host)
    name = found[1].strip("[]") if found else ""
    return name == "localhost" or is_loopback(name)


def client_of(scope: Scope) -> str:
    """Return the address a request came from."""
    client = scope.get("client")
    return str(client[0]) if client else ""


@lru_cache(maxsize=MAX_CLIENTS)  # asked several times for each request
def is_loopback(address: str) -> bool:
    """Tell whether an address is this machine's own."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = (b"x-content-type-options", b"nosniff")
            message = {**message, "headers": [*message.get("headers", ()), extra]}
        await send(message)

    return send_with_headers
