"""Running nodes, of which a worker and a validator belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from node.harness import key, run_cluster, until
from node.test_membership import send

from mlchain.node.governance_view import describe_governance
from mlchain.vm.credits import get_work
from mlchain.vm.families.jobs import SEGMENTS, JobState
from mlchain.vm.families.operators import OPERATORS, ConfirmWorker, NameOperator
from mlchain.vm.families.submit import SubmitJob

OWN, WORKER = "validator-0", "worker-0"


def test_its_node_lets_others_attest_its_own_work_and_the_units_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def main() -> None:
        async with run_cluster(tmp_path, workers=1) as cluster:
            node, send_plain = cluster.nodes[OWN], cluster.send

            async def send_cheap(payload):
                is_job = isinstance(payload, SubmitJob)
                return await send_plain(replace(payload, tier="economic") if is_job else payload)

            monkeypatch.setattr(cluster, "send", send_cheap)
            await send(cluster, key(WORKER), NameOperator(key(OWN).public))
            await until(lambda: OPERATORS.get(node.chain.state(), key(WORKER).public))
            await send(cluster, key(OWN), ConfirmWorker(key(WORKER).public, True))
            await until(lambda: member(node, WORKER)["is_confirmed"])
            assert member(node, WORKER)["operator"] == OWN and member(node, OWN)["turns"] == 1
            job = await cluster.submit_digits(steps=48)
            assert (await cluster.settled(job)).state == JobState.SETTLED
            for _, segment in SEGMENTS.items(node.chain.state(), job):
                assert segment.operator == key(OWN).public and segment.attempt == 0
                attested = {attestation.validator for attestation in segment.attestations}
                assert attested == {key(f"validator-{i}").public for i in (1, 2, 3)}
            assert cluster.faults() == []
            units = get_work(node.chain.state(), 0)
            assert units.pop(key(OWN).public) > 4 * max(units.values())

    trio.run(main)


def member(node, name: str) -> dict:
    view = describe_governance(node.chain.state(), node.chain.height)
    return next(member for member in view["members"] if member["name"] == name)
