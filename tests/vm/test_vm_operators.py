"""A worker and a validator that belong together: the work of the one is turns of the other."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import PARAMS, World, make_genesis

from mlchain.consensus.work.attestation import Outcome
from mlchain.errors import InvalidBlock
from mlchain.vm.credits import get_work
from mlchain.vm.families.changes import RemoveMember
from mlchain.vm.families.governance import Leave
from mlchain.vm.families.jobs import JobState, SegmentState
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.families.operators import OPERATORS, ConfirmWorker, NameOperator

RICH, OTHER, WORKER = "validator-0", "validator-1", "worker-0"
EPOCH = 20


def make_world(validators: int = 4, workers: int = 1, epoch_blocks: int = EPOCH) -> World:
    params = replace(PARAMS, epoch_blocks=epoch_blocks)
    return World(genesis=make_genesis(validators, workers, params=params))


def name(world: World, validator: str, worker: str = WORKER):
    key = world.key(validator).public if validator else b""
    return world.do(worker, NameOperator(key))


def confirm(world: World, validator: str, worker: str = WORKER, is_own: bool = True):
    return world.do(validator, ConfirmWorker(world.key(worker).public, is_own))


def declare(world: World, validator: str = RICH, worker: str = WORKER) -> None:
    assert name(world, validator, worker).code == "ok"
    assert confirm(world, validator, worker).code == "ok"


def harden(world: World) -> bytes:
    """A segment that all attest who may becomes HARD."""
    job = world.running()
    world.commit(job)
    world.harden(job)
    return job


def operator(world: World, job: bytes, index: int = 0) -> str:
    return world.names.get(world.segment(job, index).operator, "")


def turns(world: World) -> dict[str, int]:
    found = get_validator_set(world.state())
    return {world.names[key]: turn for key, turn in zip(found.keys, found.turns, strict=True)}


def units(world: World) -> dict[str, int]:
    return {world.names[key]: value for key, value in get_work(world.state(), 0).items()}


def proposed(world: World, who: str, blocks: int = 300) -> int:
    found = get_validator_set(world.state())
    mine = world.key(who).public
    return sum(found.proposer(world.height + i, 0) == mine for i in range(blocks))


def two_epochs_after(world: World) -> None:
    for _ in range(2):
        world.end_epoch()
        world.blocks(1)


# ---- from HARD work to turns


def test_the_work_of_its_worker_has_a_validator_propose_more_often_two_epochs_later():
    world = make_world()
    declare(world)
    harden(world)
    assert turns(world) == dict.fromkeys(world.validators, 1)
    two_epochs_after(world)
    share = turns(world)
    assert share.pop(RICH) == 12 and max(share.values()) == 10, "capped, and a floor for all"
    assert proposed(world, RICH) > 300 // 4


def test_control_undeclared_the_same_work_leaves_all_turns_equal():
    world = make_world()
    harden(world)
    two_epochs_after(world)
    assert turns(world) == dict.fromkeys(world.validators, 1)
    assert proposed(world, RICH) == 300 // 4


def test_its_verifier_units_of_that_work_are_the_price():
    world = make_world()
    declare(world)
    job = harden(world)
    gas = world.job(job).gas // 5
    others = dict.fromkeys(("validator-1", "validator-2", "validator-3"), gas * 42 // 200)
    assert units(world) == {RICH: gas, **others}


def test_forged_work_is_taken_back_from_the_operator():
    world = make_world(epoch_blocks=PARAMS.epoch_blocks)
    declare(world)
    job = harden(world)
    assert units(world)[RICH]
    world.accuse(OTHER, job, 3)
    world.judge(job, Outcome.DIFFERS)
    assert world.job(job).state == JobState.REVOKED
    assert not units(world)


# ---- both say so, and either ends it


def test_a_name_alone_is_worth_nothing():
    world = make_world()
    name(world, RICH)
    assert operator(world, harden(world)) == ""
    assert WORKER in units(world)


@pytest.mark.parametrize("ended_by", [RICH, WORKER])
def test_either_side_ends_it(ended_by):
    world = make_world()
    declare(world)
    ended = confirm(world, RICH, is_own=False) if ended_by == RICH else name(world, "")
    assert ended.code == "ok"
    assert operator(world, harden(world)) == ""
    assert "does not name" in confirm(world, RICH).message, "the worker goes first again"


def test_nobody_confirms_what_names_somebody_else():
    world = make_world()
    assert "does not name" in confirm(world, OTHER).message
    name(world, RICH)
    assert "does not name" in confirm(world, OTHER).message
    assert "does not name" in confirm(world, OTHER, is_own=False).message


def test_each_says_it_once_and_of_members_only():
    world = make_world()
    assert "not a validator" in world.do(WORKER, NameOperator(world.key(WORKER).public)).message
    assert "not a validator" in world.do(WORKER, NameOperator(b"short")).message
    assert "says already" in name(world, "").message
    declare(world)
    assert "says already" in name(world, RICH).message
    assert "confirmed already" in confirm(world, RICH).message
    with pytest.raises(InvalidBlock, match="only a worker"):
        name(world, OTHER, worker="alice")
    with pytest.raises(InvalidBlock, match="only a validator"):
        confirm(world, WORKER)


def test_a_worker_that_moves_counts_for_one_validator_at_a_time_and_takes_no_work_along():
    """What it was assigned before stays the first one's, which goes on to be void as its judge."""
    world = make_world()
    declare(world)
    job = world.running()
    declare(world, OTHER)
    world.commit(job)
    world.harden(job)
    world.blocks(1)
    assert operator(world, job) == RICH
    found = units(world)
    assert OTHER in found and found[OTHER] < found[RICH], "as a verifier like any other"
    again = world.running(steps=2001)
    assert operator(world, again) == OTHER


def test_declaring_after_the_work_brings_nothing():
    world = make_world()
    job = world.running()
    declare(world)
    world.commit(job)
    world.harden(job)
    two_epochs_after(world)
    assert turns(world) == dict.fromkeys(world.validators, 1)


# ---- members are silent


def without_the_last(world: World, job: bytes) -> None:
    """All but one of four attest."""
    world.commit(job)
    world.attest(job, names=tuple(name for name in world.validators if name != "validator-3"))
    world.blocks(2)


def test_with_f_silent_a_job_becomes_hard_as_nobodys_own_after_one_window():
    world = make_world()
    declare(world)
    job = world.running()
    without_the_last(world, job)
    assert len(world.segment(job).attestations) == 2
    world.blocks(PARAMS.attest_window)
    assert world.segment(job).attempt == 1 and operator(world, job) == ""
    without_the_last(world, job)
    world.block(finalise=(world.ref(job),))
    assert world.segment(job).state == SegmentState.HARD


def test_a_worker_that_is_late_costs_nobody_else_the_turns_of_a_job():
    world = make_world(workers=2)
    declare(world)
    declare(world, OTHER, "worker-1")
    job = world.running()
    first = world.worker_of(job)
    world.block(after_ms=PARAMS.segment_timeout_ms + 1)
    assert world.segment(job).attempt == 1 and world.worker_of(job) != first
    assert operator(world, job) in (RICH, OTHER)


# ---- sets change


def test_with_fewer_than_four_validators_nobody_may_have_a_worker():
    world = make_world(3)
    name(world, RICH)
    assert "all must attest" in confirm(world, RICH).message


def test_if_too_few_are_left_the_work_is_attested_by_its_operator_again():
    world = make_world()
    declare(world)
    number = world.propose(RemoveMember(world.key("validator-3").public))
    world.end_epoch()
    assert world.outcome(number) == "effective"
    job = harden(world)
    assert operator(world, job) == "" and len(world.segment(job).attestations) == 3


def test_the_worker_of_a_validator_that_has_gone_is_nobodys_and_may_name_another():
    world = make_world(5)
    declare(world)
    world.do(RICH, Leave())
    world.end_epoch()
    job = world.running()
    assert RICH not in world.validators and operator(world, job) == ""
    declare(world, OTHER)
    assert world.names[OPERATORS.get(world.state(), world.key(WORKER).public).validator] == OTHER


@pytest.mark.parametrize("old", [RICH, WORKER])
def test_who_goes_on_under_another_key_belongs_to_whom_it_did_work_in_hand_too(old):
    world = make_world()
    declare(world)
    job = world.running()
    world.propose(world.replacing(old, "new"))
    world.end_epoch()
    validator, worker = ("new", WORKER) if old == RICH else (RICH, "new")
    assert operator(world, job) == validator
    assert operator(world, world.running(steps=2001)) == validator
    assert "confirmed already" in confirm(world, validator, worker).message
    assert confirm(world, validator, worker, is_own=False).code == "ok"
