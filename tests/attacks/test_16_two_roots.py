"""Row 16: a worker commits twice, or withdraws a commit once it has seen the draw."""

from __future__ import annotations

import pytest
from attacks.arena import CHUNKS, HEIGHTS, finders, forge
from msgspec.structs import replace
from vm.world import PARAMS, World

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.sampling import miss_probability
from mlchain.crypto import digest
from mlchain.vm.families import segments
from mlchain.vm.families.jobs import SegmentState
from mlchain.vm.families.segments import CommitSegment

HONEST, SIZE, FORGED = range(1, 4), 20, CHUNKS // 100


def test_the_first_commit_binds_also_in_a_dispute():
    world = World()
    job = world.running()
    first, worker = world.commit(job), world.worker_of(job)
    second = CommitSegment(world.make_commit(job, leaf_root=digest("test-second")))
    assert world.do(worker, second).code == "invalid-transaction"
    world.attest(job, names=("validator-0",))
    assert world.do(worker, second).code == "invalid-transaction", "nor after tickets were shown"
    world.accuse("validator-0", job, 7)
    assert world.do(worker, second).code == "invalid-transaction"
    assert world.segment(job).commit == first


def test_two_commits_in_one_block_are_one():
    world = World()
    job = world.running()
    worker, commits = world.worker_of(job), []
    for ahead, name in enumerate(("test-one", "test-two")):
        commit = world.make_commit(job, leaf_root=digest(name))
        commits.append(world.transaction(worker, CommitSegment(commit), ahead=ahead))
    receipts = world.block(*commits)
    assert [receipt.code for receipt in receipts] == ["ok", "invalid-transaction"]
    assert world.segment(job).commit.leaf_root == digest("test-one")


def test_control_without_that_rule_the_second_commit_replaces_the_first(monkeypatch):
    """After a ticket was shown: the worker has seen a slice, and forges where it does not look."""
    world = World()
    job = world.running()
    first, worker = world.commit(job), world.worker_of(job)
    world.attest(job, names=("validator-0",))
    world.blocks(2)
    real = segments.get_segment

    def as_if_new(*place):
        return replace(real(*place), state=SegmentState.ASSIGNED)

    monkeypatch.setattr(segments, "get_segment", as_if_new)
    second = CommitSegment(world.make_commit(job, leaf_root=digest("test-second")))
    assert world.do(worker, second).code == "ok"
    assert world.segment(job).commit == second.commit != first


@pytest.mark.parametrize("how", ["silence", "no attestations"])
def test_to_give_up_an_unlucky_draw_is_to_lose_the_segment(how):
    world = World()
    job = world.running()
    world.commit(job)
    quitter = world.worker_of(job)
    if how == "silence":
        world.accuse("validator-0", job, 7)
        world.judge(job, Outcome.UNSERVED)
        world.blocks(PARAMS.dispute_window)
    else:
        world.blocks(PARAMS.attest_window + 1)
    assert world.segment(job).attempt == 1
    assert world.worker_of(job) != quitter, "somebody else has the next attempt"


def test_control_if_a_commit_could_be_taken_back_every_forgery_would_pass():
    """A new commit whenever somebody asks for a forged chunk, against one commit that binds."""
    jobs, tries = 200, 12
    work = forge(FORGED)
    bound = again = 0
    for job in range(jobs):
        heights = [(job * tries + i) % (HEIGHTS - 1) for i in range(tries)]
        outcomes = (not finders(work, height, HONEST, SIZE) for height in heights)
        first = next(outcomes)
        bound += first
        again += first or any(outcomes)
    p = float(miss_probability(CHUNKS, SIZE, FORGED) ** len(HONEST))
    assert abs(bound - jobs * p) < 3 * (jobs * p * (1 - p)) ** 0.5
    assert again > 0.99 * jobs > 1.5 * bound
