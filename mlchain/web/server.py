"""Hypercorn in the node's own trio loop."""

from __future__ import annotations

import logging
import socket
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from mlchain.errors import ConfigError

BACKLOG = 256
GRACE_S = 1.0
"""Time that open requests get when the node stops."""


async def serve_http(
    app: Any,
    host: str,
    port: int,
    shutdown: trio.Event,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until `shutdown` or cancelled; started once it listens, with the port.

    Port 0 takes a free one.

    Raises:
        ConfigError: the address cannot be had.
    """
    listener = await _listen(host, port)
    bound = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = BACKLOG
    config.graceful_timeout = GRACE_S
    config.include_server_header = False
    config.errorlog = logging.getLogger("mlchain.http")
    config.errorlog.setLevel(logging.WARNING)
    task_status.started(bound)  # the socket listens: who connects already now waits its turn
    await serve(app, config, shutdown_trigger=shutdown.wait)


async def _listen(host: str, port: int) -> socket.socket:
    """Return a bound socket.

    Raises:
        ConfigError: no such address, or in use.
    """
    if not 0 <= port <= 65_535:  # getaddrinfo would take it modulo 2^16
        raise ConfigError(f"http: no such port: {port}", "0 to 65535")
    try:
        rows = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        family, kind, protocol, _, address = rows[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"http: cannot listen on {host}:{port}: {error.strerror}",
            "another process has the port, or the address is not of this machine; --http HOST:PORT",
        ) from error
    return listener
