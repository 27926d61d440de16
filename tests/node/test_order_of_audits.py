"""Nothing leaves a validator about a segment before the block of its commit is final here."""

from __future__ import annotations

from pathlib import Path

import trio
from node.harness import Cluster, run_cluster

from mlchain import codec
from mlchain.consensus.work.commitment import SegmentCommit
from mlchain.ledger.transaction import Opened
from mlchain.node.artifacts import Artifacts, ChunkRequest
from mlchain.node.node import Node
from mlchain.vm.families.jobs import SEGMENTS, fixed_seed
from mlchain.vm.families.segments import CommitSegment


def commit_known_to(node: Node, request: ChunkRequest) -> SegmentCommit | None:
    """Return the commit that the requester's own final state holds for what it asks."""
    segment = SEGMENTS.get(node.chain.state(), request.job, request.segment)
    return segment.commit if segment and segment.attempt == request.attempt else None


def watch_requests(cluster: Cluster) -> list[bool]:
    """Note for every chunk that is asked for whether the asker's state holds its commit."""
    by_peer = {node.keys.peer.public: node for node in cluster.nodes.values()}
    is_final: list[bool] = []
    for node in cluster.nodes.values():
        artifacts: Artifacts = node.artifacts
        serve = artifacts.serve_chunk

        async def watched(peer: bytes, payload: bytes, serve=serve) -> bytes:  # type: ignore[no-untyped-def]
            request = codec.decode(ChunkRequest, payload)
            is_final.append(commit_known_to(by_peer[peer], request) is not None)
            return await serve(peer, payload)

        node.transport.serve("/mlchain/chunk-state/1", watched)
    return is_final


def run_watched(folder: Path, early: bool) -> list[bool]:
    async def main() -> list[bool]:
        async with run_cluster(folder, validators=4, workers=1) as cluster:
            is_final = watch_requests(cluster)
            if early:
                ask_early(cluster)
            job = await cluster.submit_digits(steps=40, chunk=4, segment=5, seed=fixed_seed(3))
            await cluster.settled(job, 120)
            return is_final

    return trio.run(main)


def ask_early(cluster: Cluster) -> None:
    """Make one validator ask for a chunk as soon as the commit is in its mempool."""
    node = cluster.nodes["validator-1"]
    add = node.chain.add_transaction

    def add_and_ask(data: bytes, *opened: Opened) -> bool:
        added = add(data, *opened)
        payload = node.chain.mempool.open(data).transaction.body
        if added and payload.kind == CommitSegment.KIND:
            commit = codec.decode(CommitSegment, payload.payload).commit
            trio.lowlevel.spawn_system_task(ask, commit)
        return added

    async def ask(commit: SegmentCommit) -> None:
        request = ChunkRequest(commit.job, commit.segment, commit.attempt, 0)
        worker = cluster.nodes["worker-0"].keys.peer.public
        await node.transport.request(
            worker, "/mlchain/chunk-state/1", codec.encode(request), 1 << 20, 5
        )

    node.chain.add_transaction = add_and_ask  # type: ignore[method-assign]


def test_no_chunk_is_asked_for_before_its_commit_is_final(tmp_path: Path) -> None:
    is_final = run_watched(tmp_path, early=False)
    assert is_final and all(is_final)


def test_control_a_validator_that_asks_early_is_seen(tmp_path: Path) -> None:
    assert not all(run_watched(tmp_path, early=True))
