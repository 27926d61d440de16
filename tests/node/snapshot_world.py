"""Peers that serve the snapshot of one chain, each perhaps in its own way, and a new node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import trio
from factories import GrowingChain, make_key
from msgspec.structs import replace

from mlchain import codec
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.snapshot import Chunk, StateRow
from mlchain.ledger.store import Store
from mlchain.node import statesync
from mlchain.node.catchup import start_from_snapshot
from mlchain.node.main import first_cause
from mlchain.node.snapshots import SnapshotFolder
from mlchain.node.upkeep import Upkeep
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import PeerAddress

Handler = Callable[[bytes, bytes], Awaitable[bytes]]

ROLES = {name: make_key(name + "/peer").public for name in ("new", "a", "b", "c")}


class World:
    """Peers that serve one chain's snapshot, each perhaps in its own way; and one new node."""

    def __init__(self, chain: GrowingChain, folder) -> None:
        self.chain, self.folder, self.hub = chain, folder, Hub()
        self.kv = MemoryKeyValue()
        self.spoil: dict[str, Callable[[bytes], bytes]] = {}
        self.served: dict[str, list[int]] = {}
        self.names = ["a", "b", "c"]
        self.stores: dict[str, Store] = {}
        """Who serves another store than the chain's own."""
        self.handlers: dict[str, dict[str, Handler]] = {}
        """Who answers a protocol in a way of its own."""
        self.most: int | None = None
        """So many chunks are served, and no more before `go` is set; None: all."""
        self.go = trio.Event()

    def transport(self, name: str) -> MemoryTransport:
        others = {
            key: PeerAddress("127.0.0.1", 1, "observer", n) for n, key in ROLES.items() if n != name
        }
        return MemoryTransport(self.hub, ROLES[name], others, "observer")

    def serve(self, name: str) -> MemoryTransport:
        transport = self.transport(name)
        folder = SnapshotFolder(self.folder / name)
        store = self.stores.get(name, self.chain.store)
        upkeep = Upkeep(store, MemoryKeyValue(), transport, folder, 1, 0)
        upkeep._snapshots.take(store.moment())
        protocol = "/mlchain/snapshot-chunk/1"
        honest = transport.services[protocol].handler

        async def handler(peer: bytes, payload: bytes) -> bytes:
            index = codec.decode(statesync.ChunkQuestion, payload).index
            if self.most is not None and sum(map(len, self.served.values())) >= self.most:
                await self.go.wait()
            self.served.setdefault(name, []).append(index)
            return self.spoil.get(name, lambda data: data)(await honest(peer, payload))

        transport.serve(protocol, handler)
        for protocol, other in self.handlers.get(name, {}).items():
            transport.serve(protocol, other)
        return transport

    def start(self, **how) -> bool:
        """Run the new node's state sync to its end."""

        async def main() -> bool:
            async with AsyncExitStack() as stack:
                for name in self.names:
                    await stack.enter_async_context(self.serve(name).run())
                how.setdefault("is_needed", True)
                with trio.fail_after(60):
                    return await start_from_snapshot(
                        self.kv, self.chain.genesis, self.transport("new"),
                        self.folder / "new", **how,
                    )  # fmt: skip

        try:
            return trio.run(main)
        except BaseExceptionGroup as group:
            raise first_cause(group) from None

    def open(self) -> Store:
        return Store.create_or_open(self.kv, self.chain.genesis, self.forbidden)

    def forbidden(self, state) -> None:
        raise AssertionError("the state comes from the snapshot")


def forge(data: bytes) -> bytes:
    """A chunk in which every value is another."""
    chunk = codec.decode(Chunk, data)
    return codec.encode(replace(chunk, rows=tuple(StateRow(r.key, b"mine") for r in chunk.rows)))
