"""Segments of a job: the worker's commit, and claims against it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from mlchain.codec import Hash, Uint
from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.commitment import SegmentCommit, commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.consensus.work.tickets import TICKETS, check_reveal
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import Mark, State
from mlchain.ledger.validators import MAX_VALIDATORS
from mlchain.vm.agenda import enter
from mlchain.vm.backlog import is_full, owe
from mlchain.vm.context import BlockContext, Context, Payload
from mlchain.vm.families.announcements import take_announced
from mlchain.vm.families.jobs import (
    JOBS,
    LATE,
    MAX_CLEARED,
    SEGMENTS,
    Claim,
    Job,
    JobState,
    Phase,
    Segment,
    SegmentState,
    attesters_of,
    commit_gas,
    get_segment,
    is_in_slice,
    look_up_gas,
)
from mlchain.vm.families.members import WORKERS, slash_worker
from mlchain.vm.families.renewal import known_element

COMMIT_GAS = 5_000
CLAIM_GAS = 5_000
ADMIT_GAS = 5_000
NO_TICKET = bytes(32)
"""In a claim of fraud by who shows none."""
HASH_GAS = 400
"""For each element of a hash chain between the one shown and the one known."""


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
        segment = replace(
            segment,
            state=SegmentState.COMMITTED,
            commit=commit,
            commit_height=ctx.block.height,
            voters=len(ctx.block.validators),
            undisputed_since=ctx.block.height,
        )
        owe(ctx.block, commit_gas(job, segment))
        SEGMENTS.put(ctx.state, segment, commit.job, commit.segment)
        enter(ctx.state, commit.job, Phase.VERDICT, alarm_ms=None)
        ctx.emit(f"segment {commit.segment} of {commit.job.hex()[:8]} committed")

    def has_to_wait(self, block: BlockContext) -> bool:
        """Tell whether it would fail in `block` for want of room alone."""
        job = JOBS.get(block.state, self.commit.job)
        segment = SEGMENTS.get(block.state, self.commit.job, self.commit.segment)
        if job is None or segment is None:
            return False
        voters = len(block.validators)
        return is_full(block, commit_gas(job, replace(segment, commit=self.commit, voters=voters)))

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
    UNSERVED claim is limited to the accuser's own slice, which `ticket` proves. A finder's share
    is for those whose own slice held the chunk: whoever claims what another found gets none, and
    the other can still join.

    A claim against HARD work, which nothing waits for, is announced: in block `announced`, and
    `ticket` is any secret.
    """

    KIND: ClassVar[int] = 22
    ROLE: ClassVar[str] = "validator"
    job: Hash
    segment: Uint
    commit: Hash
    chunk: Uint
    kind: Annotated[int, Meta(ge=0, le=1)]
    ticket: Hash
    announced: Uint = 0

    def execute(self, ctx: Context) -> None:
        """Open the dispute; while it is open the segment cannot become HARD."""
        ctx.charge(CLAIM_GAS)
        segment = get_segment(ctx.state, self.job, self.segment)
        job = JOBS.get(ctx.state, self.job)
        if job is None or segment.commit is None or commit_id(segment.commit) != self.commit:
            raise InvalidTransaction("this commit is not at work")
        is_late = segment.state == SegmentState.HARD
        first, _ = job.segment_range(self.segment)
        if segment.state == SegmentState.ADMITTED:
            raise InvalidTransaction("its worker has admitted that it is wrong")
        if segment.claim is not None:
            self._join(ctx, job, segment, segment.claim, self.chunk - first)
            return
        if is_late:
            self._check_late(ctx, job, segment)
        reach = segment.commit.count + (1 if segment.commit.trap else 0)
        if not first <= self.chunk < first + reach:
            raise InvalidTransaction(f"chunk {self.chunk} is not in segment {self.segment}")
        if self.chunk in segment.cleared:
            raise InvalidTransaction("this chunk has been re-run by all and was right")
        asks, offset = self.kind == ClaimKind.UNSERVED, self.chunk - first
        if asks and not is_own_chunk(ctx, job, segment, self.ticket, offset):
            raise InvalidTransaction("only chunks of one's own slice can be asked for")
        if is_late:
            take_announced(ctx, self)
        is_late_finder = is_late and not segment.is_own(ctx.sender)
        is_finder = is_late_finder or asks or self._has_drawn(ctx, job, segment, offset)
        finders = (ctx.sender,) if is_finder else ()
        claim = Claim(ctx.sender, self.kind, self.chunk, ctx.block.height, (), finders)
        state = SegmentState.HARD if is_late else SegmentState.DISPUTED
        SEGMENTS.put(ctx.state, replace(segment, state=state, claim=claim), self.job, self.segment)
        if is_late:
            LATE.put(ctx.state, Mark(), self.job, self.segment)
        ctx.emit(f"chunk {self.chunk} of {self.job.hex()[:8]} disputed")

    def _join(self, ctx: Context, job: Job, segment: Segment, claim: Claim, offset: int) -> None:
        """Say that one found what is disputed already: one answers for it and is paid alike."""
        is_same = (self.kind, self.chunk) == (ClaimKind.FRAUD, claim.chunk)
        is_open = segment.state == SegmentState.DISPUTED and len(claim.finders) < MAX_VALIDATORS
        if not is_same or not is_open or ctx.sender in claim.finders:
            raise InvalidTransaction("the segment is disputed already")
        if not self._has_drawn(ctx, job, segment, offset):
            raise InvalidTransaction("disputed already, and the chunk is not in one's own slice")
        if claim.kind == ClaimKind.UNSERVED:  # who asked for the chunk has not found it
            claim = replace(claim, kind=ClaimKind.FRAUD, accuser=ctx.sender, finders=())
        claim = replace(claim, finders=(*claim.finders, ctx.sender))
        SEGMENTS.put(ctx.state, replace(segment, claim=claim), self.job, self.segment)
        ctx.emit(f"chunk {self.chunk} of {self.job.hex()[:8]} found by {len(claim.finders)}")

    def _has_drawn(self, ctx: Context, job: Job, segment: Segment, offset: int) -> bool:
        """Tell whether the claim's ticket shows that its sender had to re-run the chunk.

        A claim never fails by that, nor by the gas it takes: it stands without a share.
        """
        if self.ticket == NO_TICKET:
            return False
        try:
            return is_own_chunk(ctx, job, segment, self.ticket, offset)
        except InvalidTransaction:
            return False

    def _check_late(self, ctx: Context, job: Job, segment: Segment) -> None:
        if ctx.block.height > segment.hard_height + ctx.block.params.unbonding_blocks:
            raise InvalidTransaction("the segment has been HARD for too long")
        if self.kind != ClaimKind.FRAUD or job.state == JobState.REVOKED:
            raise InvalidTransaction("nothing but fraud is claimed of HARD work, and that once")
        if ctx.sender in segment.lapsed:
            raise InvalidTransaction("the sender's last claim against this segment came to nothing")
        if len(segment.cleared) >= MAX_CLEARED:
            raise InvalidTransaction("enough chunks of this segment have been claimed in vain")


class AdmitFault(Payload, frozen=True):
    """A worker says itself that a chunk it committed to is wrong: honest hardware fails, too.

    It loses the segment, its pay and `fee_admission`, but keeps its bond and its place; once in
    `epoch_blocks`. The fee is burned, whoever had accused it: nobody is paid by being first.
    """

    KIND: ClassVar[int] = 23
    ROLE: ClassVar[str] = "worker"
    job: Hash
    segment: Uint
    commit: Hash
    chunk: Uint

    def execute(self, ctx: Context) -> None:
        """Take the fee; the segment falls, and goes to another worker.

        At the end of the block, or if somebody attested a chunk that is claimed to be forged, when
        that is settled: it does not go free because its worker admits.
        """
        ctx.charge(ADMIT_GAS)
        segment = get_segment(ctx.state, self.job, self.segment)
        job = JOBS.get(ctx.state, self.job)
        if job is None or segment.commit is None or commit_id(segment.commit) != self.commit:
            raise InvalidTransaction("this commit is not at work")
        if segment.worker != ctx.sender:
            raise InvalidTransaction("only its worker admits a fault")
        if segment.state not in (SegmentState.COMMITTED, SegmentState.DISPUTED):
            raise InvalidTransaction("the segment is HARD, or its fault is admitted already")
        claim = segment.claim
        if claim is not None and _is_found(ctx, claim):
            raise InvalidTransaction("too late: more than a third have found it wrong")
        first, _ = job.segment_range(self.segment)
        if not first <= self.chunk < first + segment.commit.count + bool(segment.commit.trap):
            raise InvalidTransaction(f"chunk {self.chunk} is not in segment {self.segment}")
        record = WORKERS.get(ctx.state, ctx.sender)
        assert record is not None, "the role was checked"
        again = record.admitted_height + ctx.block.params.epoch_blocks
        if record.admitted_height and ctx.block.height < again:
            raise InvalidTransaction(f"the last fault was admitted too lately, wait until {again}")
        slash_worker(
            ctx.block, ctx.sender, "admitted", ctx.block.params.fee_admission, (),
            self.job, self.segment, self.chunk, is_jailed=False,
        )  # fmt: skip
        is_doubted = (
            claim is not None
            and claim.kind == ClaimKind.FRAUD
            and bool(attesters_of(job, self.segment, segment, claim.chunk))
        )
        record = WORKERS.get(ctx.state, ctx.sender)
        assert record is not None
        WORKERS.put(ctx.state, replace(record, admitted_height=ctx.block.height), ctx.sender)
        SEGMENTS.put(
            ctx.state,
            replace(segment, state=SegmentState.ADMITTED, claim=claim if is_doubted else None),
            self.job,
            self.segment,
        )
        ctx.emit(f"chunk {self.chunk} of {self.job.hex()[:8]} admitted to be wrong")


def _is_found(ctx: Context, claim: Claim) -> bool:
    """Tell whether an honest validator has re-run the chunk and said on chain that it differs."""
    keys = [ballot.validator for ballot in claim.ballots if ballot.outcome == Outcome.DIFFERS]
    return sum(map(ctx.block.validators.weight, keys)) >= ctx.block.validators.third


def is_own_chunk(ctx: Context, job: Job, segment: Segment, ticket: bytes, offset: int) -> bool:
    """Tell whether the chunk at `offset` is in the sender's slice of a committed segment.

    Raises:
        InvalidTransaction: the ticket is not the sender's for that height.
    """
    height, length = segment.commit_height, ctx.block.params.ticket_heights
    known = known_element(ctx.state, ctx.sender, TICKETS, height, length)
    if known is None:
        raise InvalidTransaction(f"no hash chain of the sender holds height {height}")
    ctx.charge(HASH_GAS * abs(height - known.height))
    if check_reveal(known, ticket, height) is None:
        raise InvalidTransaction("the ticket is not of the sender's registered chain")
    ctx.charge(look_up_gas(job, segment))
    return is_in_slice(job, segment, ctx.sender, ticket, offset)
