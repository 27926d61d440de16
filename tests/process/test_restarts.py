"""Parts of a cluster die in the middle of their work: jobs settle, and nobody is slashed."""

import os
import signal
from pathlib import Path

import pytest
import trio
from factories import make_chain
from harness import key, make_genesis
from msgspec.structs import replace
from restartable import Nodes, nodes

from mlchain.errors import Unreachable
from mlchain.ledger.block import header_id
from mlchain.node import examiner as examiner_module
from mlchain.node.artifacts import CHUNK_PROTOCOL
from mlchain.vm.families.accounts import Transfer, get_account
from mlchain.vm.families.jobs import JobState, SegmentState
from mlchain.vm.families.members import FAULTS

LIMIT_S = 900
pytestmark = pytest.mark.timeout(LIMIT_S + 60)


def play(scenario, *args) -> None:
    async def bounded() -> None:
        with trio.fail_after(LIMIT_S):
            await scenario(*args)

    trio.run(bounded)


def make_hasty_genesis(validators: int, workers: int, **params: int):
    """Segments are taken away after a few seconds."""
    genesis = make_genesis(validators, workers)
    params = {"segment_timeout_ms": 10_000, **params}
    return replace(genesis, params=replace(genesis.params, **params))


def busy(cluster: Nodes, chunks: int = 2) -> str:
    """The worker that has done some chunks of a segment, "" if none has."""
    for name, node in cluster.nodes.items():
        if node.worker and any(done >= chunks for done in node.worker.progress.values()):
            return name
    return ""


def agree(cluster: Nodes) -> None:
    """All nodes have the same block at the lowest of their heights."""
    height = min(node.chain.height for node in cluster.nodes.values())
    ids = {header_id(node.chain.store.header(height)) for node in cluster.nodes.values()}
    assert len(ids) == 1


def cluster_faults(cluster: Nodes) -> list:
    return [fault for _, fault in FAULTS.items(cluster.view().chain.state())]


async def settled(cluster: Nodes, job_id: bytes) -> None:
    await cluster.until(
        lambda: (job := cluster.job(job_id)) and job.state > JobState.RUNNING, "the job's end"
    )
    assert cluster.job(job_id).state == JobState.SETTLED


def test_a_worker_that_dies_in_a_segment_is_replaced(tmp_path: Path):
    async def scenario():
        genesis = make_hasty_genesis(4, 2)
        async with nodes(tmp_path, 4, 2, genesis=genesis) as cluster:
            job_id = await cluster.submit_digits(steps=200, chunk=4, segment=25)
            await cluster.until(lambda: busy(cluster), "a worker at work")
            victim = busy(cluster)
            await cluster.kill(victim)
            await settled(cluster, job_id)
            job = cluster.job(job_id)
            assert key(victim).public in job.excluded
            assert cluster_faults(cluster) == []

    play(scenario)


def test_the_only_worker_dies_in_a_segment_and_comes_back(tmp_path: Path):
    async def scenario():
        async with nodes(tmp_path, 4, 1) as cluster:
            job_id = await cluster.submit_digits(steps=200, chunk=4, segment=25)
            await cluster.until(lambda: busy(cluster, 3), "a worker at work")
            await cluster.kill("worker-0")
            await cluster.start("worker-0")
            await settled(cluster, job_id)
            assert cluster_faults(cluster) == []
            assert cluster.job(job_id).attempts == 0, "in time: nothing was taken away"

    play(scenario)


def test_the_ml_processes_of_auditors_and_workers_die_again_and_again(tmp_path: Path):
    async def scenario():
        async with nodes(tmp_path, 4, 1) as cluster:
            job_id = await cluster.submit_digits(steps=240, chunk=4, segment=20)
            killed = 0
            for _ in range(6):
                await trio.sleep(0.4)
                for node in cluster.nodes.values():
                    for part in (node.auditor, node.worker):
                        if part and part.compute.pid and killed < 12:
                            os.kill(part.compute.pid, signal.SIGKILL)
                            killed += 1
            assert killed
            await settled(cluster, job_id)
            assert cluster_faults(cluster) == []

    play(scenario)


def test_a_validator_restarted_in_a_dispute_votes_on(tmp_path: Path):
    async def scenario():
        misbehaviour = {"worker-0": "skip:0.2", "worker-1": "skip:0.2"}
        genesis = make_hasty_genesis(4, 3, segment_timeout_ms=60_000)
        async with nodes(tmp_path, 4, 3, misbehaviour, genesis) as cluster:
            job_id = await cluster.submit_digits(steps=200, chunk=4, segment=25)

            def disputed() -> bool:
                states = [segment.state for segment in cluster.segments(job_id)]
                return SegmentState.DISPUTED in states

            def is_over() -> bool:
                return any(fault.kind == "forged" for fault in cluster_faults(cluster))

            await cluster.until(lambda: disputed() or is_over(), "a dispute")
            for name in ("validator-1", "validator-2"):
                await cluster.kill(name)
                await cluster.start(name)
            await settled(cluster, job_id)
            kinds = {fault.kind for fault in cluster_faults(cluster)}
            assert kinds == {"forged"}, "the forger is punished, and nobody else"
            agree(cluster)

    play(scenario)


class Deaf:
    """A validator to which no chunk state gets through until it has complained on chain."""

    def __init__(self, cluster: Nodes, name: str, job_id: bytes) -> None:
        transport = cluster.nodes[name].transport
        self._request, transport.request = transport.request, self.request
        self._cluster, self._job_id = cluster, job_id
        self.has_complained = False

    async def request(self, peer, protocol, payload, max_bytes, timeout_s):
        found = self._cluster.segments(self._job_id)
        self.has_complained |= any(segment.claim is not None for segment in found)
        if protocol == CHUNK_PROTOCOL and not self.has_complained:
            raise Unreachable("the line is bad")
        return await self._request(peer, protocol, payload, max_bytes, timeout_s)


def test_whose_accusation_was_rejected_examines_anew_and_attests(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(examiner_module, "SERVE_PATIENCE_S", 2.0)

    async def scenario():
        async with nodes(tmp_path, 3, 1) as cluster:  # of three, all must attest
            job_id = await cluster.submit_digits(steps=40, chunk=4, segment=10)
            deaf = Deaf(cluster, "validator-1", job_id)
            await settled(cluster, job_id)
            (segment,) = cluster.segments(job_id)
            assert deaf.has_complained and segment.cleared
            assert cluster_faults(cluster) == [], "not to be served is no lie"
            sent = get_account(cluster.view().chain.state(), key("validator-1").public).nonce
            assert sent <= 3, "an accusation is not repeated for ever"

    play(scenario)


BLOCKS = 520


def test_a_node_without_anything_catches_up_from_genesis_while_the_chain_runs(tmp_path: Path):
    old = make_chain(1, 1)
    for _ in range(BLOCKS):
        old.send(Transfer(bytes(32), 1))
        old.grow()
    (tmp_path / "validator-0" / "wal").mkdir(parents=True)
    (tmp_path / "validator-0" / "wal" / "last-sign").touch()

    async def scenario():
        cluster = Nodes(old.genesis, tmp_path, {})
        cluster.homes["validator-0"] = (old.store._kv, cluster.homes["validator-0"][1])
        async with trio.open_nursery() as cluster._nursery:
            await cluster.start("validator-0")
            assert cluster.view().chain.height >= BLOCKS
            await cluster.start("worker-0")

            async def traffic():
                while True:
                    await cluster.send(Transfer(bytes(32), 1))
                    await trio.sleep(0.05)

            cluster._nursery.start_soon(traffic)
            worker = cluster.nodes["worker-0"].chain
            await cluster.until(lambda: worker.height > BLOCKS + 10, "catching up")
            agree(cluster)
            cluster._nursery.cancel_scope.cancel()

    play(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("misbehaviour", [{}, {"worker-0": "skip:0.1"}, {"validator-1": "lie"}])
@pytest.mark.parametrize("number", range(10))
def test_many_clusters_settle_their_job(tmp_path: Path, misbehaviour, number):
    async def scenario():
        async with nodes(tmp_path, 4, 2, misbehaviour) as cluster:
            await settled(cluster, await cluster.submit_digits())

    play(scenario)
