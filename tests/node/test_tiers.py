"""Every tier in a whole cluster: a job settles, as much is re-run as the tier promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from node.harness import Cluster, run_cluster

from mlchain.vm.families.jobs import JobState, fixed_seed
from mlchain.vm.families.submit import SubmitJob

PATIENCE_S = 120


def settle(folder: Path, tier: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Run a job of 12 chunks in one segment; return how it was verified, and by whom how much."""

    async def main() -> dict[str, object]:
        async with run_cluster(folder) as cluster:
            send = cluster.send

            async def send_in_tier(payload: object) -> bytes:
                is_job = isinstance(payload, SubmitJob)
                return await send(replace(payload, tier=tier) if is_job else payload)

            monkeypatch.setattr(cluster, "send", send_in_tier)
            job = await cluster.submit_digits(steps=48, chunk=4, segment=12, seed=fixed_seed(7))
            assert (await cluster.settled(job, PATIENCE_S)).state == JobState.SETTLED
            assert cluster.faults() == []
            return shown(cluster, job)

    return trio.run(main)


def shown(cluster: Cluster, job: bytes) -> dict[str, object]:
    view = cluster.nodes["validator-0"].query.job(job.hex())
    slices = view["segments"][0]["slices"]
    return {"rerun": view["verified"]["rerun"], "slices": slices, "all": sum(slices.values())}


def test_economic_lets_each_re_run_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settle(tmp_path, "economic", monkeypatch)
    assert found["all"] == 4


@pytest.mark.parametrize("depth", [1, 2])
def test_covered_re_runs_each_chunk_as_often_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    found = settle(tmp_path, f"covered:{depth}", monkeypatch)
    assert found["all"] == 12 * depth and found["rerun"] == 12


def test_replicated_re_runs_everything_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = settle(tmp_path, "replicated", monkeypatch)
    assert found["all"] == 48 and found["rerun"] == 12
