"""The operator's way in: a Unix socket that nobody but the owner of the process can open.

It serves all of the API and, beside it, what only the operator may do. The public port does not
know these paths at all: no address, header or page in a browser makes somebody the operator.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import structlog
import trio
from fastapi import FastAPI, Query
from starlette.responses import Response

from mlchain.errors import CodecError, ConfigError
from mlchain.node.logs import LEVELS, set_log_level
from mlchain.web import answers
from mlchain.web.data_routes import add_keeping
from mlchain.web.node_api import NodeApi
from mlchain.web.openapi import says
from mlchain.web.replies import as_json
from mlchain.web.server import serve_listener

log = structlog.get_logger("web")

SOCKET = "admin.sock"
"""In the node's home, unless the operator names another one."""
BACKLOG = 16
HINT = "name another one with --admin-socket"

Level = Annotated[str, Query(json_schema_extra={"enum": list(LEVELS)})]


async def serve_admin(app: FastAPI, path: Path, home: Path, shutdown: trio.Event) -> None:
    """Serve the operator at `path` until `shutdown` or cancelled.

    A node does not need the socket in its home: where there can be none, as on some shared file
    systems, it says so in its log and goes on.

    Raises:
        ConfigError: the operator named another path, and there can be none there.
    """
    try:
        with unix_listener(path) as listener:
            await serve_listener(app, listener, shutdown)
    except ConfigError as error:
        if path != home / SOCKET:
            raise
        log.warning("no-admin-socket", reason=error.message, hint=error.hint)


def add_administration(app: FastAPI, node: NodeApi) -> None:
    """Add everything that is the operator's alone."""
    add_keeping(app, node)
    add_process(app)


def add_process(app: FastAPI) -> None:
    """Add what concerns the process, whatever it does."""

    @app.post("/v1/node/log-level", summary="Log from this level on", **says(answers.Okay, 422))
    async def log_level(level: Level) -> Response:
        if level not in LEVELS:
            raise CodecError(f"no log level {level[:40]!r}", "one of " + ", ".join(LEVELS))
        set_log_level(level)
        return as_json({"ok": True})

    @app.post("/v1/node/stop", summary="End the process, as SIGTERM does", **says(answers.Okay))
    async def stop() -> Response:
        log.info("told-to-stop")
        end_process()
        return as_json({"ok": True})


def end_process() -> None:
    """Ask ourselves to stop, in the way that everything else does."""
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    """Give a socket that listens at `path` and that only our own user can connect to.

    Raises:
        ConfigError: another process listens there, something else is there, or it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        try:
            os.chmod(path, 0o600)  # nobody can have connected: that needs somebody who listens
            listener.listen(BACKLOG)
            listener.setblocking(False)
            yield listener
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"admin socket {path}: {error.strerror or error}", HINT) from error
    finally:
        listener.close()


def _remove_stale(path: Path) -> None:
    """Remove what a killed node left at `path`."""
    if not path.exists():
        return
    if not path.is_socket():
        raise ConfigError(f"admin socket {path}: there is a file already", HINT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise ConfigError(f"admin socket {path}: another process listens there", HINT)
