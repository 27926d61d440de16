"""What a reviewer remembers of HARD work when it starts: the newest that can still be claimed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace
from vm.world import PARAMS, World

from mlchain.crypto import digest
from mlchain.ledger.block import SegmentRef
from mlchain.ledger.state import State
from mlchain.node.reviewer import MAX_TRACKED, Reviewer
from mlchain.vm.families.jobs import JOBS, SEGMENTS, SegmentState

ME = b"\x01" * 32
COUNT, UNBONDING = 300, 1000
HEIGHT = 5000


def job_id(number: int) -> bytes:
    """The jobs' ids are hashes: their order says nothing about their age."""
    return digest("test-job", number.to_bytes(4, "little"))


def make_reviewer(heights: list[int]) -> Reviewer:
    """A reviewer of a chain with one HARD segment of each of these heights, job by job."""
    world = World()
    job = world.running(segment=1000)
    world.settle(job)
    state, record, segment = world.state(), world.job(job), world.segment(job)
    SEGMENTS.delete(state, job, 0)
    for number, height in enumerate(heights):
        JOBS.put(state, record, job_id(number))
        SEGMENTS.put(state, replace(segment, hard_height=height), job_id(number), 0)
    at_work = replace(segment, state=SegmentState.COMMITTED, hard_height=0)
    SEGMENTS.put(state, at_work, job_id(len(heights)), 0)
    params = replace(PARAMS, unbonding_blocks=UNBONDING)
    chain: Any = SimpleNamespace(height=HEIGHT, params=params, state=lambda: state)
    duties: Any = SimpleNamespace(ticket=lambda height: None)
    nothing: Any = None
    return Reviewer(ME, chain, nothing, nothing, duties, nothing, lambda: False)


def recalled(heights: list[int]) -> list[SegmentRef]:
    reviewer = make_reviewer(heights)
    reviewer._recall()
    return list(reviewer._hard)


def test_of_more_than_are_tracked_the_newest_are_recalled_the_oldest_first():
    found = recalled([HEIGHT - COUNT + number for number in range(COUNT)])
    newest = range(COUNT - MAX_TRACKED, COUNT)
    assert found == [SegmentRef(job_id(number), 0) for number in newest]


def test_work_that_can_be_claimed_wrong_no_more_takes_no_place():
    """Else reviews would stop: all that is tracked would be too old, and the recent left out."""
    old, recent = [HEIGHT - UNBONDING] * COUNT, [HEIGHT - UNBONDING + 1, HEIGHT]
    reviewer = make_reviewer(old + recent)
    reviewer._recall()
    assert list(reviewer._hard) == [SegmentRef(job_id(COUNT + i), 0) for i in range(2)]
    state: State = reviewer.chain.state()
    plan = reviewer._plan(state)
    assert plan is not None and plan[0].job_id in (job_id(COUNT), job_id(COUNT + 1))


def test_control_in_the_order_of_the_state_recent_work_is_skipped():
    """It is the order of the jobs' hashes: 44 of the newest fall out, whichever they are."""
    reviewer = make_reviewer([HEIGHT - COUNT + number for number in range(COUNT)])
    newest = range(COUNT - MAX_TRACKED, COUNT)
    for (job, index), segment in SEGMENTS.items(reviewer.chain.state()):
        if segment.state == SegmentState.HARD:
            reviewer._hard.append(SegmentRef(job, index))
    assert {SegmentRef(job_id(number), 0) for number in newest} - set(reviewer._hard)
