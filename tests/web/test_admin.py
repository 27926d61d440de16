"""What only the operator may do: by a socket that the file system guards, never by the port."""

from __future__ import annotations

import logging
import os
import socket
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import structlog
import trio
from web_harness import BYTES, is_problem, open_web

from mlchain.errors import ConfigError
from mlchain.ledger.unixfs import cid_of, cid_text
from mlchain.web import admin
from mlchain.web.admin import serve_admin, unix_listener

CID = cid_text(cid_of(b"here"))
OPERATIONS = (
    f"data/{CID}/pin",
    f"data/{CID}/unpin",
    "content/collect",
    "node/log-level?level=warning",
    "node/stop",
)


@pytest.fixture
def ended(monkeypatch):
    """How often the process was asked to end: the test's own goes on."""
    asked: list[bool] = []
    monkeypatch.setattr(admin, "end_process", lambda: asked.append(True))
    before = structlog.get_config()["wrapper_class"], logging.getLogger("mlchain").level
    yield asked
    structlog.configure(wrapper_class=before[0])
    logging.getLogger("mlchain").setLevel(before[1])


@pytest.fixture
def folder():
    with TemporaryDirectory(prefix="mlchain-admin-") as name:
        yield Path(name)


def test_what_the_operator_may_do_by_the_socket_nobody_may_by_the_port(ended):
    async def main() -> None:
        async with open_web() as web:
            await web.http.post("/v1/data", content=b"here", headers=BYTES)
            for path in OPERATIONS:
                for headers in ({}, BYTES, {"host": "localhost"}):
                    refused = await web.http.post(f"/v1/{path}", content=b"", headers=headers)
                    assert is_problem(refused, 404, "not_found"), path
            assert web.node.content.has(cid_of(b"here")) and not ended
            for path in OPERATIONS:  # the control: who comes by the socket does it
                answer = await web.admin.post(f"/v1/{path}")
                assert answer.status_code == 200, (path, answer.text)
            assert ended == [True]

    trio.run(main)


def test_the_operator_reads_what_everybody_reads_without_bounds():
    async def main() -> None:
        async with open_web() as web:
            for _ in range(300):
                assert (await web.admin.get("/v1/status")).status_code == 200
            paths = (await web.admin.get("/openapi.json")).json()["paths"]
            public = (await web.http.get("/openapi.json")).json()["paths"]
            assert {path.split("?")[0] for path in paths if path not in public} == {
                "/v1/data/{cid}/pin", "/v1/data/{cid}/unpin", "/v1/content", "/v1/content/collect",
                "/v1/node/log-level", "/v1/node/stop",
            }  # fmt: skip

    trio.run(main)


def test_a_level_that_there_is_not_is_a_problem(ended):
    async def main() -> None:
        async with open_web() as web:
            bad = await web.admin.post("/v1/node/log-level?level=loud")
            assert is_problem(bad, 422, "malformed") and "debug" in bad.json()["hint"]

    trio.run(main)


def test_only_the_owner_can_open_the_socket_and_it_goes_with_the_node():
    async def main() -> None:
        async with open_web() as web:
            await web.admin.get("/healthz")
            assert stat.S_IMODE(web.socket.stat().st_mode) == 0o600
            path = web.socket
        assert not path.exists()

    trio.run(main)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o600, 0o666], ids=["as made", "control: open to all"])
def test_another_user_cannot_connect(folder, mode):
    folder.chmod(0o755)
    with unix_listener(folder / "admin.sock"):
        (folder / "admin.sock").chmod(mode)
        child = os.fork()
        if not child:  # in the child: become nobody, and try
            os.setresuid(65_534, 65_534, 65_534)
            try:
                socket.socket(socket.AF_UNIX).connect(str(folder / "admin.sock"))
            except PermissionError:
                os._exit(13)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (13 if mode == 0o600 else 0)


def test_what_a_killed_node_left_is_replaced_and_nothing_else(folder):
    path = folder / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with unix_listener(path):
        with pytest.raises(ConfigError, match="another process listens"), unix_listener(path):
            pass
        assert path.is_socket()
    path.write_text("a file of the operator's")
    with pytest.raises(ConfigError, match="a file already"), unix_listener(path):
        pass
    assert path.read_text() == "a file of the operator's"


def test_a_home_where_there_can_be_no_socket_does_not_stop_a_node_but_a_named_one_does(folder):
    home = folder / ("x" * 120)
    home.mkdir()

    async def serve(path: Path) -> None:
        with trio.fail_after(5):
            await serve_admin(None, path, home, trio.Event())  # type: ignore[arg-type]

    trio.run(serve, home / "admin.sock")
    with pytest.raises(ConfigError, match="too long"):
        trio.run(serve, home / "mine.sock")
