"""A worker that serves all validators but one gains nothing: the others ask on its behalf."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from node.harness import Cluster, key, run_cluster

from mlchain.errors import NotFound
from mlchain.node import examiner
from mlchain.node.artifacts import CHUNK_PROTOCOL
from mlchain.vm.families.jobs import SEGMENTS, fixed_seed

SHUNNED = "validator-2"


def shun(cluster: Cluster) -> None:
    """Make the worker tell one validator that it has nothing."""
    worker = cluster.nodes["worker-0"]
    shunned = cluster.nodes[SHUNNED].keys.peer.public

    async def serve(peer: bytes, payload: bytes) -> bytes:
        if peer == shunned:
            raise NotFound("not for you")
        return await worker.artifacts.serve_chunk(peer, payload)

    worker.transport.serve(CHUNK_PROTOCOL, serve)


def run_job(folder: Path, relays: bool) -> tuple[list[bytes], tuple[int, ...]]:
    """Return who attested the first segment, and the chunks that were disputed in vain."""

    async def main() -> tuple[list[bytes], tuple[int, ...]]:
        async with run_cluster(folder, validators=4, workers=1) as cluster:
            shun(cluster)
            if not relays:
                for node in cluster.nodes.values():
                    node.artifacts.worker_of = lambda request: None
            job = await cluster.submit_digits(steps=40, chunk=4, segment=10, seed=fixed_seed(5))
            state = cluster.nodes["validator-0"].chain.state
            with trio.fail_after(120):
                while True:
                    segment = SEGMENTS.get(state(), job, 0)
                    attested = [a.validator for a in segment.attestations] if segment else []
                    if segment and (len(attested) == 4 or segment.cleared):
                        return attested, segment.cleared
                    await trio.sleep(0.02)

    return trio.run(main)


def test_the_shunned_validator_re_runs_its_slice_all_the_same(tmp_path: Path) -> None:
    attested, disputed = run_job(tmp_path, relays=True)
    assert key(SHUNNED).public in attested and disputed == ()


def test_control_without_relays_it_can_only_complain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examiner, "SERVE_PATIENCE_S", 1.0)
    attested, disputed = run_job(tmp_path, relays=False)
    assert key(SHUNNED).public not in attested and disputed
