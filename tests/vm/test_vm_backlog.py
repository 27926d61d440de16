"""Back-pressure: commits wait when validators owe as much verification as they may."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import PARAMS, World, make_genesis, plan

from mlchain.errors import InvalidBlock
from mlchain.ml_runtime import check_plan
from mlchain.vm.backlog import get_backlog
from mlchain.vm.execute import propose_block
from mlchain.vm.families.jobs import SegmentState
from mlchain.vm.families.segments import CommitSegment

COST = check_plan(plan())
SEGMENT_GAS = (COST.gas_per_step * 2000 + 15 * COST.gas_predict_row) * 42 // 1000
"""What a validator's slice of one segment of the world's job takes."""
ROOM = SEGMENT_GAS * 3 // 2
"""For one such commit, not for two."""


@pytest.fixture
def world() -> World:
    return World(genesis=make_genesis(params=replace(PARAMS, max_verify_gas=ROOM)))


def two_running(world: World) -> tuple[bytes, bytes]:
    first, second = world.submit(), world.submit(name="second")
    world.hold()
    world.blocks(2)
    return first, second


def commit_of(world: World, job: bytes) -> bytes:
    return world.transaction(world.worker_of(job), CommitSegment(world.make_commit(job)))


def test_what_a_commit_asks_is_owed_until_it_is_hard(world):
    job, _ = two_running(world)
    world.commit(job)
    assert get_backlog(world.state()) == SEGMENT_GAS
    world.harden(job)
    assert get_backlog(world.state()) == 0


def test_or_until_it_falls(world):
    job, _ = two_running(world)
    world.commit(job)
    world.blocks(PARAMS.attest_window + 1)
    assert world.segment(job).state == SegmentState.ASSIGNED
    assert get_backlog(world.state()) == 0


def test_a_chunk_that_traps_is_owed_too_for_everybody_runs_it(world):
    job, _ = two_running(world)
    world.commit(job, count=0, trap=1)
    assert get_backlog(world.state()) == SEGMENT_GAS // 42
    world.harden(job)
    assert get_backlog(world.state()) == 0


def test_a_commit_that_does_not_fit_may_not_be_included(world):
    first, second = two_running(world)
    world.commit(first)
    with pytest.raises(InvalidBlock, match="verification is owed"):
        world.compose(commit_of(world, second))


def test_it_waits_and_comes_when_there_is_room(world):
    first, second = two_running(world)
    world.commit(first)
    before = world.state().root()
    state = world.state()
    block, outcome = propose_block(
        world.store.head, world.store.head_id, state, world.genesis, world.last_commit, (),
        [commit_of(world, second)], world.genesis.validators().keys[0],
        world.store.head.time_ms + 1, lambda ref, segment: True,
    )  # fmt: skip
    assert not block.body.transactions and not outcome.receipts, "an honest proposer leaves it out"
    assert world.state().root() == before
    world.harden(first)
    world.commit(second)


def test_its_worker_is_not_late_meanwhile(world):
    first, second = two_running(world)
    world.commit(first)
    world.block(after_ms=PARAMS.segment_timeout_ms + 1)
    assert world.segment(second).attempt == 0
    world.harden(first)
    assert world.segment(second).attempt == 1, "there is room, and it did not come"


def test_control_without_the_bound_validators_owe_whatever_is_posted():
    world = World()
    first, second = two_running(world)
    world.commit(first)
    world.commit(second)
    assert get_backlog(world.state()) == 2 * SEGMENT_GAS


def test_a_commit_is_never_larger_than_the_bound(world):
    """It would wait for ever: such a job is refused."""
    with pytest.raises(AssertionError, match="verifying a segment"):
        world.submit(tier="replicated")
