"""Assignment, commits, deadlines (sections 5 and 6)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import JOB, PARAMS, World

from mlchain.consensus.work.attestation import Outcome
from mlchain.crypto import digest
from mlchain.errors import InvalidBlock
from mlchain.ml_runtime import Metrics
from mlchain.vm import lifecycle
from mlchain.vm.families.jobs import ACTIVE, JobState, SegmentState
from mlchain.vm.families.segments import CommitSegment
from mlchain.vm.lifecycle import MAX_ATTEMPTS, MAX_DEPTH

TIMEOUT = PARAMS.segment_timeout_ms


@pytest.fixture
def world() -> World:
    return World(workers=3)


@pytest.fixture
def job(world: World) -> bytes:
    return world.running()


def other_worker(world: World, job: bytes) -> str:
    return next(f"worker-{i}" for i in range(3) if f"worker-{i}" != world.worker_of(job))


# ---- turns


def test_segments_go_round_the_workers(world, job):
    turns = world.job(job).workers
    for index in range(4):
        assert world.segment(job, index).worker == turns[index % 3]
        world.commit(job, index)
        world.harden(job, index)


def test_the_next_segment_is_given_out_once_the_one_before_is_committed(world, job):
    world.block()
    assert world.find_segment(job, 1) is None
    world.commit(job)
    assert world.segment(job, 1).state == SegmentState.ASSIGNED


def test_no_more_than_three_segments_are_at_work_before_the_first_is_hard(world, job):
    for index in range(MAX_DEPTH):
        world.commit(job, index)
    world.block()
    assert world.find_segment(job, MAX_DEPTH) is None
    world.harden(job)
    assert world.segment(job, MAX_DEPTH).state == SegmentState.ASSIGNED


def test_after_a_trap_nothing_follows(world, job):
    world.commit(job, trap=1, count=0)
    world.block()
    assert world.find_segment(job, 1) is None


# ---- who may commit, and when


def refusal(world: World, sender: str, payload: CommitSegment) -> str:
    receipt = world.do(sender, payload)
    assert receipt.code == "invalid-transaction"
    return receipt.message


def test_only_the_assigned_worker_commits(world, job):
    commit = CommitSegment(world.make_commit(job))
    assert "another worker" in refusal(world, other_worker(world, job), commit)


@pytest.mark.parametrize("sender", ["alice", "validator-0"])
def test_whoever_is_no_worker_cannot_even_send_a_commit(world, job, sender):
    with pytest.raises(InvalidBlock, match="only a worker may send CommitSegment"):
        world.do(sender, CommitSegment(world.make_commit(job)))


def test_a_commit_is_bound_to_its_attempt(world, job):
    commit = CommitSegment(world.make_commit(job, attempt=1))
    assert "this attempt" in refusal(world, world.worker_of(job), commit)


def test_there_is_no_second_commit(world, job):
    """Two roots for one segment: the first binds, whatever the draw turns out to be."""
    first = world.commit(job)
    second = world.make_commit(job, leaf_root=digest("test-second"))
    assert "this attempt" in refusal(world, world.worker_of(job), CommitSegment(second))
    assert world.segment(job).commit == first


def test_segments_that_are_not_given_out_and_jobs_that_do_not_run_take_no_commit(world, job):
    worker = world.worker_of(job)
    commit = world.make_commit(job)
    assert "no segment 1" in refusal(world, worker, CommitSegment(replace(commit, segment=1)))
    waiting = world.submit(name="waiting")
    for missing in (waiting, digest("test-no-job")):
        stray = CommitSegment(replace(commit, job=missing))
        assert "no such job" in refusal(world, worker, stray)


# ---- the shape of a commit


SHAPES = {
    "fewer chunks": ({"count": 199}, "the segment has 200"),
    "more chunks": ({"count": 201}, "the segment has 200"),
    "no chunks": ({"count": 0}, "the segment has 200"),
    "metrics too early": ({"metrics": Metrics("accuracy", 5, 15, 0)}, "evaluated 15"),
    "empty metrics too early": ({"metrics": Metrics("accuracy", 0, 0, 0)}, "evaluated 0"),
    "trap in another chunk": ({"trap": 2 * 50 + 1, "count": 49}, "a trap ends the chunk"),
    "trap after the chunk it is in": ({"trap": 2 * 50 + 1, "count": 51}, "a trap ends the chunk"),
    "trap beyond the segment": ({"trap": 2 * 200 + 1, "count": 200}, "a trap ends the chunk"),
    "trap and an end from nowhere": (
        {"trap": 1, "count": 0, "end": digest("test-elsewhere")},
        "the end is the start",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_commit_is_refused_for(world, job, name):
    changes, reason = SHAPES[name]
    commit = CommitSegment(world.make_commit(job, **changes))
    assert reason in refusal(world, world.worker_of(job), commit)
    assert world.segment(job).state == SegmentState.ASSIGNED


@pytest.mark.parametrize("trap, count", [(1, 0), (2, 0), (3, 1), (101, 50), (400, 199)])
def test_a_trap_names_the_first_step_of_the_chunk_that_is_missing(world, job, trap, count):
    world.commit(job, trap=trap, count=count)
    assert world.segment(job).state == SegmentState.COMMITTED


def test_a_trap_is_at_a_step_of_the_job(world):
    job = world.running(steps=2 * 250 + 1)  # the last chunk has one step, number 501
    world.commit(job)
    beyond = CommitSegment(world.make_commit(job, 1, trap=502, count=50))
    assert "a trap ends the chunk" in refusal(world, world.worker_of(job, 1), beyond)
    world.commit(job, 1, trap=501, count=50)


def test_a_segment_starts_where_the_one_before_ended(world, job):
    world.commit(job)
    commit = CommitSegment(world.make_commit(job, 1, start=digest("test-elsewhere")))
    assert "start is not the end" in refusal(world, world.worker_of(job, 1), commit)


def test_metrics_are_those_of_all_test_rows(world):
    job = world.running(steps=400)
    commit = CommitSegment(world.make_commit(job, metrics=Metrics("accuracy", 5, 14, 0)))
    assert "expected 15" in refusal(world, world.worker_of(job), commit)
    world.commit(job)


def test_an_evaluation_that_traps_leaves_the_model_without_metrics(world):
    job = world.running(steps=400)
    assert world.commit(job, metrics=None).metrics is None


def test_without_test_rows_there_are_no_metrics(world):
    job = world.running(steps=400, test_rows=0)
    some = CommitSegment(world.make_commit(job, metrics=Metrics("accuracy", 0, 0, 0)))
    assert "expected 0" in refusal(world, world.worker_of(job), some)
    assert world.commit(job).metrics is None


def test_the_last_segment_may_be_short_and_its_last_chunk_too(world):
    job = world.running(steps=2 * 250 + 1)  # 251 chunks, the last of one step
    world.commit(job)
    assert world.job(job).segment_range(1) == (200, 51)
    world.commit(job, 1)


# ---- deadlines


def test_a_worker_that_is_late_loses_the_segment_and_is_excluded(world, job):
    first = world.segment(job)
    world.block(after_ms=first.deadline_ms - world.store.head.time_ms)
    assert world.segment(job) == first, "at the deadline it is still in time"
    world.block()
    again = world.segment(job)
    assert again.worker != first.worker and again.attempt == first.attempt + 1
    assert first.worker in world.job(job).excluded
    assert not world.faults(), "to be late is no crime"


def test_a_commit_that_comes_too_late_is_refused(world, job):
    late, commit = world.worker_of(job), CommitSegment(world.make_commit(job))
    world.block(after_ms=TIMEOUT + 1)
    assert "this attempt" in refusal(world, late, commit)


def test_a_worker_whose_start_is_not_hard_is_not_late_and_has_its_whole_time_from_then_on(
    world, job
):
    """Row 5: the start may be an end that nobody can reach."""
    world.commit(job)
    world.block(after_ms=TIMEOUT + 1)
    heir = world.segment(job, 1)
    assert (heir.state, heir.attempt) == (SegmentState.ASSIGNED, 0)
    world.harden(job)
    since = world.store.head.time_ms
    assert world.segment(job, 1).deadline_ms == since + TIMEOUT > heir.deadline_ms
    world.block(after_ms=TIMEOUT)
    assert world.segment(job, 1).attempt == 0 and not world.job(job).excluded
    world.block()
    assert world.job(job).excluded == (heir.worker,)


def test_control_if_it_were_late_one_that_commits_to_a_false_end_would_have_it_excluded(
    world, job, monkeypatch
):
    real = lifecycle._is_overdue
    monkeypatch.setattr(
        lifecycle, "_is_overdue",
        lambda block, job, index, segment: real(block, replace(job, hard=index), index, segment),
    )  # fmt: skip
    world.commit(job)
    heir = world.segment(job, 1).worker
    world.block(after_ms=TIMEOUT + 1)
    assert world.job(job).excluded == (heir,)


def test_those_that_failed_a_job_come_last_for_it_and_not_at_all_for_nothing(world, job):
    seen = []
    for _ in range(3):
        seen.append(world.worker_of(job))
        world.block(after_ms=TIMEOUT + 1)
    assert sorted(seen) == ["worker-0", "worker-1", "worker-2"]
    assert world.worker_of(job) in seen, "when all have failed, they get another chance"


def test_a_job_is_given_up_after_so_many_falls_and_refunded(world, job):
    before = world.balance("alice")
    for attempt in range(MAX_ATTEMPTS):
        assert world.segment(job).attempt == attempt
        world.block(after_ms=TIMEOUT + 1)
    assert world.job(job).state == JobState.EXPIRED
    assert world.balance("alice") == before + JOB.fee
    assert world.find_segment(job) is None and not list(ACTIVE.items(world.state()))


def test_what_hard_segments_earned_is_not_refunded(world, job):
    world.commit(job)
    world.harden(job)
    before = world.balance("alice")
    for _ in range(MAX_ATTEMPTS):
        world.block(after_ms=TIMEOUT + 1)
    assert world.job(job).state == JobState.EXPIRED
    assert world.balance("alice") == before + JOB.fee - JOB.fee // 5
    assert world.segment(job).state == SegmentState.HARD


def test_a_segment_that_too_few_attest_in_time_falls(world, job):
    commit = world.commit(job)
    worker = world.worker_of(job)
    world.attest(job, names=tuple(world.validators[:2]))
    since = world.segment(job).commit_height
    world.blocks(since + PARAMS.attest_window - world.height)
    assert world.segment(job).commit == commit
    world.block()
    assert world.segment(job).state == SegmentState.ASSIGNED
    assert world.segment(job).attempt == 1
    assert world.worker_of(job) != worker, "the turn goes on"
    assert not world.job(job).excluded, "the validators failed, not the worker"


def test_a_segment_with_a_quorum_does_not_expire(world, job):
    world.commit(job)
    world.attest(job, names=tuple(world.validators[:3]))
    world.blocks(PARAMS.attest_window + 3)
    assert world.segment(job).state == SegmentState.COMMITTED


def test_what_was_built_on_a_fallen_segment_falls_with_it_unpunished(world, job):
    for index in range(MAX_DEPTH):
        world.commit(job, index)
    bonds = {f"worker-{i}": world.bond(f"worker-{i}") for i in range(3)}
    guilty = world.worker_of(job)
    world.accuse(world.validators[0], job, 7)
    world.judge(job, Outcome.DIFFERS)
    assert world.find_segment(job, 1) is None and world.find_segment(job, 2) is None
    assert world.segment(job).state == SegmentState.ASSIGNED
    assert world.bond(guilty) == bonds.pop(guilty) - PARAMS.slash_worker
    assert {name: world.bond(name) for name in bonds} == bonds
    assert [world.names[key] for key in world.job(job).excluded] == [guilty]


def test_a_new_attempt_is_another_commit_on_the_same_place(world, job):
    first = world.commit(job)
    world.blocks(PARAMS.attest_window + 1)
    assert world.segment(job).attempt == 1
    again = world.commit(job)
    assert again.leaf_root != first.leaf_root and again.attempt == 1
    world.harden(job)


def test_when_every_worker_is_jailed_the_job_ends():
    world = World(workers=1)
    job = world.running()
    world.commit(job)
    world.accuse(world.validators[0], job, 7)
    world.judge(job, Outcome.DIFFERS)
    assert world.job(job).state == JobState.EXPIRED
    assert world.job(job).escrow == 0
