"""Idle validators look at old work again: what they see adds up, and asks for no block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from node.harness import BOND, PARAMS, Cluster, key, run_cluster

from mlchain.consensus.work.attestation import Outcome
from mlchain.errors import MlchainError, NotFound
from mlchain.node import reviewer
from mlchain.node.examiner import Examiner
from mlchain.node.subject import Subject
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.jobs import (
    JOBS,
    SEGMENTS,
    JobState,
    SegmentState,
    fixed_seed,
    reviewed_offsets,
)
from mlchain.vm.families.members import WORKERS
from mlchain.vm.families.models import MODELS

PATIENCE_S = 120
FORGED = 7


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewer, "IDLE_S", 0.2)


def miss_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every auditor's slice be the first two chunks, as nodes and the chain see it."""
    monkeypatch.setattr("mlchain.node.auditor.segment_slice", lambda *args: (0, 1))
    monkeypatch.setattr("mlchain.vm.families.jobs.is_in_slice", lambda *args: args[-1] < 2)


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not holds():
            await trio.sleep(0.05)


async def settled(cluster: Cluster) -> bytes:
    job = await cluster.submit_digits(steps=48, chunk=4, segment=12, seed=fixed_seed(7))
    assert (await cluster.settled(job, PATIENCE_S)).state == JobState.SETTLED
    return job


def heights(cluster: Cluster) -> list[int]:
    return [node.chain.height for node in cluster.nodes.values()]


def reviewers(cluster: Cluster) -> list[reviewer.Reviewer]:
    return [node.reviewer for node in cluster.nodes.values() if node.reviewer is not None]


def test_reviews_make_no_block_and_ride_in_the_next_one_there_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with run_cluster(tmp_path) as cluster:
            job = await settled(cluster)
            await until(lambda: len(set(heights(cluster))) == 1)
            before = heights(cluster)
            await until(lambda: all(found.rerun >= 12 for found in reviewers(cluster)))
            assert heights(cluster) == before, "twelve chunks each, and not one block for them"
            node = cluster.nodes["validator-0"]
            for _ in range(2):  # somebody else's transactions bring blocks
                height = node.chain.height
                await cluster.send(RegisterData(b"\x01\x55\x12\x20" + bytes(32), 9, 1, 1))
                await until(lambda height=height: node.chain.height > height)  # type: ignore[misc]
            state = node.chain.state()
            segment = SEGMENTS.get(state, job, 0)
            assert segment is not None and len(reviewed_offsets(segment)) == 12
            shown = node.query.job(job.hex())["verified"]
            assert shown["reviewed"] == shown["seen"] == 12

    trio.run(main)


def test_a_forgery_that_every_slice_missed_is_found_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The auditors' slices are made to miss it; the reviewers' are their own."""
    miss_it(monkeypatch)

    async def main() -> None:
        async with run_cluster(tmp_path, workers=1) as cluster:
            worker = cluster.nodes["worker-0"].worker
            assert worker is not None
            worker.skips = lambda chunk: chunk == FORGED
            job = await settled(cluster)
            chain = cluster.nodes["validator-0"].chain

            def is_revoked() -> bool:
                record = JOBS.get(chain.state(), job)
                return record is not None and record.state == JobState.REVOKED

            await until(is_revoked)
            (fault,) = cluster.faults()
            assert (fault.kind, fault.chunk) == ("forged", FORGED)
            assert fault.finders and fault.finders[0] in chain.validators
            record = WORKERS.get(chain.state(), key("worker-0").public)
            assert record is not None and record.bond == BOND - PARAMS.slash_worker
            model = MODELS.get(chain.state(), job)
            assert model is not None and model.revoked_height

    trio.run(main)


def claimed_with_nothing_to_show(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A forged chunk is claimed late, and nobody shows the state before it; returns verdicts."""
    miss_it(monkeypatch)
    fetch = Examiner._fetch_patiently

    async def fetch_or_lack(self: Examiner, subject: Subject, *about: Any) -> bytes | MlchainError:
        if subject.segment.state == SegmentState.HARD:
            return NotFound("nobody has it any more")
        return await fetch(self, subject, *about)

    monkeypatch.setattr(Examiner, "_fetch_patiently", fetch_or_lack)
    said: list[int] = []
    judge = Examiner.judge

    async def note(self: Examiner, *about: Any) -> Outcome:
        said.append(await judge(self, *about))
        return said[-1]  # type: ignore[return-value]

    monkeypatch.setattr(Examiner, "judge", note)

    async def main() -> None:
        async with run_cluster(folder, workers=1) as cluster:
            worker = cluster.nodes["worker-0"].worker
            assert worker is not None
            worker.skips = lambda chunk: chunk == FORGED
            await settled(cluster)
            await until(lambda: len(said) >= 3)

    trio.run(main)
    return said


@pytest.mark.slow
def test_a_late_claim_is_judged_from_the_start_of_its_segment_if_nobody_shows_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(claimed_with_nothing_to_show(tmp_path, monkeypatch)) == {Outcome.DIFFERS}


@pytest.mark.slow
def test_control_judged_by_what_is_shown_alone_the_forger_need_only_show_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lack(*about: Any) -> bytes:
        raise NotFound("not computed")

    monkeypatch.setattr(Examiner, "_compute_start", lack)
    assert set(claimed_with_nothing_to_show(tmp_path, monkeypatch)) == {Outcome.UNSERVED}


def test_control_without_reviews_the_same_forgery_is_never_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miss_it(monkeypatch)
    monkeypatch.setattr(reviewer, "IDLE_S", 10_000.0)

    async def main() -> None:
        async with run_cluster(tmp_path, workers=1) as cluster:
            worker = cluster.nodes["worker-0"].worker
            assert worker is not None
            worker.skips = lambda chunk: chunk == FORGED
            await settled(cluster)
            await trio.sleep(2)
            assert cluster.faults() == []

    trio.run(main)
