"""A cluster in one process whose nodes are stopped and started again over what they stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from harness import Cluster, key, make_genesis

from mlchain.ledger.genesis import Genesis
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.node.machine import Storage
from mlchain.node.membership import Keys
from mlchain.node.node import Node
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import PeerAddress
from mlchain.vm.families.jobs import JOBS, SEGMENTS, Job, Segment

PATIENCE_S = 600
"""How long a test waits for what must happen; says nothing about how fast it is."""


class Nodes(Cluster):
    """The nodes that run now, by name; `homes` keeps what those that do not have stored."""

    def __init__(self, genesis: Genesis, folder: Path, misbehaviour: dict[str, str]) -> None:
        super().__init__(genesis, {}, key("alice"))
        self.folder, self.misbehaviour = folder, misbehaviour
        self.homes = {m.name: (MemoryKeyValue(), MemoryKeyValue()) for m in genesis.members}
        self._hub = Hub()
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[str, trio.CancelScope] = {}
        self._ended: dict[str, trio.Event] = {}

    async def start(self, name: str) -> None:
        """Open a node over what it stored, and run it."""
        member = next(m for m in self.genesis.members if m.name == name)
        peers = {
            m.peer: PeerAddress(m.host, m.port, m.role, m.name)
            for m in self.genesis.members
            if m.peer != member.peer
        }
        own = key(name)
        is_validator = member.role == "validator"
        keys = Keys(
            key(name + "/peer"), own if is_validator else None, None if is_validator else own
        )
        home = self.folder / name
        storage = Storage(*self.homes[name], home / "wal", home / "spool")
        transport = MemoryTransport(self._hub, member.peer, peers, member.role)
        misbehaviour = self.misbehaviour.get(name, "")
        node = Node(self.genesis, keys, storage, transport, misbehaviour)
        assert self._nursery is not None
        await self._nursery.start(self._run, name, node)

    async def _run(self, name: str, node: Node, task_status: trio.TaskStatus) -> None:
        self._ended[name] = trio.Event()
        try:
            with trio.CancelScope() as self._scopes[name]:
                self.nodes[name] = node
                await node.run(task_status)
        finally:
            self.nodes.pop(name, None)
            self._ended[name].set()

    async def kill(self, name: str) -> None:
        """Stop a node in the middle of whatever it does."""
        self._scopes[name].cancel()
        await self._ended[name].wait()

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        with trio.move_on_after(PATIENCE_S):
            while not condition():
                await trio.sleep(0.01)
            return
        raise AssertionError(f"never came true: {what}")

    def view(self) -> Node:
        """Some validator that runs."""
        return next(node for node in self.nodes.values() if node.keys.validator)

    def job(self, job_id: bytes) -> Job | None:
        return JOBS.get(self.view().chain.state(), job_id)

    def segments(self, job_id: bytes) -> list[Segment]:
        job = self.job(job_id)
        found = [
            SEGMENTS.get(self.view().chain.state(), job_id, index)
            for index in range(job.assigned if job else 0)
        ]
        return [segment for segment in found if segment is not None]


@asynccontextmanager
async def nodes(
    folder: Path,
    validators: int,
    workers: int,
    misbehaviour: dict[str, str] | None = None,
    genesis: Genesis | None = None,
) -> AsyncIterator[Nodes]:
    """A cluster of running nodes."""
    cluster = Nodes(genesis or make_genesis(validators, workers), folder, misbehaviour or {})
    async with trio.open_nursery() as nursery:
        cluster._nursery = nursery
        for name in cluster.homes:
            await cluster.start(name)
        yield cluster
        nursery.cancel_scope.cancel()
