"""Jobs: what is trained, its segments, and the three requests that move them.

The life cycle is protocol.md section 5. What happens without a request (assignment, deadlines,
rulings, payment) is `vm.lifecycle`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from mlchain import crypto
from mlchain.codec import ContentId, Hash, Name, PublicKey, Record, Uint
from mlchain.consensus.work.commitment import (
    MAX_SEGMENT_CHUNKS,
    SegmentCommit,
    commit_id,
)
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.consensus.work.sampling import TIERS, draw_slice, slice_size
from mlchain.consensus.work.tickets import check_reveal
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import State, Table
from mlchain.ledger.transaction import MAX_PAYLOAD_BYTES
from mlchain.ledger.validators import MAX_VALIDATORS
from mlchain.ml_runtime import check_plan, decode_plan
from mlchain.vm.context import Context, Payload
from mlchain.vm.families.accounts import debit
from mlchain.vm.families.data import DATASETS
from mlchain.vm.families.members import VALIDATORS

MAX_ACTIVE_JOBS = 64
MAX_SEGMENTS = 4096
MAX_STEPS = 2**40
MAX_CHUNK_GAS = 20 * 10**9
"""A chunk is what everybody re-runs in a dispute: at most about 20 s (1 gas is about 1 ns)."""
MAX_JOB_GAS = 10**15
MAX_STATE_BYTES = 48 << 20
MAX_ARENA_BYTES = 2 << 30
GAS_PER_MICROCREDIT = 10**6
"""A job's fee must pay at least one micro-credit for this much gas."""
MAX_CLEARED = 1024
"""Claims against one commit that may be rejected; then the segment is given to another worker."""

Seed = Annotated[bytes, Meta(max_length=32)]
"""Empty, or 32 bytes."""

SUBMIT_GAS = 20_000
COMMIT_GAS = 5_000
CLAIM_GAS = 5_000
HASH_GAS = 400
"""For each element of a hash chain between the one shown and the one known."""


class JobState(IntEnum):
    """Where a job stands."""

    SUBMITTED = 0
    ACCEPTED = 1
    RUNNING = 2
    SETTLED = 3
    TRAPPED = 4
    EXPIRED = 5


class SegmentState(IntEnum):
    """Where a segment stands. A fallen segment is assigned again under a new attempt."""

    ASSIGNED = 0
    COMMITTED = 1
    DISPUTED = 2
    HARD = 3


class Job(Record, frozen=True):
    """A job. `fee` is the whole fee, `escrow` what of it is still held.

    `chunk` is in steps, `segment` in chunks. `order_seed` is zero until two blocks after
    acceptance; `seed` is what the submitter fixed it with, or empty. `hard` segments are final,
    `assigned` have been given out, `attempts` counts falls. `workers` is the order of turns,
    `excluded` those that failed this job.
    """

    submitter: PublicKey
    name: Name
    plan: Hash
    dataset: ContentId
    train_rows: Uint
    test_rows: Uint
    steps: Uint
    chunk: Uint
    segment: Uint
    tier: Name
    fee: Uint
    escrow: Uint
    gas: Uint
    state: Uint
    submitted_ms: Uint
    height: Uint
    """Height of the last change of `state`."""
    seed: Seed
    order_seed: Hash
    workers: Annotated[tuple[PublicKey, ...], Meta(max_length=4 * MAX_VALIDATORS)]
    excluded: Annotated[tuple[PublicKey, ...], Meta(max_length=4 * MAX_VALIDATORS)]
    hard: Uint
    assigned: Uint
    attempts: Uint

    @property
    def chunks(self) -> int:
        """Chunks of the whole job."""
        return -(-self.steps // self.chunk)

    @property
    def segments(self) -> int:
        """Segments of the whole job."""
        return -(-self.chunks // self.segment)

    def segment_range(self, index: int) -> tuple[int, int]:
        """Return (first chunk, count) of a segment."""
        first = index * self.segment
        return first, min(self.segment, self.chunks - first)


class Attested(Record, frozen=True):
    """A validator's attestation as it stands on chain; its slice follows from the ticket."""

    validator: PublicKey
    ticket: Hash
    result_root: Hash


class Ballot(Record, frozen=True):
    """A validator's verdict on a claim."""

    validator: PublicKey
    outcome: Uint


class Claim(Record, frozen=True):
    """An open claim against one chunk of a committed segment."""

    accuser: PublicKey
    kind: Uint
    chunk: Uint
    height: Uint
    ballots: Annotated[tuple[Ballot, ...], Meta(max_length=MAX_VALIDATORS)]


class Segment(Record, frozen=True):
    """A segment under its present attempt.

    `undisputed_since` is the height of the commit, or of the last rejected claim: from there the
    age counts that FINALISE asks for. `cleared` are the chunks whose claims were rejected.
    """

    state: Uint
    worker: PublicKey
    attempt: Uint
    deadline_ms: Uint
    commit: SegmentCommit | None
    commit_height: Uint
    attestations: Annotated[tuple[Attested, ...], Meta(max_length=MAX_VALIDATORS)]
    claim: Claim | None
    cleared: Annotated[tuple[Uint, ...], Meta(max_length=MAX_CLEARED)]
    undisputed_since: Uint
    hard_height: Uint


class PlanRecord(Record, frozen=True):
    """The bytes of a tensor program, stored once under their hash."""

    plan: Annotated[bytes, Meta(max_length=MAX_PAYLOAD_BYTES)]


class Active(Record, frozen=True):
    """Marks a job that has not ended."""


JOBS = Table(b"job/", Job, bytes)
SEGMENTS = Table(b"segment/", Segment, bytes, int)
PLANS = Table(b"plan/", PlanRecord, bytes)
ACTIVE = Table(b"active/", Active, bytes)


def get_segment(state: State, job: bytes, index: int) -> Segment:
    """Return a segment that has been assigned.

    Raises:
        InvalidTransaction: there is none.
    """
    segment = SEGMENTS.get(state, job, index)
    if segment is None:
        raise InvalidTransaction(f"job {job.hex()[:8]} has no segment {index} at work")
    return segment


def fixed_seed(number: int) -> bytes:
    """Return the 32 bytes that stand for a person's `seed = 7`."""
    return crypto.digest("mlchain/seed", number.to_bytes(8, "little"))


def plan_id(plan: bytes) -> bytes:
    """Return the id under which a plan is stored."""
    return crypto.digest("mlchain/plan", plan)


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
        ctx.charge(SUBMIT_GAS + 10 * len(self.plan))
        if self.tier not in TIERS:
            raise InvalidTransaction(f"unknown tier {self.tier!r}", "one of " + ", ".join(TIERS))
        if len(self.seed) not in (0, 32):
            raise InvalidTransaction(f"seed has {len(self.seed)} bytes, 0 or 32 are allowed")
        plan = decode_plan(self.plan)
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
        if ctx.block.height >= ctx.block.params.ticket_heights:
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
        if job.segments > MAX_SEGMENTS:
            raise InvalidTransaction(f"{job.segments} segments, at most {MAX_SEGMENTS} allowed")
        if sum(1 for _ in ACTIVE.items(ctx.state)) >= MAX_ACTIVE_JOBS:
            raise InvalidTransaction("too many jobs are at work", "try again when some have ended")
        debit(ctx.state, ctx.sender, self.fee)
        PLANS.put(ctx.state, PlanRecord(self.plan), job.plan)
        JOBS.put(ctx.state, job, ctx.transaction_id)
        ACTIVE.put(ctx.state, Active(), ctx.transaction_id)
        ctx.emit(f"job {ctx.transaction_id.hex()} submitted")


class CommitSegment(Payload, frozen=True):
    """The assigned worker binds itself to a segment's result. There is no second try."""

    KIND: ClassVar[int] = 21
    ROLE: ClassVar[str] = "worker"
    commit: SegmentCommit

    def execute(self, ctx: Context) -> None:
        """Check that the commit fits its place, and store it."""
        ctx.charge(COMMIT_GAS)
        commit = self.commit
        job = JOBS.get(ctx.state, commit.job)
        if job is None or job.state != JobState.RUNNING:
            raise InvalidTransaction("no such job is running")
        segment = get_segment(ctx.state, commit.job, commit.segment)
        if segment.state != SegmentState.ASSIGNED or segment.attempt != commit.attempt:
            raise InvalidTransaction("this attempt has been committed or taken away already")
        if segment.worker != ctx.sender:
            raise InvalidTransaction("the segment is assigned to another worker")
        self._check_shape(ctx.state, job)
        SEGMENTS.put(
            ctx.state,
            replace(
                segment,
                state=SegmentState.COMMITTED,
                commit=commit,
                commit_height=ctx.block.height,
                undisputed_since=ctx.block.height,
            ),
            commit.job,
            commit.segment,
        )
        ctx.emit(f"segment {commit.segment} of {commit.job.hex()[:8]} committed")

    def _check_shape(self, state: State, job: Job) -> None:
        commit = self.commit
        first, count = job.segment_range(commit.segment)
        if commit.segment:
            before = get_segment(state, commit.job, commit.segment - 1).commit
            if before is None or before.end != commit.start:
                raise InvalidTransaction("start is not the end of the segment before")
        if commit.trap:
            in_reach = (commit.trap - 1) // job.chunk == first + commit.count
            if not in_reach or commit.count >= count or commit.trap > job.steps:
                raise InvalidTransaction("a trap ends the chunk that follows the last whole one")
        elif commit.count != count:
            raise InvalidTransaction(f"{commit.count} chunks, the segment has {count}")
        if not commit.count and commit.end != commit.start:
            raise InvalidTransaction("without a whole chunk the end is the start")
        is_last = commit.segment == job.segments - 1 and not commit.trap
        expected = job.test_rows if is_last else 0
        if commit.metrics is not None and (commit.metrics.total != expected or not expected):
            raise InvalidTransaction(f"evaluated {commit.metrics.total} rows, expected {expected}")


class MakeClaim(Payload, frozen=True):
    """A validator accuses a committed segment; everybody then re-runs `chunk`.

    A FRAUD claim may name any chunk, and costs the accuser its slash if the chunk is right. An
    UNSERVED claim is limited to the accuser's own slice, which `ticket` proves.
    """

    KIND: ClassVar[int] = 22
    ROLE: ClassVar[str] = "validator"
    job: Hash
    segment: Uint
    commit: Hash
    chunk: Uint
    kind: Annotated[int, Meta(ge=0, le=1)]
    ticket: Hash

    def execute(self, ctx: Context) -> None:
        """Open the dispute; while it is open the segment cannot become HARD."""
        ctx.charge(CLAIM_GAS)
        segment = get_segment(ctx.state, self.job, self.segment)
        job = JOBS.get(ctx.state, self.job)
        if job is None or segment.commit is None or commit_id(segment.commit) != self.commit:
            raise InvalidTransaction("this commit is not at work")
        if segment.state != SegmentState.COMMITTED:
            raise InvalidTransaction("the segment is disputed already, or HARD")
        first, _ = job.segment_range(self.segment)
        reach = segment.commit.count + (1 if segment.commit.trap else 0)
        if not first <= self.chunk < first + reach:
            raise InvalidTransaction(f"chunk {self.chunk} is not in segment {self.segment}")
        if self.chunk in segment.cleared:
            raise InvalidTransaction("this chunk has been re-run by all and was right")
        if self.kind == ClaimKind.UNSERVED:
            own = own_slice(ctx, job, segment, segment.commit, self.ticket)
            if self.chunk - first not in own:
                raise InvalidTransaction("only chunks of one's own slice can be asked for")
        claim = Claim(ctx.sender, self.kind, self.chunk, ctx.block.height, ())
        SEGMENTS.put(
            ctx.state,
            replace(segment, state=SegmentState.DISPUTED, claim=claim),
            self.job,
            self.segment,
        )
        ctx.emit(f"chunk {self.chunk} of {self.job.hex()[:8]} disputed")


def own_slice(
    ctx: Context, job: Job, segment: Segment, commit: SegmentCommit, ticket: bytes
) -> tuple[int, ...]:
    """Return the sender's slice of a commit, as offsets into the segment.

    Raises:
        InvalidTransaction: the ticket is not the sender's for that height.
    """
    record = VALIDATORS.get(ctx.state, ctx.sender)
    assert record is not None, "the role was checked"
    length = ctx.block.params.ticket_heights
    ctx.charge(HASH_GAS * abs(segment.commit_height - record.tickets.height))
    if check_reveal(record.tickets, ticket, segment.commit_height, length) is None:
        raise InvalidTransaction("the ticket is not of the sender's registered chain")
    return segment_slice(job, commit, ticket, len(ctx.block.validators))


def segment_slice(
    job: Job, commit: SegmentCommit, ticket: bytes, validators: int
) -> tuple[int, ...]:
    """Return the offsets (0 = first chunk of the segment) that `ticket` draws from a commit.

    Of a trapped segment the chunk that traps is part of every slice: it decides the result.
    """
    total = commit.count
    size = slice_size(job.tier, job.chunks, total, validators) if total else 0
    drawn = draw_slice(ticket, commit.leaf_root, total, size) if total else ()
    return (*drawn, total) if commit.trap else drawn
