"""Row 21: huge jobs, and jobs that are cheap to post and dear to check."""

from __future__ import annotations

from fractions import Fraction

import pytest
from factories import make_chain
from msgspec.structs import replace
from vm.world import CONTENT, FEATURES, JOB, PARAMS, ROWS, World, make_genesis, plan

from mlchain.consensus.work import assurance
from mlchain.consensus.work.assurance import AUDITED_MISS, Tier, slice_size
from mlchain.ml_runtime import check_plan, make_plan
from mlchain.ml_runtime.program import Node
from mlchain.vm.families import submit
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.jobs import JOBS, JobState
from mlchain.vm.families.submit import GAS_PER_MICROCREDIT
from mlchain.vm.gas import BYTE_GAS, NODE_GAS, PAIR_GAS, SEGMENT_GAS

COST = check_plan(plan())


@pytest.fixture
def world() -> World:
    made = World()
    made.do("alice", RegisterData(CONTENT, 9_999, ROWS, FEATURES))
    return made


BOMBS = {
    "a training of weeks": {"steps": 2**40, "segment": 2**18},
    "a chunk of minutes": {
        "plan": make_plan(
            "mlp", features=4, classes=3, optimiser="sgd", batch=32, hidden=(2048,)
        ).encode(),
        "steps": 2**20,
        "chunk": 2**20,
    },
    "a segment that takes seconds to deal": {
        "tier": "covered:4",
        "chunk": 1,
        "steps": 2**14,
        "segment": 2**14,
    },
    "a segment for every step": {"steps": 10**5, "chunk": 1, "segment": 1},
}


@pytest.mark.parametrize("name", BOMBS)
def test_it_is_refused_before_anything_runs(world, name):
    receipt = world.do("alice", replace(JOB, **BOMBS[name]))
    assert receipt.code == "invalid-transaction" and "at most" in receipt.message
    assert receipt.gas_used < 2 * 10**6, "and refusing it took less than two milliseconds' gas"


def test_work_on_the_chain_is_paid_for_before_it_is_done(world):
    """A fat plan costs its bytes, whatever it then turns out to be."""
    fat = replace(JOB, plan=bytes(200_000))
    receipt = world.do("alice", fat, gas_price=1)
    assert receipt.code != "ok" and receipt.gas_used > (BYTE_GAS + 10) * 200_000
    assert world.balance(world.validators[0]) == receipt.gas_used


@pytest.mark.parametrize("count", [100, 1000])
def test_every_op_of_a_plan_is_paid_for_before_it_is_checked(world, monkeypatch, count):
    """Ops are tiny in bytes; finding places in memory looks at each pair of them."""
    small, step = plan(), plan().step
    idle = Node("absolute", (len(step.inputs) + len(step.nodes) - 1,), ())
    fat = replace(small, step=replace(step, nodes=(*step.nodes, *[idle] * count)))
    checked: list[object] = []
    monkeypatch.setattr(submit, "check_plan", lambda p: checked.append(p) or check_plan(p))
    job, price = replace(JOB, plan=fat.encode()), NODE_GAS * count + PAIR_GAS * count**2
    assert world.do("alice", job, gas_limit=price).code == "out-of-gas" and not checked
    assert world.do("alice", job, gas_limit=9 * 10**7).gas_used > price and checked


def test_every_segment_that_stays_in_the_state_is_paid_for(world):
    few, many = (
        world.do("alice", replace(JOB, segment=size)).gas_used for size in (200, 2)
    )  # of 1,000 chunks
    assert abs(many - few - SEGMENT_GAS * (500 - 5)) < 10 * BYTE_GAS


def test_the_fee_of_the_largest_job_is_held_in_full():
    """Gas per chunk, per job and the fee floor bound each other: no free hour on all machines."""
    steps = submit.MAX_JOB_GAS // (COST.gas_per_step + COST.gas_predict_row)
    floor = COST.gas_per_step * steps // GAS_PER_MICROCREDIT
    assert floor > 10**8
    world = World()
    world.do("alice", RegisterData(CONTENT, 9_999, ROWS, FEATURES))
    huge = replace(JOB, steps=steps, chunk=2**16, segment=2**16, fee=floor // 2)
    assert "is below" in world.do("alice", huge).message


def test_gas_is_what_it_takes():
    """The declared gas of a job that really runs is the sum over its steps, exactly."""
    chain = make_chain(1, 1)
    job = chain.run_job()
    record = chain.job(job)
    assert record.state == JobState.SETTLED
    cost = check_plan(chain.trainer(record).plan)
    assert record.gas == record.steps * cost.gas_per_step + 15 * cost.gas_predict_row


def test_control_without_the_bound_on_a_chunk_a_dispute_would_stop_everybody(monkeypatch):
    """A claim costs nothing when it is right to make it, and all re-run the chunk at once."""
    world = World(genesis=make_genesis(params=replace(PARAMS, max_verify_gas=10**15)))
    world.do("alice", RegisterData(CONTENT, 9_999, ROWS, FEATURES))
    bomb = replace(JOB, **BOMBS["a chunk of minutes"], fee=10**7)
    monkeypatch.setattr(submit, "MAX_CHUNK_GAS", 10**15)
    receipt = world.do("alice", bomb)
    assert receipt.code == "ok"
    ((_, job),) = JOBS.items(world.state())
    assert job.gas // 10**9 > 60, "seconds, of every validator, for one claim"


def test_sizing_slices_is_cheap_however_long_the_job(monkeypatch):
    """Counted in factors multiplied; the control sizes downwards, as one would first write it."""
    factors = []
    real = assurance.miss_probability
    assurance._audited_size.cache_clear()

    def counted(total: int, rerun: int, forged: int) -> Fraction:
        factors.append(min(rerun, forged))
        return real(total, rerun, forged) if factors[-1] < 5000 else Fraction(0)

    monkeypatch.setattr(assurance, "miss_probability", counted)
    total = 10**8
    size = slice_size(Tier("audited"), total, total, 4)
    assert size == 230 and sum(factors) < 10_000
    factors.clear()
    low, high = 1, total
    while low < high:
        middle = (low + high) // 2
        if counted(total, middle, total // 100) ** 3 <= AUDITED_MISS:
            high = middle
        else:
            low = middle + 1
    assert low == size and sum(factors) > 10**6
