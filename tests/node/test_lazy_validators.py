"""In a whole cluster: a validator that attests without re-running is found, the others are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from node.harness import BOND, Cluster, key, make_genesis, run_cluster

from mlchain.ledger.genesis import Genesis
from mlchain.vm.families.members import VALIDATORS
from mlchain.vm.initial import compute_supply

LAZY = "validator-3"
QUICK = {"attest_window": 60, "custody_window": 400, "audit_permille": 500}
"""So that keys are public soon, and every other chunk is looked at."""


def genesis(**changes: int) -> Genesis:
    made = make_genesis(4, 1)
    return replace(made, params=replace(made.params, **{**QUICK, **changes}))


async def outlive(cluster: Cluster, height: int) -> None:
    chain = cluster.nodes["validator-0"].chain
    while chain.height < height and not cluster.faults():
        await trio.sleep(0.05)


def audited(cluster: Cluster) -> int:
    """How many digests of others the nodes looked at."""
    custodians = [node.auditor.custodian for node in cluster.nodes.values() if node.auditor]
    return sum(custodian.audited for custodian in custodians if custodian)


def run(folder: Path, misbehaviour: dict[str, str], **changes: int) -> Cluster:
    """Run a job, and on until the audits of it are over."""

    async def main() -> Cluster:
        made = genesis(**{"heartbeat_ms": 50, **changes})
        async with run_cluster(folder, 4, 1, misbehaviour, made) as cluster:
            with trio.fail_after(900):
                job = await cluster.submit_digits(steps=40, chunk=4, segment=10)
                await cluster.settled(job, 600)
                params = made.params
                end = cluster.nodes[LAZY].chain.height + params.attest_window + 40
                await outlive(cluster, end)
            return cluster

    return trio.run(main)


@pytest.mark.slow
def test_a_lazy_validator_is_found_slashed_and_removed_and_nobody_else_is(tmp_path: Path) -> None:
    cluster = run(tmp_path, {LAZY: "lazy"})
    (fault,) = cluster.faults()
    assert (fault.offender, fault.kind) == (key(LAZY).public, "wrong-digest")
    state = cluster.nodes["validator-0"].chain.state()  # whose faults these are
    record = VALIDATORS.get(state, key(LAZY).public)
    assert record is not None and record.jailed_height and record.bond == BOND - fault.slashed
    total = sum(a.amount for a in cluster.genesis.allocations)
    assert compute_supply(state) == total + sum(m.bond for m in cluster.genesis.members)


@pytest.mark.slow
def test_control_without_audits_it_is_paid_like_the_others_and_never_found(tmp_path: Path) -> None:
    cluster = run(tmp_path, {LAZY: "lazy"}, audit_permille=0)
    assert cluster.faults() == []
    assert audited(cluster) == 0


@pytest.mark.slow
def test_honest_validators_audit_each_other_and_find_nothing(tmp_path: Path) -> None:
    cluster = run(tmp_path, {})
    assert cluster.faults() == []
    assert audited(cluster) > 0
