"""Wires between processes on this machine that can be cut: a relay before each node's peer port.

A cut wire holds what is on its way, as a network does that loses packets: TCP on both ends waits
and repeats. Who has dialled is read from /proc, and only while a wire is cut: the relay sees an
address, and needs to know which node it is.
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
        self._diallers: dict[int, str] = {}
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
        wire = writer.get_extra_info("peername")[1], name
        ends = [writer]
        try:
            await self._whole(wire)
            there, back = await asyncio.open_connection(HOST, self._ports[name][1])
            ends.append(back)
            ways = [self._pump(wire, reader, back), self._pump(wire, there, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
        except (OSError, asyncio.CancelledError):
            return  # the node is gone, or the run is over
        finally:
            self._diallers.pop(wire[0], None)
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, wire: tuple[int, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(PIECE):
                await self._whole(wire)
                writer.write(data)
                await writer.drain()
        except OSError:
            return

    async def _whole(self, wire: tuple[int, str]) -> None:
        while self._cuts and self._is_cut(*wire):
            await self._changed.wait()

    def _is_cut(self, port: int, name: str) -> bool:
        if port not in self._diallers:
            self._diallers |= {port: "", **diallers(self._pids())}
        return frozenset((self._diallers[port], name)) in self._cuts


def diallers(pids: dict[str, int]) -> dict[int, str]:
    """Return which of these processes has the local end of which TCP connection, by its port."""
    owners = {socket: name for name, pid in pids.items() for socket in _descriptors(pid)}
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        field = line.split()
        if (socket := f"socket:[{field[9]}]") in owners:
            found[int(field[1].split(":")[1], 16)] = owners[socket]
    return found


def _descriptors(pid: int) -> set[str]:
    found = set()
    folder = f"/proc/{pid}/fd"
    try:
        for number in os.listdir(folder):
            found.add(os.readlink(f"{folder}/{number}"))
    except OSError:
        pass  # it has just ended
    return found
