"""A job is admitted, accepted and started (sections 5 and 7): each test is one rule."""

from __future__ import annotations

import pytest
from factories import make_key
from msgspec.structs import replace
from vm.world import CONTENT, FEATURES, JOB, PARAMS, ROWS, World, make_genesis, make_member, plan

from mlchain import codec
from mlchain.consensus.work.tickets import BEACON
from mlchain.crypto import digest
from mlchain.errors import InvalidBlock
from mlchain.ledger.transaction import transaction_id
from mlchain.ml_runtime import Plan, check_plan, make_plan
from mlchain.vm.families import submit
from mlchain.vm.families.data import DATASETS, RegisterData
from mlchain.vm.families.jobs import ACTIVE, PLANS, JobState, SegmentState
from mlchain.vm.lifecycle import ORDER_DELAY
from mlchain.vm.votes import get_beacon

COST = check_plan(plan())


@pytest.fixture
def world() -> World:
    made = World()
    made.do("alice", RegisterData(CONTENT, 9_999, ROWS, FEATURES))
    return made


def refusal(world: World, **changes: object) -> str:
    """Hand in a job that must fail; returns why."""
    before = world.balance("alice")
    receipt = world.do("alice", replace(JOB, **changes))
    assert receipt.code != "ok"
    assert not list(ACTIVE.items(world.state())) and world.balance("alice") == before
    return receipt.message


def chunk_gas(steps: int) -> int:
    return COST.gas_per_step * steps


REFUSED = {
    "tier": ({"tier": "platinum"}, "unknown tier"),
    "program": ({"plan": b"\x93\x01\x02\x03"}, "plan:"),
    "rows": ({"train_rows": ROWS, "test_rows": 1}, "wants 60+1 rows"),
    "features": (
        {"plan": make_plan("softmax", features=5, classes=3, optimiser="sgd", batch=8).encode()},
        "of 5 features",
    ),
    "batch": ({"plan": plan(46).encode()}, "batch 46 exceeds 45"),
    "segments": ({"steps": 2 * 4097, "segment": 1}, "4097 segments"),
    "fee": ({"fee": 0}, "is below"),
    "purse": ({"fee": 2**60}, "balance"),
    "seed": ({"seed": b"short"}, "seed has 5 bytes"),
    "unregistered": ({"dataset": CONTENT[:-1] + b"x"}, "not registered"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_job_is_refused_for_its(world, name):
    changes, reason = REFUSED[name]
    assert reason in refusal(world, **changes)


@pytest.mark.parametrize("field", ["train_rows", "steps", "chunk", "segment", "name"])
def test_a_field_outside_its_bounds_never_enters_a_block(world, field):
    bad = replace(JOB, **{field: "" if field == "name" else 0})
    with pytest.raises(InvalidBlock, match="may not be included"):
        world.do("alice", bad)


def test_gas_is_counted_before_anything_runs(world):
    """A job that would train for a day is refused in an instant."""
    assert "gas of the job" in refusal(world, steps=submit.MAX_STEPS, segment=2**18)


def test_a_chunk_fits_what_all_re_run_in_a_dispute(world, monkeypatch):
    monkeypatch.setattr(submit, "MAX_CHUNK_GAS", chunk_gas(2) - 1)
    assert "gas of a chunk" in refusal(world)
    monkeypatch.setattr(submit, "MAX_CHUNK_GAS", chunk_gas(2))
    assert world.do("alice", JOB).code == "ok"


def test_a_job_shorter_than_its_chunk_is_measured_by_its_steps(world, monkeypatch):
    monkeypatch.setattr(submit, "MAX_CHUNK_GAS", chunk_gas(5))
    assert world.do("alice", replace(JOB, steps=5, chunk=1000)).code == "ok"


@pytest.mark.parametrize("bound, words", [("ARENA", "working memory"), ("STATE", "the state")])
def test_memory_is_bounded_before_anything_runs(world, monkeypatch, bound, words):
    monkeypatch.setattr(submit, f"MAX_{bound}_BYTES", 50)
    assert words in refusal(world)


def test_the_fee_pays_at_least_for_the_gas(world):
    gas = COST.gas_per_step * JOB.steps + COST.gas_predict_row * JOB.test_rows
    floor = -(-gas // submit.GAS_PER_MICROCREDIT)
    assert f"below {floor}" in refusal(world, fee=floor - 1)
    assert world.do("alice", replace(JOB, fee=floor)).code == "ok"


def test_the_fee_is_held_and_nothing_else_is_taken(world):
    before = world.balance("alice")
    sent = world.transaction("alice", JOB)
    world.block(sent)
    job = world.job(transaction_id(sent))
    assert (job.state, job.fee, job.escrow) == (JobState.SUBMITTED, JOB.fee, JOB.fee)
    assert world.balance("alice") == before - JOB.fee


def test_the_number_of_open_jobs_is_bounded(world, monkeypatch):
    monkeypatch.setattr(submit, "MAX_ACTIVE_JOBS", 2)
    sent = [world.transaction("alice", JOB, ahead=i) for i in range(3)]
    assert [r.code for r in world.block(*sent)] == ["ok", "ok", "invalid-transaction"]


def test_one_plan_of_many_jobs_is_stored_once(world):
    sent = [world.transaction("alice", JOB, ahead=i) for i in range(2)]
    world.block(*sent)
    assert len(list(PLANS.items(world.state()))) == 1
    assert isinstance(codec.decode(Plan, next(iter(PLANS.items(world.state())))[1].plan), Plan)


# ---- data


def test_data_that_an_honest_validator_holds_keeps_its_numbers():
    world = World()
    job = world.submit()
    world.hold(*world.validators[:2])
    content = world.job(job).dataset
    numbers = DATASETS.get(world.state(), content)
    wrong = RegisterData(content, numbers.size, numbers.rows + 1, numbers.features)
    assert "other numbers" in world.do("bob", wrong).message
    assert DATASETS.get(world.state(), content).rows == numbers.rows


def test_wrong_numbers_that_at_most_a_third_vouches_for_are_replaced():
    world = World()
    job = world.submit()
    world.hold(world.validators[0])
    content = world.job(job).dataset
    numbers = DATASETS.get(world.state(), content)
    right = RegisterData(content, numbers.size, numbers.rows + 1, numbers.features)
    assert world.do("bob", right).code == "ok"
    assert DATASETS.get(world.state(), content).rows == numbers.rows + 1
    assert DATASETS.get(world.state(), content).holders == ()


@pytest.mark.parametrize("field", ["size", "rows", "features"])
def test_data_has_at_least_one_of_everything(world, field):
    with pytest.raises(InvalidBlock, match="RegisterData: Expected `int` >= 1"):
        world.do("alice", replace(RegisterData(CONTENT, 1, 1, 1), **{field: 0}))


# ---- acceptance


@pytest.mark.parametrize("holders, is_accepted", [(0, False), (2, False), (3, True), (4, True)])
def test_a_job_is_accepted_once_a_quorum_holds_its_data(holders, is_accepted):
    world = World()
    job = world.submit()
    world.hold(*world.validators[:holders]) if holders else world.blocks(2)
    assert (world.job(job).state == JobState.ACCEPTED) is is_accepted


@pytest.mark.parametrize(("rows", "features"), [(ROWS - 1, FEATURES), (ROWS, FEATURES + 1)])
def test_a_job_that_its_data_does_not_fit_when_it_is_there_expires_and_costs_nothing(
    rows, features
):
    """Numbers are anybody's word until a validator confirms them; then others may stand."""
    world = World()
    before = world.balance("alice")
    job = world.submit(train_rows=ROWS - JOB.test_rows)
    assert world.do("bob", RegisterData(CONTENT, 9_999, rows, features)).code == "ok"
    world.hold()
    assert world.job(job).state == JobState.EXPIRED and world.balance("alice") == before


def test_holders_that_were_removed_do_not_count():
    """Of three holders one equivocates; the other two are no quorum of the three that are left."""
    world = World()
    job = world.submit()
    liar, *honest = world.validators
    for name in (liar, *honest[:2]):
        world.announce(name, CONTENT)
    world.block(evidence=(world.double_vote(liar),), proposer=honest[0])
    world.block()
    assert len(DATASETS.get(world.state(), CONTENT).holders) == 2
    assert world.job(job).state == JobState.SUBMITTED
    world.hold(honest[2])
    assert world.job(job).state == JobState.ACCEPTED


def test_what_is_not_registered_cannot_be_held():
    world = World()
    world.hold()
    assert DATASETS.get(world.state(), CONTENT) is None


# ---- order and assignment


def test_order_and_workers_are_fixed_two_blocks_after_acceptance():
    world = World()
    job = world.submit()
    world.hold()
    accepted = world.height
    for _ in range(ORDER_DELAY - 1):
        world.block()
        assert world.job(job).state == JobState.ACCEPTED
        assert world.job(job).order_seed == bytes(32) and not world.job(job).workers
    world.block()
    record = world.job(job)
    assert world.height == accepted + ORDER_DELAY == accepted + 2
    assert record.state == JobState.RUNNING and len(record.workers) == 2
    assert record.order_seed == digest("mlchain/order", get_beacon(world.state()), job)
    first = world.segment(job)
    assert (first.state, first.worker) == (SegmentState.ASSIGNED, record.workers[0])
    assert first.deadline_ms == world.store.head.time_ms + PARAMS.segment_timeout_ms


def test_the_seed_depends_on_elements_shown_after_acceptance():
    """Everything before it equal, one validator's later silence gives another order."""
    seeds = []
    for absent in ((), ("validator-0",)):
        world = World()
        job = world.submit()
        world.hold()
        world.absent = absent
        world.blocks(ORDER_DELAY)
        seeds.append(world.job(job).order_seed)
    assert seeds[0] != seeds[1]


def test_a_fixed_seed_gives_the_same_order_on_every_chain():
    """What a submitter pays for it with: it could have worked ahead (docs/adr/0006)."""
    seeds = {
        world.job(world.running(seed=b"s" * 32)).order_seed
        for world in (World(), World(genesis=make_genesis(chain_id="test-other")))
    }
    assert len(seeds) == 1 and seeds != {bytes(32)}


def test_every_certificate_moves_the_beacon_to_a_value_nobody_chose():
    world = World()
    world.block()
    seen = [get_beacon(world.state())]
    for _ in range(4):
        world.block()
        shown = [
            world.key(name).public + world.chain(name, BEACON).at(world.height - 1)
            for name in world.validators
        ]
        seen.append(get_beacon(world.state()))
        assert seen[-1] == digest("mlchain/beacon", seen[-2], *shown)
    assert len(set(seen)) == 5


def test_the_turns_of_workers_differ_from_job_to_job():
    world = World(workers=3)
    orders = {world.job(world.running(name=f"job-{i}")).workers for i in range(6)}
    assert len(orders) > 1
    assert all(len(set(order)) == 3 for order in orders)


def test_without_any_worker_a_job_ends_and_is_refunded():
    world = World(workers=0)
    before = world.balance("alice")
    job = world.submit()
    world.hold()
    world.blocks(2)
    assert world.job(job).state == JobState.EXPIRED
    assert world.balance("alice") == before and not list(ACTIVE.items(world.state()))


def test_a_job_whose_data_nobody_gets_expires_with_a_refund():
    world = World()
    before = world.balance("alice")
    job = world.submit()
    world.block(after_ms=PARAMS.segment_timeout_ms)
    assert world.job(job).state == JobState.SUBMITTED
    world.block()
    assert world.job(job).state == JobState.EXPIRED
    assert world.balance("alice") == before


def test_a_member_joins_with_the_role_genesis_gives():
    genesis = make_genesis()
    observer = make_member("observer-0", "observer")
    world = World(genesis=replace(genesis, members=(*genesis.members, observer)))
    assert make_key("observer-0").public not in {world.key(n).public for n in world.validators}
