"""What happens to jobs without anybody asking: assignment, deadlines, rulings, payment.

Run at the end of every block over the jobs that something may happen to, in key order.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from mlchain import crypto
from mlchain.consensus.work.commitment import SegmentCommit
from mlchain.consensus.work.dispute import ClaimKind, Ruling, settle
from mlchain.consensus.work.rewards import segment_fee, split_fee, trapped_fee
from mlchain.errors import InvalidBlock
from mlchain.ledger.block import MAX_FINALISED, SegmentRef
from mlchain.ml_runtime import decode_plan
from mlchain.vm import agenda, late
from mlchain.vm.backlog import is_full, slice_gas
from mlchain.vm.backlog import settle as settle_backlog
from mlchain.vm.context import BlockContext
from mlchain.vm.cover import deal, finality_depth, had_honest_proposer, why_not_covered
from mlchain.vm.credits import credit_segment, forget_old_work
from mlchain.vm.false_attestation import slash_false_attesters
from mlchain.vm.families.accounts import burn, credit
from mlchain.vm.families.data import DATASETS, is_available
from mlchain.vm.families.jobs import (
    JOBS,
    MAX_CLEARED,
    PLANS,
    SEGMENTS,
    Claim,
    Job,
    JobState,
    Phase,
    Segment,
    SegmentState,
    commit_gas,
    fixed_order,
    in_phase,
)
from mlchain.vm.families.members import (
    LAST_HARD,
    WORKERS,
    LastWork,
    same_schedule_since,
    slash_validator,
    slash_worker,
)
from mlchain.vm.families.models import MODELS, Model
from mlchain.vm.families.operators import operator_of
from mlchain.vm.votes import get_beacon

ORDER_DELAY = 2
"""Blocks between acceptance and the beacon that fixes order and assignment."""
MAX_DEPTH = 3
"""Segments of one job that may be at work before the first of them is HARD."""
MAX_ATTEMPTS = 16
"""Falls after which a job is given up."""


def finalise(block: BlockContext, ref: SegmentRef) -> None:
    """Declare a segment HARD: pay for it, and settle the job if it was the last.

    Raises:
        InvalidBlock: a condition of protocol.md section 8 does not hold.
    """
    job = JOBS.get(block.state, ref.job)
    segment = SEGMENTS.get(block.state, ref.job, ref.index)
    reason = (
        "no such segment"
        if job is None or segment is None
        else why_not_final(block, job, ref.index, segment)
    )
    if reason or job is None or segment is None or segment.commit is None:
        raise InvalidBlock(f"segment {ref.index} of {ref.job.hex()[:8]} cannot be HARD: {reason}")
    fee = _earned(job, ref.index, segment.commit)
    credited = _pay(block, job, ref.index, segment, fee)
    _settle_backlog(block, job, segment)
    SEGMENTS.put(
        block.state,
        replace(segment, state=SegmentState.HARD, hard_height=block.height, credited=credited),
        ref.job,
        ref.index,
    )
    LAST_HARD.put(block.state, LastWork(block.height), segment.worker)
    job = replace(job, hard=job.hard + 1, escrow=job.escrow - fee)
    if segment.commit.trap:
        _end(block, ref.job, job, JobState.TRAPPED)
    elif job.hard == job.segments:
        commit = segment.commit
        model = Model(
            job.name, job.submitter, job.plan, job.dataset, commit.end_content, commit.end,
            commit.metrics, block.height, 0,
        )  # fmt: skip
        MODELS.put(block.state, model, ref.job)
        _end(block, ref.job, job, JobState.SETTLED)
    else:
        JOBS.put(block.state, job, ref.job)
        _begin_deadline(block, ref.job, job)


def find_final(
    block: BlockContext, is_wanted: Callable[[SegmentRef, Segment], bool]
) -> tuple[SegmentRef, ...]:
    """Return the segments that this block may declare HARD, one a job."""
    refs = []
    for job_id, job in in_phase(block.state, Phase.VERDICT):
        segment = SEGMENTS.get(block.state, job_id, job.hard)
        if segment is None:
            continue
        ref = SegmentRef(job_id, job.hard)
        if not why_not_final(block, job, job.hard, segment) and is_wanted(ref, segment):
            refs.append(ref)
    return tuple(refs[:MAX_FINALISED])


def why_not_final(block: BlockContext, job: Job, index: int, segment: Segment) -> str:
    """Return the first condition of FINALISE that does not hold, "" if all do."""
    if segment.state != SegmentState.COMMITTED:
        return "not committed, or disputed"
    if job.hard != index:
        return "the segment before is not HARD"
    begun = max(segment.undisputed_since, same_schedule_since(block.state) - 1)
    if block.height < begun + finality_depth(block.validators):
        return "too young"
    weight = sum(block.validators.weight(a.validator) for a in segment.attestations)
    if weight < block.validators.quorum:
        return f"attested by weight {weight} of {block.validators.quorum}"
    return why_not_covered(block, job, segment)


def _earned(job: Job, index: int, commit: SegmentCommit) -> int:
    """Return the part of a job's fee that a commit earns: for what was run, and no more."""
    first, count = job.segment_range(index)
    if not commit.trap:
        return segment_fee(job.fee, first, count, job.chunks)
    begin = (first + commit.count) * job.chunk
    run, steps = commit.trap - begin, min(job.chunk, job.steps - begin)
    return trapped_fee(job.fee, first, commit.count, job.chunks, run, steps)


def _pay(block: BlockContext, job: Job, index: int, segment: Segment, fee: int) -> int:
    """Pay for a segment; return what work it was worth."""
    verifiers = [a.validator for a in segment.attestations if a.validator in block.validators]
    share = split_fee(fee, len(verifiers))
    credit(block.state, segment.worker, share.worker)
    for key in verifiers:
        credit(block.state, key, share.verifier)
    credit(block.state, block.proposer, share.proposer)
    burn(block.state, share.burned)
    return credit_segment(block, job, index, segment, verifiers)


def advance(block: BlockContext) -> None:
    """Move every job that has not ended as far as this block allows."""
    forget_old_work(block)
    late.rule_all(block, _end)
    for job_id in agenda.find_due(block):
        job = JOBS.get(block.state, job_id)
        assert job is not None, "an active job exists"
        if job.state == JobState.SUBMITTED:
            _accept(block, job_id, job)
        elif job.state == JobState.RUNNING:
            _advance_segments(block, job_id, job)
        elif block.height >= job.height + ORDER_DELAY:
            _start(block, job_id, job)
        agenda.plan(block, job_id)


def _accept(block: BlockContext, job_id: bytes, job: Job) -> None:
    """Take on a job whose data a quorum holds; give up one that has waited too long.

    So is one that the data does not fit: its numbers may have been replaced since it was posted.
    """
    if is_available(block.state, job.dataset, block.validators):
        if not _fits(block, job):
            _end(block, job_id, job, JobState.EXPIRED)
            return
        JOBS.put(block.state, replace(job, state=JobState.ACCEPTED, height=block.height), job_id)
    elif block.time_ms > agenda.expiry_ms(block, job_id, job):
        _end(block, job_id, job, JobState.EXPIRED)


def _fits(block: BlockContext, job: Job) -> bool:
    dataset, plan = DATASETS.get(block.state, job.dataset), PLANS.get(block.state, job.plan)
    assert dataset is not None and plan is not None, "a job's data and plan are stored before it"
    has_rows = job.train_rows + job.test_rows <= dataset.rows
    return has_rows and decode_plan(plan.plan).features == dataset.features


def _start(block: BlockContext, job_id: bytes, job: Job) -> None:
    """Fix data order and the workers' turns from the beacon nobody could know at acceptance."""
    beacon = get_beacon(block.state)
    workers = [key[0] for key, record in WORKERS.items(block.state) if not record.left_height]
    if not workers:
        _end(block, job_id, job, JobState.EXPIRED)
        return
    workers.sort(key=lambda key: crypto.digest("mlchain/assign", beacon, job_id, key))
    job = replace(
        job,
        state=JobState.RUNNING,
        height=block.height,
        order_seed=_order_seed(job_id, job, beacon),
        workers=tuple(workers),
    )
    _assign(block, job_id, job)


def _order_seed(job_id: bytes, job: Job, beacon: bytes) -> bytes:
    if job.seed:
        return fixed_order(job.seed)
    return crypto.digest("mlchain/order", beacon, job_id)


def _assign(block: BlockContext, job_id: bytes, job: Job) -> None:
    """Give out the next segment; turns go round, those that failed this job come last."""
    free = [
        key
        for key in job.workers
        if (record := WORKERS.get(block.state, key)) is not None and not record.left_height
    ]
    willing = [key for key in free if key not in job.excluded] or free
    if not willing or job.attempts >= MAX_ATTEMPTS:
        _end(block, job_id, job, JobState.EXPIRED)
        return
    index = job.assigned
    worker = willing[(index + job.attempts) % len(willing)]
    was_left_alone = job.attempts > len(job.excluded)  # with f silent, all others must attest
    segment = Segment(
        SegmentState.ASSIGNED, worker, job.attempts,
        block.time_ms + block.params.segment_timeout_ms, None, 0, (), None, (), 0, 0, None, 0, (),
        operator=b"" if was_left_alone else operator_of(block, worker),
    )  # fmt: skip
    SEGMENTS.put(block.state, segment, job_id, index)
    JOBS.put(block.state, replace(job, assigned=index + 1), job_id)


def _begin_deadline(block: BlockContext, job_id: bytes, job: Job) -> None:
    """Give the worker of the first segment that is not HARD its whole time from now on."""
    segment = SEGMENTS.get(block.state, job_id, job.hard)
    if segment is not None and segment.state == SegmentState.ASSIGNED:
        deadline_ms = block.time_ms + block.params.segment_timeout_ms
        SEGMENTS.put(block.state, replace(segment, deadline_ms=deadline_ms), job_id, job.hard)


def _advance_segments(block: BlockContext, job_id: bytes, job: Job) -> None:
    for index in range(job.hard, job.assigned):
        segment = SEGMENTS.get(block.state, job_id, index)
        assert segment is not None, "assigned segments exist"
        dealt = deal(block, job, segment)
        if dealt is not segment:
            SEGMENTS.put(block.state, dealt, job_id, index)
            segment = dealt
        if segment.claim is not None:
            if _rule(block, job_id, job, index, segment):
                return
        elif segment.state == SegmentState.ADMITTED:
            _fall(block, job_id, job, index, is_workers_fault=True)
            return
        elif _is_overdue(block, job, index, segment):
            if segment.state == SegmentState.ASSIGNED and _has_to_wait(block, job, index):
                _begin_deadline(block, job_id, job)
                continue
            _fall(block, job_id, job, index, segment.state == SegmentState.ASSIGNED)
            return
    last = SEGMENTS.get(block.state, job_id, job.assigned - 1)
    is_open = last is not None and last.commit is not None and not last.commit.trap
    if is_open and job.assigned < min(job.segments, job.hard + MAX_DEPTH):
        _assign(block, job_id, job)


def _is_overdue(block: BlockContext, job: Job, index: int, segment: Segment) -> bool:
    """Tell whether the worker missed its deadline, or too few attested in the window.

    One whose start is not HARD is not late: who committed to an end that nobody can reach would
    have the next worker fail the job with it.
    """
    if segment.state == SegmentState.ASSIGNED:
        return index == job.hard and block.time_ms > segment.deadline_ms
    weight = sum(block.validators.weight(a.validator) for a in segment.attestations)
    is_late = block.height > segment.attest_from + block.params.attest_window
    return is_late and weight < block.validators.quorum


def _has_to_wait(block: BlockContext, job: Job, index: int) -> bool:
    """Tell whether the commit of a whole segment would find no room: its worker has its whole time
    anew then, or it would be late in the very block that makes room.
    """
    count, voters = job.segment_range(index)[1], len(block.validators)
    return is_full(block, slice_gas(job.tier, job.gas, job.chunks, count, voters))


def _rule(block: BlockContext, job_id: bytes, job: Job, index: int, segment: Segment) -> bool:
    """Settle a claim if it can be; return whether the segment fell.

    If the worker has admitted its fault since, what remains is who attested the chunk.
    """
    claim, is_admitted = segment.claim, segment.state == SegmentState.ADMITTED
    assert claim is not None, "a disputed segment has a claim"
    ruling = settle(
        ((b.validator, b.outcome) for b in claim.ballots),
        block.validators,
        block.height >= claim.height + block.params.dispute_window,
    )
    if ruling == Ruling.OPEN:
        return False
    if ruling == Ruling.UPHELD and not had_honest_proposer(block, claim.height):
        return False  # somebody who found it may have been left out
    if ruling == Ruling.REJECTED:
        _reject(block, job_id, index, segment, claim)
        if len(segment.cleared) + 1 < MAX_CLEARED and not is_admitted:
            return False
    if ruling == Ruling.UPHELD:
        if not is_admitted:
            slash_worker(
                block, segment.worker, "forged", block.params.slash_worker, _paid(segment, claim),
                job_id, index, claim.chunk, is_jailed=True,
            )  # fmt: skip
        slash_false_attesters(block, job_id, job, index, segment, claim.chunk)
    elif ruling == Ruling.UNAVAILABLE:
        slash_worker(
            block, segment.worker, "unavailable", block.params.slash_unavailable, (),
            job_id, index, claim.chunk, is_jailed=False,
        )  # fmt: skip
    is_workers_fault = is_admitted or ruling in (Ruling.UPHELD, Ruling.UNAVAILABLE)
    _fall(block, job_id, job, index, is_workers_fault)
    return True


def _paid(segment: Segment, claim: Claim) -> tuple[bytes, ...]:
    """Return the finders, less who has said that its slice is equal."""
    equal = [attested.validator for attested in segment.attestations]
    return tuple(key for key in claim.finders if key not in equal)


def _reject(block: BlockContext, job_id: bytes, index: int, segment: Segment, claim: Claim) -> None:
    """The chunk was right: the segment goes on, and a false accusation of fraud costs a slash."""
    SEGMENTS.put(
        block.state,
        replace(
            segment,
            state=SegmentState.COMMITTED,
            claim=None,
            cleared=(*segment.cleared, claim.chunk),
            undisputed_since=block.height,
        ),
        job_id,
        index,
    )
    if claim.kind != ClaimKind.FRAUD:
        return
    for accuser in dict.fromkeys((claim.accuser, *claim.finders)):
        slash_validator(
            block, accuser, "false-accusation", b"", job_id, index, claim.chunk,
            is_removed=False,
        )  # fmt: skip


def _fall(block: BlockContext, job_id: bytes, job: Job, index: int, is_workers_fault: bool) -> None:
    """Take a segment back to the boundary before it; what was built on it falls too, unpunished."""
    segment = SEGMENTS.get(block.state, job_id, index)
    assert segment is not None
    _drop(block, job_id, job, index)
    excluded = job.excluded
    if is_workers_fault and segment.worker not in excluded:
        excluded = (*excluded, segment.worker)
    job = replace(job, assigned=index, attempts=job.attempts + 1, excluded=excluded)
    _assign(block, job_id, job)


def _end(block: BlockContext, job_id: bytes, job: Job, state: JobState) -> None:
    """Close a job; what is left of the fee goes back to the submitter."""
    credit(block.state, job.submitter, job.escrow)
    _drop(block, job_id, job, job.hard)
    JOBS.put(
        block.state,
        replace(job, state=state, height=block.height, escrow=0, assigned=job.hard),
        job_id,
    )
    agenda.leave(block.state, job_id)


def _drop(block: BlockContext, job_id: bytes, job: Job, first: int) -> None:
    """Delete a job's segments from the `first` on."""
    for index in range(first, job.assigned):
        segment = SEGMENTS.get(block.state, job_id, index)
        if segment is not None:
            _settle_backlog(block, job, segment)
        SEGMENTS.delete(block.state, job_id, index)


def _settle_backlog(block: BlockContext, job: Job, segment: Segment) -> None:
    """Owe the slices of a commit no longer: it is HARD or fell."""
    if segment.commit is not None:
        settle_backlog(block, commit_gas(job, segment))
