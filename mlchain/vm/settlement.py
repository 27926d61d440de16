"""What becomes of claims about custody digests as blocks go by."""

from __future__ import annotations

from msgspec.structs import replace

from mlchain.consensus.work.attestation import Verdict
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.dispute import Ruling, settle
from mlchain.vm.context import BlockContext
from mlchain.vm.families.custody import CUSTODY_CLAIMS, ClaimState, CustodyClaim, claim_end
from mlchain.vm.families.jobs import SEGMENTS, Ballot, with_said
from mlchain.vm.families.members import VALIDATORS, slash_validator

Place = tuple[bytes, int, bytes, int]
"""(job, segment, accused, chunk)"""


def process_custody_verdict(block: BlockContext, validator: bytes, verdict: Verdict) -> None:
    """Count a verdict on a disputed digest. The accused votes, too: else an honest one, f silent
    or hostile, could never be cleared by a quorum.
    """
    place = (verdict.job, verdict.segment, verdict.accused, verdict.chunk)
    claim = CUSTODY_CLAIMS.get(block.state, *place)
    segment = SEGMENTS.get(block.state, verdict.job, verdict.segment)
    commit = segment.commit if segment else None
    if claim is None or claim.state != ClaimState.DISPUTED or commit is None:
        return
    if commit_id(commit) != verdict.commit or validator in [b.validator for b in claim.ballots]:
        return
    ballots = with_said(claim.ballots, Ballot(validator, verdict.outcome), block.validators)
    CUSTODY_CLAIMS.put(block.state, replace(claim, ballots=ballots), *place)


def advance_custody(block: BlockContext) -> None:
    """Settle what can be settled, and forget claims that cannot be made again."""
    for place, claim in list(CUSTODY_CLAIMS.items(block.state)):
        _advance(block, place, claim)


def _advance(block: BlockContext, place: Place, claim: CustodyClaim) -> None:
    job, index, accused, chunk = place
    segment = SEGMENTS.get(block.state, job, index)
    record = VALIDATORS.get(block.state, accused)
    attesters = [a.validator for a in segment.attestations] if segment else []
    if segment is None or accused not in attesters or record is None:
        CUSTODY_CLAIMS.delete(block.state, *place)
    elif claim.state == ClaimState.ASKED and record.left_height:
        CUSTODY_CLAIMS.delete(block.state, *place)  # it can send no answer any more
    elif claim.state == ClaimState.ASKED:
        if block.height >= claim.height + block.params.custody_window:
            _convict(block, place, claim, "digest-not-shown")
    elif claim.state == ClaimState.DISPUTED:
        is_due = block.height >= claim.height + block.params.dispute_window
        ballots = ((b.validator, b.outcome) for b in claim.ballots)
        ruling = settle(ballots, block.validators, is_due)
        if ruling == Ruling.UPHELD:
            _convict(block, place, claim, "wrong-digest")
        elif ruling != Ruling.OPEN:
            closed = replace(claim, state=ClaimState.CLOSED, height=block.height)
            CUSTODY_CLAIMS.put(block.state, closed, *place)
            if ruling == Ruling.REJECTED:
                slash_validator(
                    block, claim.accuser, "false-accusation", b"", job, index, chunk,
                    is_removed=False,
                )  # fmt: skip
    elif block.height > claim_end(segment, claim, block.params):
        CUSTODY_CLAIMS.delete(block.state, *place)


def _convict(block: BlockContext, place: Place, claim: CustodyClaim, kind: str) -> None:
    """Slash and remove the accused: it attested what it has not re-run."""
    job, index, accused, chunk = place
    CUSTODY_CLAIMS.delete(block.state, *place)
    slash_validator(
        block, accused, kind, claim.accuser, job, index, chunk, amount=block.params.slash_lazy
    )
