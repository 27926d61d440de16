"""Back-pressure: commits come later when validators owe as much verification as they may."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import PARAMS, World, make_genesis, plan

from mlchain.errors import InvalidBlock
from mlchain.ledger.transaction import decode_transaction
from mlchain.ml_runtime import check_plan
from mlchain.node.chain import Chain
from mlchain.node.outbox import Outbox
from mlchain.vm import execute, lifecycle
from mlchain.vm.backlog import get_backlog
from mlchain.vm.execute import propose_block
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.jobs import SegmentState
from mlchain.vm.families.segments import AdmitFault, CommitSegment

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


def test_a_commit_that_does_not_fit_fails_and_comes_again_when_there_is_room(world):
    first, second = two_running(world)
    world.commit(first)
    (receipt,) = world.block(commit_of(world, second))
    assert (receipt.code, world.segment(second).commit) == ("invalid-transaction", None)
    assert "verification is owed already" in receipt.message
    assert get_backlog(world.state()) == SEGMENT_GAS
    world.harden(first)
    world.commit(second)


def test_its_worker_is_not_late_meanwhile_and_has_its_whole_time_when_there_is_room(world):
    first, second = two_running(world)
    world.commit(first)
    world.block(after_ms=PARAMS.segment_timeout_ms + 1)
    world.harden(first)
    assert world.segment(second).attempt == 0
    world.block(after_ms=PARAMS.segment_timeout_ms + 1)
    assert world.segment(second).attempt == 1, "there is room, and it did not come"


def test_control_without_a_new_deadline_it_is_late_in_the_block_that_makes_room(world, monkeypatch):
    monkeypatch.setattr(lifecycle, "_begin_deadline", lambda *about: None)
    first, second = two_running(world)
    world.commit(first)
    world.block(after_ms=PARAMS.segment_timeout_ms + 1)
    world.harden(first)
    assert world.segment(second).attempt == 1


def taken(world: World) -> list[bool]:
    """One worker's commit that has no room and, behind it, a transfer: which are in the block."""
    first, second = two_running(world)
    world.commit(first)
    sender = world.worker_of(second)
    waiting = [
        commit_of(world, second),
        world.transaction(sender, Transfer(world.key("alice").public, 0), ahead=1),
    ]
    block, _ = propose_block(
        world.store.head, world.store.head_id, world.state(), world.genesis, world.last_commit, (),
        waiting, world.genesis.validators().keys[0],
        world.store.head.time_ms + 1, lambda ref, segment: True,
    )  # fmt: skip
    return [data in block.body.transactions for data in waiting]


def test_a_commit_without_room_holds_up_nothing_that_its_worker_sends_after_it(world):
    assert taken(world) == [True, True]


def test_control_left_out_of_blocks_it_would_have_its_worker_late_elsewhere(world, monkeypatch):
    def leave_out(block, *of):
        mark, done = block.state.checkpoint(), original(block, *of)
        if "is owed already" in done.receipt.message:
            block.state.rollback(mark)
            raise InvalidBlock("it has to wait")
        return done

    original = execute._execute_transaction
    monkeypatch.setattr(execute, "_execute_transaction", leave_out)
    assert taken(world) == [False, False]


def sent(world: World) -> list[int]:
    """What a worker's outbox sends of a commit without room, and of what comes after it."""
    first, second = two_running(world)
    world.commit(first)
    key, kinds = world.key(world.worker_of(second)), []
    chain = Chain(world.store, key.public, lambda ref, commit: True)
    outbox = Outbox(key, chain, lambda data: kinds.append(decode_transaction(data).body.kind))
    outbox.send(CommitSegment(world.make_commit(second)))
    outbox.send(AdmitFault(second, 0, bytes(32), 0))
    return kinds


def test_a_node_sends_such_a_commit_when_there_is_room_and_other_things_before(world):
    assert sent(world) == [AdmitFault.KIND]


def test_control_sent_at_once_it_fails_before_them(world, monkeypatch):
    monkeypatch.setattr(CommitSegment, "has_to_wait", lambda self, block: False)
    assert sent(world) == [CommitSegment.KIND, AdmitFault.KIND]


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
