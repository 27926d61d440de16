"""Row 19: jobs are repeated, or computed before they are posted, for the weight they would give."""

from __future__ import annotations

import pytest
from vm.world import World

from mlchain.crypto import digest
from mlchain.vm import credits
from mlchain.vm.credits import WORK


@pytest.fixture
def world() -> World:
    return World()


def earned(world: World) -> int:
    return sum(record.units for _, record in WORK.items(world.state()))


def pays(world: World, job: bytes) -> None:
    world.commit(job)
    world.harden(job)


def test_whoever_posts_the_same_training_again_gains_nothing_by_it(world):
    pays(world, world.running())
    before, balance = earned(world), world.balance("alice")
    for name in ("again", "and-again"):
        pays(world, world.running(name=name))
    assert earned(world) == before
    assert world.balance("alice") < balance, "and it paid for every repetition"


def test_nor_by_cutting_paying_or_checking_it_otherwise(world):
    pays(world, world.running())
    before = earned(world)
    pays(world, world.running(chunk=4, segment=100, fee=2_000_003, tier="replicated"))
    assert earned(world) == before


def test_work_that_could_be_done_before_it_was_posted_counts_for_nothing(world):
    pays(world, world.running(seed=bytes(32)))
    assert earned(world) == 0


def test_what_the_chain_seeds_cannot_be_known_before(world):
    one, other = world.running(), world.running(name="again")
    assert world.job(one).order_seed != world.job(other).order_seed


def test_control_counting_whatever_is_hard_repetition_pays(world, monkeypatch):
    monkeypatch.setattr(credits, "training_id", lambda job: digest(job.name))
    pays(world, world.running())
    before = earned(world)
    pays(world, world.running(name="again"))
    assert earned(world) == 2 * before
