"""Whole clusters in one process: every part of a node but the wire is the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from node.harness import BOND, Cluster, key, run_cluster

from mlchain.ledger.state import State
from mlchain.node.node import Node
from mlchain.node.spread import HEADS_TOPIC
from mlchain.vm.families.jobs import JobState, fixed_seed
from mlchain.vm.families.members import VALIDATORS, WORKERS
from mlchain.vm.families.models import MODELS
from mlchain.vm.initial import compute_supply

SEED = fixed_seed(7)
PATIENCE_S = 120


def settle(folder: Path, **cluster: object) -> tuple[Cluster, bytes]:
    """Run a job on a cluster until every node has settled it."""

    async def main() -> tuple[Cluster, bytes]:
        async with run_cluster(folder, **cluster) as running:  # type: ignore[arg-type]
            job = await running.submit_digits(steps=160, chunk=4, segment=10, seed=SEED)
            record = await running.settled(job, PATIENCE_S)
            assert record.state == JobState.SETTLED
            await agree(running)
            return running, job

    return trio.run(main)


async def agree(cluster: Cluster) -> None:
    """Wait until all nodes stand at one height, and check that it is one state."""
    nodes = list(cluster.nodes.values())
    with trio.fail_after(PATIENCE_S):
        while len({node.chain.store.head_id for node in nodes}) > 1:
            await trio.sleep(0.02)
    roots = {node.chain.state().root() for node in nodes}
    assert len(roots) == 1


def state_of(cluster: Cluster) -> State:
    node: Node = cluster.nodes["validator-0"]
    return node.chain.state()


def final_digest(cluster: Cluster, job: bytes) -> bytes:
    model = MODELS.get(state_of(cluster), job)
    assert model is not None
    return model.state


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cluster, bytes]:
    return settle(tmp_path_factory.mktemp("honest"))


def test_an_honest_cluster_settles_a_job_and_punishes_nobody(honest: tuple[Cluster, bytes]) -> None:
    cluster, _ = honest
    assert cluster.faults() == []


def test_only_who_does_not_vote_is_told_of_blocks_by_gossip(honest: tuple[Cluster, bytes]) -> None:
    cluster, _ = honest
    for node in cluster.nodes.values():
        assert (HEADS_TOPIC in node.transport.topics) is (node.keys.validator is None)
        assert node.chain.height > 1, "and still all follow"


def test_supply_is_conserved_through_a_job(honest: tuple[Cluster, bytes]) -> None:
    cluster, _ = honest
    genesis = cluster.genesis
    total = sum(a.amount for a in genesis.allocations) + sum(m.bond for m in genesis.members)
    assert compute_supply(state_of(cluster)) == total


def test_a_worker_that_skips_chunks_is_slashed_and_the_honest_model_comes_out(
    honest: tuple[Cluster, bytes], tmp_path: Path
) -> None:
    cluster, job = settle(tmp_path, misbehaviour={"worker-0": "skip:0.2"})
    cheat = key("worker-0").public
    assert {(f.offender, f.kind) for f in cluster.faults()} == {(cheat, "forged")}
    record = WORKERS.get(state_of(cluster), cheat)
    assert record is not None and record.jailed_height and record.bond < BOND
    assert final_digest(cluster, job) == final_digest(*honest)


def test_without_audits_the_same_worker_gets_away_with_it(
    honest: tuple[Cluster, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: validators that attest without re-running let the forged model pass."""
    from mlchain.consensus.work.attestation import Outcome
    from mlchain.node.examiner import Examiner

    async def believe(*_: object) -> Outcome:
        return Outcome.EQUAL

    monkeypatch.setattr(Examiner, "_replay", believe)
    cluster, job = settle(tmp_path, misbehaviour={"worker-0": "skip:0.2"})
    assert cluster.faults() == []
    assert final_digest(cluster, job) != final_digest(*honest)


def test_a_validator_that_lies_is_slashed_and_removed_and_the_chain_goes_on(
    honest: tuple[Cluster, bytes], tmp_path: Path
) -> None:
    cluster, job = settle(tmp_path, misbehaviour={"validator-1": "lie"})
    liar = key("validator-1").public
    kinds = {f.kind for f in cluster.faults()}
    assert {f.offender for f in cluster.faults()} == {liar}
    assert "false-accusation" in kinds
    record = VALIDATORS.get(state_of(cluster), liar)
    assert record is not None and record.bond < BOND
    assert final_digest(cluster, job) == final_digest(*honest)


def test_one_validator_and_one_worker_are_a_chain(tmp_path: Path) -> None:
    cluster, _ = settle(tmp_path, validators=1, workers=1)
    assert cluster.faults() == []
