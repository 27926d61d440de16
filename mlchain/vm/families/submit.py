"""Posting a job: what a program, its gas, its data and its fee must be before anything runs."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from mlchain.codec import ContentId, Name, Uint
from mlchain.consensus.work.assurance import check_tier, parse_tier
from mlchain.consensus.work.commitment import MAX_SEGMENT_CHUNKS
from mlchain.errors import InvalidTransaction
from mlchain.ledger.transaction import MAX_PAYLOAD_BYTES
from mlchain.ml_runtime import check_plan, decode_plan
from mlchain.vm.agenda import count_open, enter
from mlchain.vm.backlog import slice_gas
from mlchain.vm.context import Context, Payload
from mlchain.vm.families.accounts import debit
from mlchain.vm.families.data import DATASETS
from mlchain.vm.families.jobs import (
    JOBS,
    MAX_SEGMENTS,
    PLANS,
    Job,
    JobState,
    Phase,
    PlanRecord,
    Seed,
    plan_id,
)
from mlchain.vm.families.renewal import find_chains
from mlchain.vm.gas import PLAN_BYTE_GAS, SEGMENT_GAS, check_gas

MAX_ACTIVE_JOBS = 4096
"""Bounds what they hold of the state; a block looks only at those that something may happen to."""
MAX_STEPS = 2**40
MAX_CHUNK_GAS = 20 * 10**9
"""A chunk is what everybody re-runs in a dispute: at most about 20 s (1 gas is about 1 ns)."""
MAX_JOB_GAS = 10**15
MAX_DEALT = 1 << 15
"""Chunks of a segment times the validators that each is dealt to: they are dealt together."""
MAX_STATE_BYTES = 48 << 20
MAX_ARENA_BYTES = 2 << 30
GAS_PER_MICROCREDIT = 10**6
"""A job's fee must pay at least one micro-credit for this much gas."""

SUBMIT_GAS = 20_000


class SubmitJob(Payload, frozen=True):
    """Post a training job and its fee; the job's id is the transaction's.

    `plan` is an encoded `ml_runtime.Plan`; `dataset` a registered content id whose first
    `train_rows` rows train and last `test_rows` rows evaluate; `segment` counts chunks. `seed` is
    empty, so that the order of data comes from the beacon and nobody can work ahead, or 32 bytes
    that make the same job give the same model on every chain (docs/adr/0006).
    """

    KIND: ClassVar[int] = 20
    name: Name
    plan: Annotated[bytes, Meta(max_length=MAX_PAYLOAD_BYTES - 1024)]
    dataset: ContentId
    train_rows: Annotated[int, Meta(ge=1, le=2**32)]
    test_rows: Annotated[int, Meta(ge=0, le=2**32)]
    steps: Annotated[int, Meta(ge=1, le=MAX_STEPS)]
    chunk: Annotated[int, Meta(ge=1, le=2**20)]
    segment: Annotated[int, Meta(ge=1, le=MAX_SEGMENT_CHUNKS)]
    tier: Name
    fee: Uint
    seed: Seed

    def execute(self, ctx: Context) -> None:
        """Check the program and its exact gas before anything runs, then hold the fee."""
        ctx.charge(SUBMIT_GAS + PLAN_BYTE_GAS * len(self.plan))
        voters = len(ctx.block.validators)
        check_tier(parse_tier(self.tier), voters)
        if len(self.seed) not in (0, 32):
            raise InvalidTransaction(f"seed has {len(self.seed)} bytes, 0 or 32 are allowed")
        plan = decode_plan(self.plan)
        ctx.charge(check_gas(plan))
        cost = check_plan(plan)
        gas = cost.gas_per_step * self.steps + cost.gas_predict_row * self.test_rows
        for name, value, limit in (
            ("gas of a chunk", cost.gas_per_step * min(self.chunk, self.steps), MAX_CHUNK_GAS),
            ("gas of the job", gas, MAX_JOB_GAS),
            ("bytes of the state", cost.state_bytes, MAX_STATE_BYTES),
            ("bytes of working memory", cost.arena_bytes, MAX_ARENA_BYTES),
        ):
            if value > limit:
                raise InvalidTransaction(f"{name}: {value}, at most {limit} allowed")
        floor = -(-gas // GAS_PER_MICROCREDIT)
        if self.fee < floor:
            raise InvalidTransaction(f"fee {self.fee} is below {floor} for {gas} gas")
        if not _has_tickets(ctx):
            raise InvalidTransaction("the validators' tickets are used up: nobody could attest")
        dataset = DATASETS.get(ctx.state, self.dataset)
        if dataset is None:
            raise InvalidTransaction("the dataset is not registered", "send RegisterData first")
        if self.train_rows + self.test_rows > dataset.rows or plan.features != dataset.features:
            raise InvalidTransaction(
                f"wants {self.train_rows}+{self.test_rows} rows of {plan.features} features, "
                f"the dataset has {dataset.rows} of {dataset.features}"
            )
        if plan.batch > self.train_rows:
            raise InvalidTransaction(f"batch {plan.batch} exceeds {self.train_rows} training rows")
        job = Job(
            ctx.sender, self.name, plan_id(self.plan), self.dataset,
            self.train_rows, self.test_rows, self.steps, self.chunk, self.segment,
            self.tier, self.fee, self.fee, gas, JobState.SUBMITTED, ctx.block.time_ms,
            ctx.block.height, self.seed, bytes(32), (), (), 0, 0, 0,
        )  # fmt: skip
        verify = slice_gas(self.tier, gas, job.chunks, job.segment_range(0)[1], voters)
        most = ctx.block.params.max_verify_gas
        if verify > most:
            raise InvalidTransaction(
                f"verifying a segment: {verify} gas, at most {most} allowed", "use more segments"
            )
        dealt = parse_tier(self.tier).depth * job.segment_range(0)[1]
        if dealt > MAX_DEALT:
            raise InvalidTransaction(
                f"{dealt} chunks of a segment are dealt, at most {MAX_DEALT} allowed",
                "use more segments",
            )
        if job.segments > MAX_SEGMENTS:
            raise InvalidTransaction(f"{job.segments} segments, at most {MAX_SEGMENTS} allowed")
        ctx.charge(SEGMENT_GAS * job.segments)
        if count_open(ctx.state) >= MAX_ACTIVE_JOBS:
            raise InvalidTransaction("too many jobs are at work", "try again when some have ended")
        debit(ctx.state, ctx.sender, self.fee)
        PLANS.put(ctx.state, PlanRecord(self.plan), job.plan)
        JOBS.put(ctx.state, job, ctx.transaction_id)
        enter(ctx.state, ctx.transaction_id, Phase.DATA, alarm_ms=0)
        ctx.emit(f"job {ctx.transaction_id.hex()} submitted")


def _has_tickets(ctx: Context) -> bool:
    """Tell whether a quorum has hash chains that hold the next height."""
    able = [
        key
        for key in ctx.block.validators.keys
        if find_chains(ctx.state, key, ctx.block.height + 1, ctx.block.params.ticket_heights)
    ]
    return sum(map(ctx.block.validators.weight, able)) >= ctx.block.validators.quorum
