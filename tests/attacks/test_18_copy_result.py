"""Row 18: a worker hands in what another one computed."""

from __future__ import annotations

from msgspec.structs import replace
from vm.world import CHAIN, PARAMS, World

from mlchain.consensus.work import commitment
from mlchain.consensus.work.commitment import SegmentCommit, segment_root
from mlchain.crypto import digest
from mlchain.vm.families.segments import CommitSegment

STATES = tuple(digest("test-state", bytes([i])) for i in range(200))


def opens(commit: SegmentCommit, worker: bytes) -> bool:
    """What an auditor checks first: the served list of states makes the committed root."""
    return commit.leaf_root == segment_root(
        CHAIN, commit.job, commit.segment, commit.attempt, worker, 0, STATES
    )


def copied() -> tuple[World, bytes, SegmentCommit, SegmentCommit]:
    """A worker's commit expires; the next worker commits to the very same root."""
    world = World()
    job = world.running()
    author = world.segment(job)
    root = segment_root(CHAIN, job, 0, author.attempt, author.worker, 0, STATES)
    original = world.commit(job, leaf_root=root)
    world.blocks(PARAMS.attest_window + 1)
    assert world.segment(job).worker != author.worker
    copy = world.commit(job, leaf_root=root)
    return world, job, original, copy


def test_a_copied_root_does_not_open_for_the_copier():
    world, job, original, copy = copied()
    assert copy.leaf_root == world.segment(job).commit.leaf_root
    assert not opens(copy, world.segment(job).worker)
    assert not opens(original, world.segment(job).worker), "nor would it in the author's attempt"


def test_the_author_could_open_it():
    world, job, original, _ = copied()
    author = next(k for k in world.job(job).workers if k != world.segment(job).worker)
    assert opens(original, author)
    assert not opens(replace(original, attempt=1), author), "and only in its own attempt"


def test_there_is_nothing_to_copy_while_it_counts_because_one_worker_is_assigned():
    world = World()
    job = world.running()
    commit = world.make_commit(job)
    thief = next(f"worker-{i}" for i in (0, 1) if f"worker-{i}" != world.worker_of(job))
    receipt = world.do(thief, CommitSegment(commit))
    assert "another worker" in receipt.message


def test_control_with_leaves_that_name_no_worker_and_no_attempt_the_copy_opens(monkeypatch):
    def nameless(chain_id, job, segment, attempt, worker, chunk, state):
        return digest("test-nameless", job, bytes([segment, chunk]), state)

    monkeypatch.setattr(commitment, "chunk_leaf", nameless)
    world, job, _, copy = copied()
    assert opens(copy, world.segment(job).worker), "and the copier would be paid for it"
