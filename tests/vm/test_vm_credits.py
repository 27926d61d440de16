"""Work credit: what HARD segments are worth to worker and verifiers, for weights of proposers."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import PARAMS, World, make_genesis

from mlchain.consensus.work.attestation import Outcome
from mlchain.vm import late
from mlchain.vm.credits import KEPT_EPOCHS, get_work
from mlchain.vm.families.jobs import JobState
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.params import epoch_of


@pytest.fixture
def world() -> World:
    return World()


def units(world: World, epoch: int | None = None) -> dict[str, int]:
    epoch = epoch_of(PARAMS, world.height) if epoch is None else epoch
    return {world.names[key]: value for key, value in get_work(world.state(), epoch).items()}


def total(world: World, name: str) -> int:
    return sum(units(world, e).get(name, 0) for e in range(epoch_of(PARAMS, world.height) + 1))


def harden(world: World, job: bytes, index: int = 0) -> str:
    world.commit(job, index)
    worker = world.worker_of(job, index)
    world.harden(job, index)
    return worker


def test_a_hard_segment_is_worth_its_gas_to_the_worker_and_the_slice_to_each_verifier(world):
    job = world.running()
    worker = harden(world, job)
    gas = world.job(job).gas // 5
    found = units(world)
    assert found.pop(worker) == gas
    assert found == dict.fromkeys(world.validators, gas * 42 // 200)


def test_work_that_is_not_hard_is_worth_nothing(world):
    job = world.running()
    world.commit(job)
    world.attest(job)
    assert not units(world)


def test_who_did_not_attest_earns_nothing(world):
    job = world.running()
    world.commit(job)
    world.attest(job, names=tuple(world.validators[:3]))
    world.blocks(2)
    world.block(finalise=(world.ref(job),))
    assert world.validators[3] not in units(world)


def test_a_whole_job_is_worth_its_gas(world):
    job = world.running()
    world.settle(job)
    gas = world.job(job).gas
    earned = sum(total(world, f"worker-{i}") for i in range(2))
    assert gas - 5 <= earned <= gas


def test_units_are_kept_by_epoch_and_forgotten_long_after():
    world = World(genesis=make_genesis(params=replace(PARAMS, epoch_blocks=10)))
    job = world.running()
    worker = harden(world, job)
    epoch = world.height // 10
    world.blocks((epoch + KEPT_EPOCHS) * 10 - 1 - world.height)
    assert units(world, epoch)[worker] and not units(world, epoch + 1)
    world.block()
    assert not units(world, epoch)


def test_the_same_training_earns_once(world):
    first = world.running()
    worker = harden(world, first)
    earned = {name: total(world, name) for name in [worker, *world.validators]}
    again = world.running(name="again", tier="replicated", fee=2_000_003)
    assert world.job(again).order_seed != world.job(first).order_seed, "though it is run anew"
    harden(world, again)
    assert sum(units(world).values()) == sum(earned.values())


def test_however_it_is_cut(world):
    harden(world, world.running())
    before = sum(units(world).values())
    harden(world, world.running(chunk=4, segment=100))
    assert sum(units(world).values()) == before


def test_a_longer_training_earns_what_it_adds(world):
    job = world.running()
    worker = harden(world, job)
    longer = world.running(steps=4000, segment=400)
    before = {name: total(world, name) for name in ("worker-0", "worker-1")}
    second = harden(world, longer)
    gained = total(world, second) - before[second]
    assert gained == world.job(longer).gas * 400 // 4000 and worker in before


def test_other_data_order_weights_or_program_is_other_work(world):
    harden(world, world.running())
    before = sum(units(world).values())
    harden(world, world.running(train_rows=40))
    assert sum(units(world).values()) > before


def test_a_job_that_fixed_its_seed_earns_none(world):
    """Its work may have been done at any time before, and kept for the epoch where it counts."""
    harden(world, world.running(seed=bytes(32)))
    assert not units(world)


def test_a_trapped_segment_is_worth_what_was_run(world):
    job = world.running()
    world.commit(job, count=100, trap=201)
    worker = world.worker_of(job)
    world.harden(job)
    assert units(world)[worker] == world.job(job).gas // 10


# ---- a forgery that is found later


def revoked(world: World) -> tuple[str, str]:
    """A job whose only segment is HARD and then found forged; returns (worker, id of it)."""
    job = world.running(steps=400)
    worker = harden(world, job)
    assert units(world)[worker] > 0
    world.accuse(world.validators[0], job, 7)
    world.judge(job, Outcome.DIFFERS)
    assert world.job(job).state == JobState.REVOKED
    return worker, job


def test_work_that_is_found_forged_later_was_worth_nothing(world):
    revoked(world)
    assert units(world) == {}


def test_control_what_is_not_taken_back_goes_on_to_buy_turns(world, monkeypatch):
    monkeypatch.setattr(late, "take_back", lambda *about: None)
    attesters = world.validators
    worker, _ = revoked(world)
    assert {worker, *attesters} == set(units(world))


def test_only_what_the_forged_work_earned_is_taken(world):
    other = world.running(train_rows=44, test_rows=16, steps=400)
    harden(world, other)
    before = units(world)
    revoked(world)
    assert units(world) == before


def test_who_trains_it_again_honestly_earns_what_the_forger_lost(world):
    revoked(world)
    worker = harden(world, world.running(steps=400))
    assert total(world, worker) > 0


@pytest.mark.parametrize("number", [0, 3], ids=["worked", "idle"])
def test_a_validator_that_changes_its_key_keeps_the_turns_its_work_earned(number):
    """Three of four attest; at the end of the next epoch one of the four gets another key."""
    world = World(genesis=make_genesis(params=replace(PARAMS, epoch_blocks=20)))
    job = world.running()
    world.commit(job)
    names = world.validators
    world.attest(job, names=tuple(names[:3]))
    world.blocks(2)
    world.block(finalise=(world.ref(job),))
    world.end_epoch()
    world.propose(world.replacing(names[number], "new"))
    world.end_epoch()
    found = get_validator_set(world.state())
    turns = {world.names[key]: turn for key, turn in zip(found.keys, found.turns, strict=True)}
    expected = dict(zip(names, (3, 3, 3, 1), strict=True))
    expected["new"] = expected.pop(names[number])
    assert turns == expected
