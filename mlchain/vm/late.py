"""Claims against HARD segments: a forgery that somebody finds when it is paid for already.

For `unbonding_blocks` after a segment became HARD a validator may still claim fraud in it. All
re-run the chunk, as in any dispute. If they agree the worker is slashed and jailed, the finder gets
its half, and what the job made is revoked: every later segment and the model rest on the forgery.
What was paid stays paid (docs/adr/0029).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from mlchain.consensus.work.dispute import Ruling, settle
from mlchain.ledger.validators import MAX_VALIDATORS
from mlchain.vm.context import BlockContext
from mlchain.vm.credits import take_back
from mlchain.vm.false_attestation import slash_false_attesters
from mlchain.vm.families.jobs import (
    JOBS,
    LATE,
    SEGMENTS,
    Claim,
    Job,
    JobState,
    Segment,
    attesters_of,
)
from mlchain.vm.families.members import WORKERS, bond_holder, slash_validator, slash_worker
from mlchain.vm.families.models import MODELS

End = Callable[[BlockContext, bytes, Job, JobState], None]
"""Closes a job and refunds what is left of its fee."""


def rule_all(block: BlockContext, end: End) -> None:
    """Settle every late claim that can be."""
    for job_id, index in [key for key, _ in LATE.items(block.state)]:
        job, segment = JOBS.get(block.state, job_id), SEGMENTS.get(block.state, job_id, index)
        assert job is not None and segment is not None and segment.claim is not None
        claim = segment.claim
        ruling = settle(
            ((b.validator, b.outcome) for b in claim.ballots),
            block.validators,
            block.height >= claim.height + block.params.dispute_window,
        )
        if ruling == Ruling.OPEN:
            continue
        LATE.delete(block.state, job_id, index)
        SEGMENTS.put(block.state, _closed(block, segment, claim, ruling), job_id, index)
        if ruling == Ruling.UPHELD:
            _uphold(block, job_id, job, index, segment, claim, end)
        else:
            _reject(block, job_id, index, claim, ruling)


def _closed(block: BlockContext, segment: Segment, claim: Claim, ruling: Ruling) -> Segment:
    """Return the segment without its claim.

    Only a chunk that a quorum has re-run is claimed no more. Else a friend of a forger could claim
    the forged chunk, show nothing, and have it out of reach for a small fine: who made a claim that
    came to nothing claims no more in this segment, and everybody else may.
    """
    segment = replace(segment, claim=None)
    if ruling == Ruling.REJECTED:
        return replace(segment, cleared=(*segment.cleared, claim.chunk))
    if ruling == Ruling.UPHELD:
        return segment
    lapsed = segment.lapsed
    if len(lapsed) >= MAX_VALIDATORS:
        lapsed = tuple(key for key in lapsed if key in block.validators)
    return replace(segment, lapsed=(*lapsed, claim.accuser)[-MAX_VALIDATORS:])


def _uphold(
    block: BlockContext,
    job_id: bytes,
    job: Job,
    index: int,
    segment: Segment,
    claim: Claim,
    end: End,
) -> None:
    equal = attesters_of(job, index, segment, claim.chunk)
    finders = tuple(key for key in claim.finders if key not in equal)
    if WORKERS.get(block.state, bond_holder(block.state, segment.worker)) is not None:
        slash_worker(
            block, segment.worker, "forged", block.params.slash_worker, finders,
            job_id, index, claim.chunk, is_jailed=True,
        )  # fmt: skip
    slash_false_attesters(block, job_id, job, index, segment, claim.chunk)
    take_back(block, job, index, segment)
    if job.state == JobState.REVOKED:
        return
    end(block, job_id, job, JobState.REVOKED)
    model = MODELS.get(block.state, job_id)
    if model is not None:
        MODELS.put(block.state, replace(model, revoked_height=block.height), job_id)


def _reject(block: BlockContext, job_id: bytes, index: int, claim: Claim, ruling: Ruling) -> None:
    """The chunk was right, or its accuser could not even show the state it had re-run it from.

    Nobody else must still have that state: so a claim that lapses costs its maker a little, lest
    claims against old work be a way to keep everybody busy.
    """
    is_wrong = ruling == Ruling.REJECTED
    slash_validator(
        block, claim.accuser, "false-accusation" if is_wrong else "unserved-claim", b"",
        job_id, index, claim.chunk, is_removed=False,
        amount=block.params.slash_validator if is_wrong else block.params.slash_unavailable,
    )  # fmt: skip
