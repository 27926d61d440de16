"""Which of the open jobs a block has to look at, so that a thousand that wait cost it nothing.

A job that waits for its worker, or for its data, is moved by time alone, by a transaction of its
own, or by what this block did to the data or the voters. Only commits at work and jobs whose beacon
is due are looked at in every block. To look at a job without need changes nothing: so what is here
decides the cost of a block and never its result, as long as nothing due is left out.
"""

from __future__ import annotations

from mlchain.ledger.state import Mark, State
from mlchain.vm.context import BlockContext
from mlchain.vm.families.data import DATASETS, is_available
from mlchain.vm.families.jobs import (
    ACTIVE,
    ALARMS,
    JOBS,
    OPEN_JOBS,
    PHASES,
    SEGMENTS,
    Active,
    Job,
    JobState,
    OpenJobs,
    Phase,
    SegmentState,
)
from mlchain.vm.families.members import VOTERS

OPEN_STATES = (JobState.SUBMITTED, JobState.ACCEPTED, JobState.RUNNING)


def enter(state: State, job_id: bytes, phase: Phase, alarm_ms: int | None) -> None:
    """Note what a job waits for, and when time alone moves it (0: it is looked at at once)."""
    known, now = ACTIVE.get(state, job_id), Active(phase, alarm_ms)
    if known == now:
        return
    if known is None:
        OPEN_JOBS.put(state, OpenJobs(count_open(state) + 1))
    else:
        _unlist(state, job_id, known)
    ACTIVE.put(state, now, job_id)
    PHASES.put(state, Mark(), phase, job_id)
    if alarm_ms is not None:
        ALARMS.put(state, Mark(), alarm_ms, job_id)


def leave(state: State, job_id: bytes) -> None:
    """Forget a job that has ended, unless that was done before."""
    known = ACTIVE.get(state, job_id)
    if known is not None:
        _unlist(state, job_id, known)
        ACTIVE.delete(state, job_id)
        OPEN_JOBS.put(state, OpenJobs(count_open(state) - 1))


def _unlist(state: State, job_id: bytes, known: Active) -> None:
    PHASES.delete(state, known.phase, job_id)
    if known.alarm_ms is not None:
        ALARMS.delete(state, known.alarm_ms, job_id)


def count_open(state: State) -> int:
    """Return how many jobs have not ended."""
    record = OPEN_JOBS.get(state)
    return record.count if record else 0


def find_due(block: BlockContext) -> list[bytes]:
    """Return the ids of the jobs that something may happen to in this block, in order."""
    state, phases = block.state, [Phase.BEACON, Phase.VERDICT]
    if _may_have_data(block):
        phases.append(Phase.DATA)
    due = {job_id: None for phase in phases for (_, job_id), _ in PHASES.items(state, phase)}
    for (alarm_ms, job_id), _ in ALARMS.items(state):
        if alarm_ms >= block.time_ms:
            break
        due[job_id] = None
    return sorted(due)


def _may_have_data(block: BlockContext) -> bool:
    """Tell whether this block may have made a dataset available: to announce one does not."""
    if any(True for _ in VOTERS.changed(block.state)):
        return True
    changed = DATASETS.changed(block.state)
    return any(is_available(block.state, content, block.validators) for (content,) in changed)


def expiry_ms(block: BlockContext, job_id: bytes, job: Job) -> int:
    """Return until when a job waits for its data; set in the block it was posted in."""
    known = ACTIVE.get(block.state, job_id)
    alarm_ms = known.alarm_ms if known else None
    return alarm_ms or job.submitted_ms + block.params.segment_timeout_ms


def plan(block: BlockContext, job_id: bytes) -> None:
    """Note what a job waits for after this block."""
    job = JOBS.get(block.state, job_id)
    if job is None or job.state not in OPEN_STATES:
        return
    phase, alarm_ms = _next(block, job_id, job)
    enter(block.state, job_id, phase, alarm_ms)


def _next(block: BlockContext, job_id: bytes, job: Job) -> tuple[Phase, int | None]:
    if job.state == JobState.SUBMITTED:
        return Phase.DATA, expiry_ms(block, job_id, job)
    if job.state == JobState.ACCEPTED:
        return Phase.BEACON, None
    deadlines = []
    for index in range(job.hard, job.assigned):
        segment = SEGMENTS.get(block.state, job_id, index)
        assert segment is not None, "assigned segments exist"
        if segment.state != SegmentState.ASSIGNED:
            return Phase.VERDICT, None
        deadlines.append(segment.deadline_ms)
    return Phase.WORKER, min(deadlines)
