"""A block looks only at the jobs that something may happen to, and comes out as if at all."""

from __future__ import annotations

import pytest
from vm.test_vm_history import History
from vm.world import World

from mlchain.errors import InvalidBlock
from mlchain.vm import agenda
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.jobs import (
    ACTIVE,
    ALARMS,
    JOBS,
    OPEN_JOBS,
    PHASES,
    SEGMENTS,
    JobState,
    Phase,
    SegmentState,
    in_phase,
)

FIND_DUE = agenda.find_due


class Slow(History):
    """As `History`, where the data are long in coming and some job waits for them in vain."""

    def talk(self) -> None:
        super().talk()
        if self.rng.random() < 0.7:
            for said in self.world.saying.values():
                said.pop("available", None)


def look_at_all(block):
    """Return every open job, as a ledger without an index would."""
    return sorted(job_id for (job_id,), _ in ACTIVE.items(block.state))


def check_index(state) -> None:
    """What the tables of the agenda say is what the jobs and their segments say."""
    active = {job_id: record for (job_id,), record in ACTIVE.items(state)}
    assert {key for key, _ in PHASES.items(state)} == {(r.phase, j) for j, r in active.items()}
    alarms = {(r.alarm_ms, j) for j, r in active.items() if r.alarm_ms is not None}
    assert {key for key, _ in ALARMS.items(state)} == alarms
    record = OPEN_JOBS.get(state)
    assert (record.count if record else 0) == len(active)
    for job_id, found in active.items():
        job = JOBS.get(state, job_id)
        open_ = [SEGMENTS.get(state, job_id, i) for i in range(job.hard, job.assigned)]
        if job.state == JobState.RUNNING:
            at_work = any(segment.state != SegmentState.ASSIGNED for segment in open_)
            assert found.phase == (Phase.VERDICT if at_work else Phase.WORKER)
        else:
            waits = {JobState.SUBMITTED: Phase.DATA, JobState.ACCEPTED: Phase.BEACON}
            assert found.phase == waits[job.state]
        if found.phase == Phase.WORKER:
            assert found.alarm_ms == min(segment.deadline_ms for segment in open_)


def run_beside_one_that_looks_at_all(monkeypatch, seed: int, blocks: int) -> None:
    """Run a history whose every block is checked once more by a node without the index."""
    alone = World.check

    def check(self, block):
        found = alone(self, block)
        with monkeypatch.context() as patch:
            patch.setattr(agenda, "find_due", look_at_all)
            assert alone(self, block) == found
        return found

    monkeypatch.setattr(World, "check", check)
    history = Slow(seed)
    history.world.submit(steps=600)
    for _ in range(blocks):
        history.step()
        check_index(history.world.state())
    assert history.seen["hard"] > 0, "something happened"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_looking_at_every_open_job_gives_the_same_block(monkeypatch, seed):
    run_beside_one_that_looks_at_all(monkeypatch, seed, 60)


@pytest.mark.parametrize("forgotten", [Phase.BEACON, Phase.VERDICT])
def test_control_an_agenda_that_forgets_a_phase_gives_another_block(monkeypatch, forgotten):
    def find_due(block):
        known = {job_id for job_id, _ in in_phase(block.state, forgotten)}
        return [job_id for job_id in FIND_DUE(block) if job_id not in known]

    monkeypatch.setattr(agenda, "find_due", find_due)
    with pytest.raises(InvalidBlock):
        run_beside_one_that_looks_at_all(monkeypatch, 1, 60)


def test_control_an_agenda_without_alarms_leaves_a_segment_with_a_worker_that_is_late(monkeypatch):
    attempts = []
    for find_due in (FIND_DUE, lambda block: []):
        world = World()
        job = world.submit()
        world.hold()
        world.blocks(3)
        assert world.segment(job, 0).attempt == 0
        monkeypatch.setattr(agenda, "find_due", find_due)
        world.block(after_ms=world.genesis.params.segment_timeout_ms + 1)
        attempts.append(world.segment(job, 0).attempt)
        monkeypatch.setattr(agenda, "find_due", FIND_DUE)
    assert attempts == [1, 0]


def test_jobs_that_wait_for_their_worker_or_for_data_are_not_read(monkeypatch):
    world = World()
    waiting = world.submit()
    looked_at = []
    monkeypatch.setattr(agenda, "plan", lambda block, job_id: looked_at.append(job_id))
    world.block()
    assert looked_at == [] and world.job(waiting).state == JobState.SUBMITTED
    monkeypatch.undo()
    world.hold()
    world.blocks(3)
    assert len(list(in_phase(world.state(), Phase.WORKER))) == 1
    monkeypatch.setattr(agenda, "plan", lambda block, job_id: looked_at.append(job_id))
    world.block()
    assert looked_at == []


def test_a_job_whose_data_never_come_is_refunded_when_its_time_is_over():
    world = World()
    job = world.submit()
    world.block(after_ms=world.genesis.params.segment_timeout_ms)
    assert world.job(job).state == JobState.SUBMITTED
    world.block(after_ms=1)
    assert world.job(job).state == JobState.EXPIRED and not agenda.count_open(world.state())


def test_to_announce_data_has_nobody_read_the_jobs_that_wait_for_other_data(monkeypatch):
    world = World()
    waiting = world.submit()
    looked_at = []
    monkeypatch.setattr(agenda, "plan", lambda block, job_id: looked_at.append(job_id))
    world.do("alice", RegisterData(b"\x01U\x12 " + bytes(32), 1, 1, 1))
    assert looked_at == []
    world.hold()
    assert set(looked_at) == {waiting}, "the control: data that a quorum holds do"
