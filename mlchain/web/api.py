"""The address at which a process answers: of the way to the state first, then of its node.

The listening socket stays while the process goes from one to the other, so that nobody is refused:
who comes in between waits for a moment.
"""

from __future__ import annotations

import socket
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

import trio
from fastapi import FastAPI

from mlchain.web.admin import SOCKET, serve_admin
from mlchain.web.app import make_admin_app, make_app
from mlchain.web.gate import Limits
from mlchain.web.metrics import Metrics
from mlchain.web.newcomer import NewcomerApi, make_newcomer_admin_app, make_newcomer_app
from mlchain.web.node_api import NodeApi
from mlchain.web.server import listen, serve_listener


class HttpApi:
    """A port, and the operator's socket beside it; `node.main.Api`."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8645,
        *,
        limits: Limits | None = None,
        admin_socket: Path | None = None,
    ) -> None:
        """Port 0 takes a free one. `admin_socket` is by default in the node's home."""
        self._address = host, port
        self._limits, self._admin_socket = limits, admin_socket
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._listener.close()

    async def serve_newcomer(
        self,
        newcomer: NewcomerApi,
        done: trio.Event,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Tell how far state sync is, until it is done; started once it listens, with the port.

        Who has asked by then is answered.

        Raises:
            ConfigError: the address cannot be had.
        """
        app, admin = make_newcomer_app(newcomer, self._limits), make_newcomer_admin_app(newcomer)
        await self._serve(app, admin, newcomer.home, done, task_status)

    async def serve_node(
        self, node: NodeApi, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve a node until cancelled; started once it listens, with the port.

        Raises:
            ConfigError: the address cannot be had.
        """
        # FastAPI remembers handlers for ever, and they would keep the node and its databases
        borrowed: NodeApi = weakref.proxy(node)
        metrics = Metrics(borrowed)
        app, admin = make_app(borrowed, self._limits, metrics), make_admin_app(borrowed, metrics)
        async with trio.open_nursery() as nursery:
            await nursery.start(metrics.watch)
            await self._serve(app, admin, node.home, trio.Event(), task_status)

    async def _serve(
        self,
        app: FastAPI,
        admin: FastAPI,
        home: Path,
        shutdown: trio.Event,
        task_status: trio.TaskStatus[int],
    ) -> None:
        if self._listener is None:
            self._listener = await listen(*self._address)
        own = self._listener.dup()  # closed when this ends; the other one keeps the address
        path = self._admin_socket or home / SOCKET
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_admin, admin, path, home, shutdown)
            await serve_listener(app, own, shutdown, task_status=task_status)
