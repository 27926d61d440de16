"""Hypercorn in the node's own trio loop: its protocols and connections, our loop around them.

Hypercorn's own loop runs all connections in one nursery, where a bug that one client provokes ends
every other connection, and with them the node. Here it ends that client's connection.
"""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from mlchain.errors import ConfigError

log = logging.getLogger("mlchain.http")

FINAL_HEADS = tuple(b"HTTP/1.1 %d" % digit for digit in (2, 3, 4, 5))
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
    await serve_listener(app, await listen(host, port), shutdown, task_status=task_status)


async def serve_listener(
    app: Any,
    listener: socket.socket,
    shutdown: trio.Event,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` to those who connect to a socket that listens; started with its port, if any."""
    config = Config()
    config.include_server_header = False
    config.errorlog = log
    log.setLevel(logging.WARNING)
    context = WorkerContext(max_requests=None)
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")

    async def connection(stream: trio.SocketStream) -> None:
        try:
            await Connection(wrapped, config, context, ConnectionState({}), stream)
        except* Exception as group:  # it provoked a bug of the library's: it loses its connection
            log.warning("connection dropped: %r", group.exceptions[0])

    accepted = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(
                partial(trio.serve_listeners, connection, [accepted], handler_nursery=connections)
            )
            name = listener.getsockname()
            task_status.started(name[1] if isinstance(name, tuple) else 0)
            await shutdown.wait()
            accepting.cancel_scope.cancel()
        await context.terminated.set()  # idle connections end
        connections.cancel_scope.deadline = trio.current_time() + GRACE_S


class Connection(TCPServer):
    """Hypercorn's, but it is not closed while a task of it is sending, and sends heads with bodies.

    Closing and sending would use the stream at once, which is an error, and the answer would be
    lost with it. A client that does not read what it is sent is waited for no longer than
    `GRACE_S`. An answer in two pieces costs two system calls, here and at the client.
    """

    _head = b""

    async def protocol_send(self, event: Event) -> None:
        """Send what the protocol asks for; the head of an answer waits for what comes after it."""
        head, self._head = self._head, b""
        if isinstance(event, RawData):
            if event.data.startswith(FINAL_HEADS) and not head:
                self._head = event.data
                return
            event = RawData(data=head + event.data)
        elif head:
            await super().protocol_send(RawData(data=head))
        if not isinstance(event, RawData) or event.data:
            await super().protocol_send(event)

    async def _close(self) -> None:
        with trio.move_on_after(GRACE_S) as waiting:
            await self.send_lock.acquire()
        try:
            await super()._close()
        finally:
            if not waiting.cancelled_caught:
                self.send_lock.release()


async def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

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
