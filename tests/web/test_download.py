"""A file from a real node's API over a bad wire: it goes on where it broke off, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path

import pytest
import trio
from web_harness import Web, open_web

from mlchain.client import download
from mlchain.client.client import Client
from mlchain.client.download import fetch_file
from mlchain.errors import ConfigError, Unreachable, VerificationFailed
from mlchain.ledger.unixfs import CHUNK_BYTES, LAYOUTS, cid_of, cid_text

FILE = shake_256(b"download").digest(9 * CHUNK_BYTES + 5)
SLACK = 64 << 10
"""Heads of answers, and the node above the leaves."""


@dataclass
class Wire:
    """A wire to a node: what may still come through it, and what has."""

    url: str = ""
    budget: int = 1 << 40
    passed: int = 0
    holds: bool = False
    """At the end of the budget it is silent; else it breaks."""
    mends: bool = False
    """It breaks once only."""
    spoil_at: int = -1
    """One bit of the byte with this number is another."""

    async def carry(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for data in source:
            data = data[: self.budget]
            place = self.spoil_at - self.passed
            if 0 <= place < len(data):
                data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            self.budget -= len(data)
            self.passed += len(data)
            await target.send_all(data)
            if not self.budget:
                break
        if not self.budget and self.holds:
            await trio.sleep_forever()
        if not self.budget and self.mends:
            self.budget = 1 << 40


@asynccontextmanager
async def wire_to(web: Web) -> AsyncIterator[Wire]:
    wire = Wire()

    async def connection(client: trio.SocketStream) -> None:
        async def ask() -> None:
            async for data in client:
                await node.send_all(data)
            nursery.cancel_scope.cancel()

        node = await trio.open_tcp_stream("127.0.0.1", web.port)
        try:
            async with client, node, trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await wire.carry(node, client)
                nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            pass  # the client was killed

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connection, 0)
        wire.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield wire
        nursery.cancel_scope.cancel()


def scenario(test: Callable[[Web, Wire, Path], Awaitable[None]]) -> Callable[[Path], None]:
    """Run a test with a node that has the file, and a wire to it."""

    def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async def main() -> None:
            with trio.fail_after(60):
                async with open_web() as web, wire_to(web) as wire:
                    web.node.content.put(FILE)
                    await test(web, wire, tmp_path / "rows.csv")

        monkeypatch.setattr(download, "PAUSE_S", 0.0)
        trio.run(main)

    run.__name__ = test.__name__
    return run


CID = cid_text(cid_of(FILE))


async def get(wire: Wire, target: Path, cid: str = CID) -> None:
    def fetch() -> None:
        with Client(wire.url) as client:
            fetch_file(client, cid, target)

    await trio.to_thread.run_sync(fetch)


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


@scenario
async def test_a_wire_that_breaks_once_is_not_noticed(web, wire, target):
    wire.budget, wire.mends = 3 * CHUNK_BYTES, True
    await get(wire, target)
    assert target.read_bytes() == FILE and not part_of(target).exists()
    assert wire.passed < len(FILE) + CHUNK_BYTES + SLACK, "at most the broken leaf came twice"


@scenario
async def test_after_a_failed_download_only_the_rest_comes(web, wire, target):
    wire.budget = 4 * CHUNK_BYTES
    with pytest.raises(Unreachable, match=r"\d+ bytes have come") as caught:
        await get(wire, target)
    assert "goes on from there" in caught.value.hint
    kept = part_of(target).stat().st_size
    assert not target.exists() and kept >= 3 * CHUNK_BYTES
    wire.budget, wire.passed = 1 << 40, 0
    await get(wire, target)
    assert target.read_bytes() == FILE and not part_of(target).exists()
    assert wire.passed < len(FILE) - kept + SLACK


@scenario
async def test_without_what_was_kept_everything_comes_again(web, wire, target):
    wire.budget = 4 * CHUNK_BYTES
    with pytest.raises(Unreachable):
        await get(wire, target)
    part_of(target).unlink()
    wire.budget, wire.passed = 1 << 40, 0
    await get(wire, target)
    assert wire.passed > len(FILE)


@scenario
async def test_after_kill_minus_nine_only_the_rest_comes(web, wire, target):
    wire.budget, wire.holds = 6 * CHUNK_BYTES, True
    command = [sys.executable, "-m", "mlchain", "data", "get", CID, "-o", str(target)]
    with subprocess.Popen(
        [*command, "--url", wire.url],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:  # fmt: skip
        try:
            while not part_of(target).exists() or part_of(target).stat().st_size < 3 * CHUNK_BYTES:
                await trio.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
    kept = part_of(target).stat().st_size
    wire.budget, wire.holds, wire.passed = 1 << 40, False, 0
    await get(wire, target)
    assert target.read_bytes() == FILE
    assert wire.passed < len(FILE) - kept + CHUNK_BYTES + SLACK


@scenario
async def test_what_a_crash_left_half_written_or_spoilt_is_found_and_fetched_again(
    web, wire, target
):
    for left in (FILE[: CHUNK_BYTES + 77], b"\0" * 3 * CHUNK_BYTES, FILE + b"more"):
        part_of(target).write_bytes(left)
        await get(wire, target)
        assert target.read_bytes() == FILE


@scenario
async def test_a_wrong_byte_ends_it_and_what_came_before_stays_for_another_node(web, wire, target):
    wire.spoil_at = 5 * CHUNK_BYTES
    with pytest.raises(VerificationFailed, match="sent other bytes"):
        await get(wire, target)
    kept = part_of(target).read_bytes()
    assert FILE.startswith(kept) and len(kept) in (3 * CHUNK_BYTES, 4 * CHUNK_BYTES)
    wire.spoil_at, wire.passed = -1, 0
    await get(wire, target)
    assert target.read_bytes() == FILE
    assert wire.passed < len(FILE) - len(kept) + SLACK


@scenario
async def test_without_the_comparison_the_wrong_byte_is_kept(web, wire, target):
    wire.spoil_at = 5 * CHUNK_BYTES
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "_is_named", lambda cid, block: bool(block))
        await get(wire, target)
    assert len(target.read_bytes()) == len(FILE) and target.read_bytes() != FILE


@scenario
async def test_two_processes_do_not_write_one_file(web, wire, target):
    with download._only_writer(part_of(target)) as file:
        file.write(FILE[:CHUNK_BYTES])
        file.flush()
        with pytest.raises(ConfigError, match="another process"):
            await get(wire, target)
    assert part_of(target).read_bytes() == FILE[:CHUNK_BYTES]
    await get(wire, target)


@scenario
async def test_a_pipe_gets_the_whole_file_and_a_folder_none(web, wire, target):
    os.mkfifo(target)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, wire, target)
        assert await trio.Path(target).read_bytes() == FILE
    with pytest.raises(ConfigError, match="a folder"):
        await get(wire, target.parent)


@scenario
async def test_small_files_and_other_profiles_come_too(web, wire, target):
    for data in (b"", b"small", FILE):
        for profile in LAYOUTS:
            web.node.content.put(data, profile)
            await get(wire, target, cid_text(cid_of(data, profile)))
            assert target.read_bytes() == data


@scenario
async def test_the_node_answers_ranges_and_blocks(web, wire, target):
    path = f"/v1/data/{CID}"
    whole = await web.http.get(path)
    assert whole.headers["accept-ranges"] == "bytes" and whole.content == FILE
    for start in (1, CHUNK_BYTES, CHUNK_BYTES + 1, len(FILE) - 1):
        rest = await web.http.get(path, headers={"range": f"bytes={start}-"})
        assert (rest.status_code, rest.content) == (206, FILE[start:])
        assert rest.headers["content-range"] == f"bytes {start}-{len(FILE) - 1}/{len(FILE)}"
    beyond = await web.http.get(path, headers={"range": f"bytes={len(FILE)}-"})
    assert beyond.status_code == 416 and beyond.json()["code"] == "range_not_satisfiable"
    assert beyond.headers["content-range"] == f"bytes */{len(FILE)}"
    for odd in ("bytes=1-2", "bytes=-5", "bytes=x-", "rows=1-", "bytes=0-1,5-"):
        assert (await web.http.get(path, headers={"range": odd})).content == FILE
    other = {"range": "bytes=9-", "if-range": '"another"'}
    assert (await web.http.get(path, headers=other)).status_code == 200
    root = (await web.http.get(f"{path}/block")).content
    assert len(root) < 1000 and cid_text(cid_of(root)) != CID
    assert (await web.http.get(f"/v1/data/{cid_text(cid_of(b'nowhere'))}/block")).status_code == 404
