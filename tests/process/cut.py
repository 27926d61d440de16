"""Wires between processes on this machine that can be cut: a relay before each node's peer port.

A cut wire holds what is on its way, as a network does that loses packets: TCP on both ends waits
and repeats. Who has dialled is read from /proc: the relay sees an address, and needs to know
which node it is.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

HOST = "127.0.0.1"
PIECE = 1 << 16


class Wires:
    """Relays for the nodes in `ports` (name -> port the others dial, port it listens at)."""

    def __init__(
        self, ports: dict[str, tuple[int, int]], pids: Callable[[], dict[str, int]]
    ) -> None:
        self._ports, self._pids = ports, pids
        self._cuts: set[frozenset[str]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Wires:
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed, self._stop = asyncio.Event(), asyncio.Event()
        servers = [await self._listen(name) for name in self._ports]
        self._ready.set()
        await self._stop.wait()
        for server in servers:
            server.close()

    def cut(self, ones: Iterable[str], others: Iterable[str]) -> None:
        """Cut every wire between a node of `ones` and a node of `others`."""
        others = list(others)
        pairs = {frozenset((one, other)) for one in ones for other in others if one != other}
        self._set(self._cuts | pairs)

    def heal(self) -> None:
        """Mend all wires."""
        self._set(set())

    def _set(self, cuts: set[frozenset[str]]) -> None:
        def change() -> None:
            self._cuts = cuts
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

        self._loop.call_soon_threadsafe(change)

    async def _listen(self, name: str) -> asyncio.Server:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._relay(name, reader, writer)

        return await asyncio.start_server(serve, HOST, self._ports[name][0])

    async def _relay(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        port = writer.get_extra_info("peername")[1]
        dialler = dialled_by(port, self._pids())
        pair = frozenset((dialler, name))
        ends = [writer]
        try:
            await self._whole(pair)
            there, back = await asyncio.open_connection(HOST, self._ports[name][1])
            ends.append(back)
            ways = [self._pump(pair, reader, back), self._pump(pair, there, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
        except OSError:
            return  # the node is gone
        finally:
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, pair: frozenset[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(PIECE):
                await self._whole(pair)
                writer.write(data)
                await writer.drain()
        except OSError:
            return

    async def _whole(self, pair: frozenset[str]) -> None:
        while pair in self._cuts:
            await self._changed.wait()


def dialled_by(port: int, pids: dict[str, int]) -> str:
    """Return which process has the local end of a connection; "" if none of `pids`."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        field = line.split()
        if int(field[1].split(":")[1], 16) == port and field[9] != "0":
            socket = f"socket:[{field[9]}]"
            for name, pid in pids.items():
                if socket in _descriptors(pid):
                    return name
    return ""


def _descriptors(pid: int) -> set[str]:
    found = set()
    folder = f"/proc/{pid}/fd"
    try:
        for number in os.listdir(folder):
            found.add(os.readlink(f"{folder}/{number}"))
    except OSError:
        pass  # it has just ended
    return found
