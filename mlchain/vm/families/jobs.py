"""Jobs and their segments as they stand in the state.

The life cycle is protocol.md section 5. The requests that move a job are `families.submit` and
`families.segments`; what happens without a request (assignment, deadlines, rulings, payment) is
`vm.lifecycle`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from typing import Annotated, Protocol, TypeVar

from msgspec import Meta

from mlchain import crypto
from mlchain.codec import ContentId, Hash, Name, PublicKey, Record, Uint
from mlchain.consensus.work.assurance import parse_tier, slice_size
from mlchain.consensus.work.attestation import STRETCHES, count_stretches, stretch_range
from mlchain.consensus.work.commitment import SegmentCommit
from mlchain.consensus.work.sampling import draw_checkers, draw_slice
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import Mark, State, Table
from mlchain.ledger.transaction import MAX_PAYLOAD_BYTES
from mlchain.ledger.validators import MAX_VALIDATORS, ValidatorSet
from mlchain.vm.backlog import slice_gas

MAX_SEGMENTS = 4096
DRAW_GAS = 2_000
"""For each chunk that is drawn, or dealt to one validator."""
LIST_GAS = 200
"""For each chunk of a slice that is listed."""
MAX_CLEARED = 1024
"""Claims against one commit that may be rejected; then the segment is given to another worker."""

Seed = Annotated[bytes, Meta(max_length=32)]
"""Empty, or 32 bytes."""


class JobState(IntEnum):
    """Where a job stands."""

    SUBMITTED = 0
    ACCEPTED = 1
    RUNNING = 2
    SETTLED = 3
    TRAPPED = 4
    EXPIRED = 5
    REVOKED = 6
    """It had a result, or segments that were HARD; one of them turned out to be forged."""


class SegmentState(IntEnum):
    """Where a segment stands. A fallen segment is assigned again under a new attempt."""

    ASSIGNED = 0
    COMMITTED = 1
    DISPUTED = 2
    HARD = 3
    ADMITTED = 4
    """Its worker says itself that it is wrong: it falls at the end of the block."""


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
    """An open claim against one chunk of a committed segment.

    `accuser` answers for it. `finders` are those who claimed it and whose own slice held the chunk:
    they share what a finder gets (docs/adr/0040).
    """

    accuser: PublicKey
    kind: Uint
    chunk: Uint
    height: Uint
    ballots: Annotated[tuple[Ballot, ...], Meta(max_length=MAX_VALIDATORS)]
    finders: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_VALIDATORS)]


class Cover(Record, frozen=True):
    """Who re-runs the chunks of a segment whose tier deals them out.

    `seed` deals each chunk to some of the `roster`. Who of them stayed silent is `absent`: the
    next in the row of each chunk stand in. `height` is the block that last dealt.
    """

    seed: Hash
    roster: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_VALIDATORS)]
    absent: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_VALIDATORS)]
    height: Uint

    @property
    def members(self) -> tuple[bytes, ...]:
        """Those who are to attest."""
        return tuple(key for key in self.roster if key not in self.absent)


class Review(Record, frozen=True):
    """Which stretches of a HARD segment a validator says it has re-run since, as bits."""

    validator: PublicKey
    stretches: Annotated[int, Meta(ge=0, lt=2**STRETCHES)]


class Segment(Record, frozen=True):
    """A segment under its present attempt.

    `undisputed_since` is the height of the commit, or of the last rejected claim: from there the
    age counts that FINALISE asks for. `cleared` are the chunks whose claims were rejected.
    `voters` counts the validators when the commit was made: it sizes the slices. `cover` says who
    re-runs what if the tier deals that out, None until it has. A HARD segment can have a claim, too
    (`vm.late`), and `reviews` by validators that had nothing else to do.
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
    voters: Uint
    cover: Cover | None
    hard_height: Uint
    reviews: Annotated[tuple[Review, ...], Meta(max_length=MAX_VALIDATORS)]
    credited: Uint = 0
    """Units of verified work that it was worth to its worker (`vm.credits`)."""
    lapsed: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_VALIDATORS)] = ()
    """Who made a claim since it is HARD that came to nothing: it makes no other here."""
    operator: Annotated[bytes, Meta(max_length=32)] = b""
    """The validator that the worker belonged to when it was assigned, or empty."""

    @property
    def attest_from(self) -> int:
        """Height of the block after which attestations are awaited."""
        return self.cover.height if self.cover else self.commit_height

    def is_own(self, validator: bytes) -> bool:
        """Tell whether it is a validator's own work, which it neither attests nor reviews."""
        return validator in (self.worker, self.operator or self.worker)


class _BySomebody(Protocol):
    @property
    def validator(self) -> bytes: ...


Said = TypeVar("Said", bound=_BySomebody)


def with_said(kept: tuple[Said, ...], said: Said, validators: ValidatorSet) -> tuple[Said, ...]:
    """Return what validators said of one thing with what one more says.

    Members come and go while it is open. A full list forgets those that are validators no more:
    they weigh nothing and are not paid. So a present one always finds room, and one that has just
    left may not.
    """
    if len(kept) >= MAX_VALIDATORS:
        kept = tuple(one for one in kept if one.validator in validators)
    return (*kept, said) if len(kept) < MAX_VALIDATORS else kept


class PlanRecord(Record, frozen=True):
    """The bytes of a tensor program, stored once under their hash."""

    plan: Annotated[bytes, Meta(max_length=MAX_PAYLOAD_BYTES)]


class Phase(IntEnum):
    """What a job that has not ended waits for."""

    DATA = 0
    BEACON = 1
    WORKER = 2
    """Whatever is assigned is being trained."""
    VERDICT = 3
    """A segment is committed and not HARD."""


class Active(Record, frozen=True):
    """A job that has not ended; beyond `alarm_ms` of the chain's time, time alone moves it."""

    phase: Uint
    alarm_ms: Uint | None


class OpenJobs(Record, frozen=True):
    """How many jobs have not ended."""

    count: Uint


JOBS = Table(b"job/", Job, bytes)
SEGMENTS = Table(b"segment/", Segment, bytes, int)
PLANS = Table(b"plan/", PlanRecord, bytes)
ACTIVE = Table(b"active/", Active, bytes)
PHASES = Table(b"phase/", Mark, int, bytes)
"""The jobs of ACTIVE by phase."""
ALARMS = Table(b"alarm/", Mark, int, bytes)
"""The jobs of ACTIVE by alarm."""
OPEN_JOBS = Table(b"open-jobs/", OpenJobs)
LATE = Table(b"late/", Mark, bytes, int)
"""HARD segments with an open claim."""


def in_phase(state: State, *phases: Phase) -> Iterator[tuple[bytes, Job]]:
    """Yield (id, job) of those that wait for one of `phases`, in key order within each."""
    for phase in phases:
        for (_, job_id), _ in PHASES.items(state, phase):
            job = JOBS.get(state, job_id)
            assert job is not None, "an active job exists"
            yield job_id, job


def get_segment(state: State, job: bytes, index: int) -> Segment:
    """Return a segment that has been assigned.

    Raises:
        InvalidTransaction: there is none.
    """
    segment = SEGMENTS.get(state, job, index)
    if segment is None:
        raise InvalidTransaction(f"job {job.hex()[:8]} has no segment {index} at work")
    return segment


def get_review(segment: Segment, validator: bytes) -> int:
    """Return the stretches a validator says it has re-run of a HARD segment, as bits."""
    return next((r.stretches for r in segment.reviews if r.validator == validator), 0)


def reviewed_offsets(segment: Segment) -> tuple[int, ...]:
    """Return the chunks of a HARD segment that validators say they have re-run since."""
    if segment.commit is None:
        return ()
    seen = 0
    for review in segment.reviews:
        seen |= review.stretches
    count = segment.commit.count
    stretches = [i for i in range(count_stretches(count)) if seen >> i & 1]
    return tuple(offset for i in stretches for offset in stretch_range(count, i))


def fixed_seed(number: int) -> bytes:
    """Return the 32 bytes that stand for a person's `seed = 7`."""
    return crypto.digest("mlchain/seed", number.to_bytes(8, "little"))


def fixed_order(seed: bytes) -> bytes:
    """Return the order seed of a job whose submitter fixed it by these 32 bytes."""
    return crypto.digest("mlchain/order-fixed", seed)


def plan_id(plan: bytes) -> bytes:
    """Return the id under which a plan is stored."""
    return crypto.digest("mlchain/plan", plan)


def segment_slice(job: Job, segment: Segment, validator: bytes, ticket: bytes) -> tuple[int, ...]:
    """Return the offsets (0 = first chunk) of a committed segment that a validator re-runs.

    Drawn by its `ticket`, or dealt to it if the tier deals. Of a trapped segment the chunk that
    traps is part of every slice: it decides the result.
    """
    commit, cover, tier = segment.commit, segment.cover, parse_tier(job.tier)
    assert commit is not None, "slices are of commits"
    total = commit.count
    drawn: tuple[int, ...] = ()
    if not is_checker(job, segment, validator):
        return ()
    if tier.depth and cover is not None:
        drawn = _deal(total, tier.depth, cover)[cover.roster.index(validator)]
    elif total:
        size = slice_size(tier, job.chunks, total, segment.voters)
        drawn = draw_slice(ticket, commit.leaf_root, total, size)
    return (*drawn, total) if commit.trap else drawn


def slice_draw_gas(job: Job, segment: Segment) -> int:
    """Return what `segment_slice` costs, whoever's slice it is."""
    commit, tier = segment.commit, parse_tier(job.tier)
    if commit is None or not commit.count:
        return 0
    if tier.depth:
        return DRAW_GAS * tier.depth * commit.count
    size = slice_size(tier, job.chunks, commit.count, segment.voters)
    return DRAW_GAS * min(size, commit.count - size) + LIST_GAS * size


def commit_gas(job: Job, segment: Segment) -> int:
    """Return the gas of one validator's slice of what was committed, as when it was.

    A chunk that traps is in every slice beside what the tier draws.
    """
    commit = segment.commit
    assert commit is not None, "only a commit has slices"
    drawn = slice_gas(job.tier, job.gas, job.chunks, commit.count, segment.voters)
    return drawn + (job.gas // job.chunks if commit.trap else 0)


def is_checker(job: Job, segment: Segment, validator: bytes) -> bool:
    """Tell whether a validator is to attest a committed segment: others' work, as tiers say."""
    cover = segment.cover
    if segment.is_own(validator):
        return False
    return not parse_tier(job.tier).depth or (cover is not None and validator in cover.members)


def is_in_slice(job: Job, segment: Segment, validator: bytes, ticket: bytes, offset: int) -> bool:
    """Tell whether a chunk is in a validator's slice; cheap however much is dealt or drawn."""
    commit, cover, tier = segment.commit, segment.cover, parse_tier(job.tier)
    assert commit is not None, "slices are of commits"
    if tier.depth and cover is not None and offset < commit.count:
        if validator not in cover.members:
            return False
        dealt = draw_checkers(cover.seed, offset, len(cover.roster), tier.depth, _absent(cover))
        return cover.roster.index(validator) in dealt
    if not tier.depth and 0 <= offset < commit.count:
        size = slice_size(tier, job.chunks, commit.count, segment.voters)
        if size == commit.count:
            return is_checker(job, segment, validator)
    return offset in segment_slice(job, segment, validator, ticket)


def attesters_of(job: Job, index: int, segment: Segment, chunk: int) -> tuple[bytes, ...]:
    """Return who attested a slice that holds a chunk, counted from the start of the job."""
    offset = chunk - job.segment_range(index)[0]
    return tuple(
        attested.validator
        for attested in segment.attestations
        if is_in_slice(job, segment, attested.validator, attested.ticket, offset)
    )


def look_up_gas(job: Job, segment: Segment) -> int:
    """Return what `is_in_slice` costs."""
    depth = parse_tier(job.tier).depth
    return DRAW_GAS * depth if depth else slice_draw_gas(job, segment)


def _absent(cover: Cover) -> tuple[int, ...]:
    return tuple(cover.roster.index(key) for key in cover.absent)


@lru_cache(256)
def _deal(total: int, depth: int, cover: Cover) -> tuple[tuple[int, ...], ...]:
    """Return the offsets dealt to each of the roster."""
    absent = _absent(cover)
    slices: list[list[int]] = [[] for _ in cover.roster]
    for offset in range(total):
        for number in draw_checkers(cover.seed, offset, len(cover.roster), depth, absent):
            slices[number].append(offset)
    return tuple(tuple(drawn) for drawn in slices)
