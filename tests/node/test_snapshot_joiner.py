"""A validator joins a running network by a snapshot, among a liar and across a stop, and votes.

The control of the liar is in test_statesync.py: chunks without their proof poison the state.
"""

from __future__ import annotations

from pathlib import Path

import trio
from msgspec.structs import replace
from node.harness import PARAMS, Cluster, key, make_genesis, run_cluster, until, voters
from node.snapshot_world import forge

from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.merkle import CHUNKS
from mlchain.node.catchup import start_from_snapshot
from mlchain.node.fetching import Fetching
from mlchain.node.machine import Storage
from mlchain.node.membership import Keys
from mlchain.node.node import Node
from mlchain.node.snapshots import CHUNK_PROTOCOL, SnapshotFolder
from mlchain.node.upkeep import Upkeep
from mlchain.p2p.memory import MemoryTransport
from mlchain.p2p.transport import PeerAddress

JOINER, LIAR, OTHER = "validator-3", "validator-0", "validator-1"
GENESIS = replace(make_genesis(4, 0), params=replace(PARAMS, heartbeat_ms=50))


async def serve_snapshots(cluster: Cluster, folder: Path) -> int:
    """Let all who run serve snapshots of one height, the liar a forged one; return the height."""
    nodes = cluster.nodes
    await until(lambda: len({n.chain.height for n in nodes.values()}) == 1 < height_of(cluster))
    moments = {name: node.chain.store.moment() for name, node in nodes.items()}
    for name, moment in moments.items():
        store, transport = nodes[name].chain.store, nodes[name].transport
        files = SnapshotFolder(folder / name)
        upkeep = Upkeep(store, MemoryKeyValue(), transport, files, 10**6, 0)
        await trio.to_thread.run_sync(upkeep._snapshots.take, moment)
    honest = nodes[LIAR].transport.services[CHUNK_PROTOCOL].handler

    async def lie(peer: bytes, payload: bytes) -> bytes:
        return forge(await honest(peer, payload))

    nodes[LIAR].transport.serve(CHUNK_PROTOCOL, lie)
    return moments[LIAR].header.height


def height_of(cluster: Cluster) -> int:
    return cluster.nodes[LIAR].chain.height


def make_transport(cluster: Cluster) -> MemoryTransport:
    own = key(JOINER + "/peer").public
    peers = {
        m.peer: PeerAddress(m.host, m.port, m.role, m.name)
        for m in cluster.genesis.members
        if m.peer != own
    }
    return MemoryTransport(cluster.nodes[LIAR].transport.hub, own, peers, "validator")


def test_it_refuses_wrong_chunks_goes_on_after_a_stop_follows_the_blocks_since_and_votes(tmp_path):
    kv, home = MemoryKeyValue(), tmp_path / "home"
    for part in ("wal", "spool"):
        (home / part).mkdir(parents=True)

    async def fetch(cluster: Cluster, progress: Fetching) -> None:
        await start_from_snapshot(
            kv, cluster.genesis, make_transport(cluster), home / "snapshots", is_needed=True,
            last_sign=home / "wal" / "last-sign", progress=progress,
        )  # fmt: skip

    async def main() -> None:
        async with run_cluster(tmp_path, genesis=GENESIS, absent=(JOINER,)) as cluster:
            at = await serve_snapshots(cluster, tmp_path / "served")
            first = cluster.nodes[OTHER]

            progress = Fetching()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch, cluster, progress)
                await until(lambda: progress.chunks >= CHUNKS // 4)
                nursery.cancel_scope.cancel()
            assert list(progress.liars) == [key(LIAR + "/peer").public]
            here = len(list((home / "snapshots" / str(at)).iterdir()))
            assert CHUNKS // 4 <= here < CHUNKS and dict(kv.items()) == {}

            progress = Fetching()
            await fetch(cluster, progress)
            assert sum(progress.by_peer.values()) == CHUNKS - here, (
                "what was here was not asked for"
            )
            assert list(progress.liars) == [key(LIAR + "/peer").public], "found again"

            await until(lambda: first.chain.height > at + 5)
            storage = Storage(kv, MemoryKeyValue(), home / "wal", home / "spool")
            keys = Keys(key(JOINER + "/peer"), key(JOINER), None)
            node = Node(cluster.genesis, keys, storage, make_transport(cluster))
            assert node.chain.height == at and node.chain.store.kept == at + 1
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                await until(lambda: key(JOINER).public in voters(first))
                height = first.chain.height
                await until(lambda: node.chain.height >= height)
                assert node.chain.store.header(height) == first.chain.store.header(height)
                nursery.cancel_scope.cancel()
            node.agreement.close()

    trio.run(main)
