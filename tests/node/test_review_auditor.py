"""A worker that serves slowly delays the audits of its own segments and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from factories import make_key
from msgspec.structs import replace
from vm.world import CONTENT, FEATURES, JOB, ROWS, World

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.crypto import digest
from mlchain.ml_runtime import Dataset
from mlchain.node.auditor import PLACES, Auditor
from mlchain.node.chain import Chain
from mlchain.node.duties import Duties
from mlchain.node.examiner import SERVE_PATIENCE_S
from mlchain.node.rota import FETCH_S
from mlchain.node.subject import Subject, Target
from mlchain.vm.families.data import DATASETS, RegisterData
from mlchain.vm.families.jobs import Phase, in_phase

ME, YOU = "validator-0", "validator-1"
DATA = Dataset.from_arrays(np.zeros((ROWS, FEATURES)), np.arange(ROWS) % 3).encode()


class Watched(Auditor):
    """Audits of one worker's segments never end; everything that begins is noted."""

    slow: bytes = b""
    begun: list[tuple[str, bytes]]

    async def _audit(self, state: Any, target: Target) -> None:
        self.begun.append(("audit", target.job_id))
        if target.segment.worker == self.slow:
            await trio.sleep_forever()

    async def _vote(self, state: Any, target: Target) -> None:
        self.begun.append(("vote", target.job_id))


@pytest.fixture
def scene() -> tuple[World, Watched, bytes, bytes]:
    """Return two jobs at work with different workers; the first one's is slow."""
    world = World(workers=2)
    jobs = [world.running()]
    while len(jobs) < 2:
        job = world.running()
        if world.segment(job).worker != world.segment(jobs[0]).worker:
            jobs.append(job)
    world.commit(jobs[0])
    own: Any = None
    chain = Chain(world.store, make_key(ME).public, lambda ref, commit: True)
    auditor = Watched(
        make_key(ME).public, chain, own, own, Duties(world.genesis, make_key(ME)), own
    )
    auditor.slow, auditor.begun = world.segment(jobs[0]).worker, []
    return world, auditor, jobs[0], jobs[1]


def follow(world: World, auditor: Watched) -> None:
    auditor.chain._view = world.state()
    auditor.on_block()


def run_while(auditor: Watched, *steps: Any) -> None:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(auditor.run)
            for step in steps:
                await trio.testing.wait_all_tasks_blocked()
                step()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_a_slow_worker_delays_no_audit_of_another(scene):
    world, auditor, slow_job, other_job = scene

    def commit_the_other() -> None:
        world.commit(other_job)
        follow(world, auditor)

    run_while(auditor, commit_the_other)
    assert auditor.begun == [("audit", slow_job), ("audit", other_job)]


def test_a_verdict_waits_for_no_audit(scene):
    world, auditor, slow_job, _ = scene

    def accuse() -> None:
        world.accuse(YOU, slow_job, 3)
        follow(world, auditor)

    run_while(auditor, accuse)
    assert auditor.begun == [("audit", slow_job), ("vote", slow_job)]


class Outbox:
    """Keeps what would be sent to the chain."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, payload: Any) -> None:
        self.sent.append(payload)


def complaints(scene: tuple[World, Watched, bytes, bytes], each_s: float) -> list[Any]:
    """Audit four chunks, each served after `each_s` seconds; return what the chain hears of it."""
    world, auditor, job_id, _ = scene
    auditor.outbox = Outbox()
    job, segment = world.job(job_id), world.segment(job_id)
    assert segment.commit is not None
    subject = Subject(job_id, job, 0, segment, segment.commit, *(None,) * 3)  # type: ignore[arg-type]

    async def fetch(*_: Any) -> bytes:
        await trio.sleep(each_s)
        return b"a state"

    async def replay(*_: Any) -> Outcome:
        return Outcome.EQUAL

    auditor.examiner._fetch_patiently = fetch  # type: ignore[method-assign]
    auditor.examiner._replay = replay  # type: ignore[method-assign]
    follow(world, auditor)
    clock = trio.testing.MockClock(autojump_threshold=0)
    assert trio.run(auditor.examiner._replay_slice, subject, (1, 2, 3, 5), clock=clock) is None
    return auditor.outbox.sent


def test_a_worker_that_trickles_its_chunks_is_reported_before_the_audit_ends(scene):
    first, second = complaints(scene, SERVE_PATIENCE_S * 0.7)
    assert (first.kind, first.chunk) == (ClaimKind.UNSERVED, 2)
    assert (second.kind, second.chunk) == (ClaimKind.UNSERVED, 5)


def test_a_worker_that_serves_in_time_is_not(scene):
    assert complaints(scene, SERVE_PATIENCE_S * 0.2) == []


# ---- data of jobs --------------------------------------------------------------------------------


class Slow:
    """Serves the data of all but one job so slowly that no try ends."""

    def __init__(self, quick: bytes) -> None:
        self.quick = quick
        self.tries: list[bytes] = []

    async def fetch_dataset(self, state: Any, content: bytes) -> bytes:
        self.tries.append(content)
        if content != self.quick:
            await trio.sleep_forever()
        return DATA


def hold_for(seconds: float, wanted: int) -> tuple[Slow, bool]:
    """Let a validator hold the data of jobs, the last of which alone is served; is it held?"""
    world, own = World(), make_key(ME)
    for number in range(wanted):
        content = CONTENT[:4] + digest("test-data", bytes([number]))
        register = RegisterData(content, len(DATA), ROWS, FEATURES)
        job = world.transaction("alice", replace(JOB, dataset=content), ahead=1)
        receipts = world.block(world.transaction("alice", register), job)
        assert [r.code for r in receipts] == ["ok", "ok"]
    last = [job.dataset for _, job in in_phase(world.state(), Phase.DATA)][-1]
    slow, duties = Slow(last), Duties(world.genesis, own)
    wire: Any = slow
    nothing: Any = None
    chain = Chain(world.store, own.public, lambda ref, commit: True)
    auditor = Auditor(own.public, chain, wire, nothing, duties, nothing)

    async def main() -> None:
        with trio.move_on_after(seconds):
            await auditor.data.run(auditor._find_data)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.05))
    record = DATASETS.get(world.state(), last)
    assert record is not None
    return slow, duties.is_announced(last, record.facts)


def test_data_that_is_served_slowly_delays_the_data_of_no_other_job():
    slow, is_held = hold_for(FETCH_S / 2, PLACES)
    assert is_held and len(slow.tries) == PLACES


def test_more_slow_data_than_there_are_places_makes_way_after_one_short_try():
    assert not hold_for(FETCH_S / 2, PLACES + 1)[1], "control: all places are taken"
    slow, is_held = hold_for(FETCH_S + 5, PLACES + 1)
    assert is_held and slow.tries.count(slow.quick) == 1
