"""What precommit extensions do to the state, once the next block carries them.

A part of an extension that does not fit is ignored, never fatal: whoever builds the next block
cannot choose what others wrote.
"""

from __future__ import annotations

from msgspec.structs import replace

from mlchain import crypto
from mlchain.codec import Hash, Record
from mlchain.consensus.work.attestation import (
    Attestation,
    Extension,
    Reviewed,
    Verdict,
    count_stretches,
    decode_extension,
)
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.custody import key_due
from mlchain.consensus.work.tickets import BEACON as BEACON_CHAIN
from mlchain.consensus.work.tickets import CUSTODY, TICKETS, check_reveal
from mlchain.errors import CodecError
from mlchain.ledger.commit import Commit
from mlchain.ledger.genesis import Params
from mlchain.ledger.state import State, Table
from mlchain.vm.answering import process_answer, process_commitment
from mlchain.vm.context import BlockContext
from mlchain.vm.families.data import add_holder
from mlchain.vm.families.jobs import (
    JOBS,
    SEGMENTS,
    Attested,
    Ballot,
    Review,
    Segment,
    SegmentState,
    get_review,
    is_checker,
    with_said,
)
from mlchain.vm.families.members import LAST_ATTESTED, VALIDATORS, LastWork
from mlchain.vm.families.merges import add_merge_holder
from mlchain.vm.families.models import add_model_holder
from mlchain.vm.families.partitions import SAID, add_naming_holder
from mlchain.vm.families.renewal import known_element, show_element, show_next
from mlchain.vm.settlement import process_custody_verdict


class Beacon(Record, frozen=True):
    """Public randomness: changes with every element shown, known to nobody before."""

    value: Hash


NO_ELEMENT = bytes(32)
"""What a precommit shows where none is due: of a chain used up, of a key before the first."""

BEACON = Table(b"beacon/", Beacon)


def get_beacon(state: State) -> bytes:
    """Return the beacon after the last block."""
    record = BEACON.get(state)
    return record.value if record else bytes(32)


def is_valid_extension(
    state: State, height: int, validator: bytes, data: bytes, params: Params
) -> bool:
    """Tell whether a precommit of `height` may carry `data`: well-formed, right elements."""
    try:
        extension = decode_extension(data)
    except CodecError:
        return False
    if VALIDATORS.get(state, validator) is None:
        return False
    for purpose, element, due in (
        (BEACON_CHAIN, extension.beacon, height),
        (CUSTODY, extension.custody, key_due(height, params.attest_window)),
    ):
        known = known_element(state, validator, purpose, due, params.ticket_heights)
        if known is None and element != NO_ELEMENT:
            return False
        if known is not None and check_reveal(known, element, due) is None:
            return False
    return True


def process_last_commit(block: BlockContext, commit: Commit) -> None:
    """Apply the extensions of the parent's precommits, in key order."""
    state, params, window = block.state, block.params, block.params.attest_window
    shown = []
    for signature in commit.signatures:
        try:
            extension = decode_extension(signature.extension)
        except CodecError:
            continue
        voter, height = signature.validator, commit.height
        if show_next(state, voter, BEACON_CHAIN, height, extension.beacon, params):
            shown.append(voter + extension.beacon)
        show_next(state, voter, CUSTODY, key_due(height, window), extension.custody, params)
        _process_extension(block, voter, extension, height)
    if shown:
        value = crypto.digest("mlchain/beacon", get_beacon(state), *shown)
        BEACON.put(state, Beacon(value))


def _process_extension(
    block: BlockContext, validator: bytes, extension: Extension, height: int
) -> None:
    for said in extension.available:
        if said.content.startswith(SAID):
            add_naming_holder(block, said.content, validator)
            add_merge_holder(block, said.content, validator)
            continue
        add_holder(block.state, said, validator, block.validators)
        add_model_holder(block.state, said, validator, block.validators)
    for attestation in extension.attestations:
        if not _process_attestation(block, validator, attestation, height):
            break
    for verdict in extension.verdicts:
        process = process_custody_verdict if len(verdict.accused) == 32 else _process_verdict
        process(block, validator, verdict)
    for review in extension.reviews:
        _process_review(block, validator, review)
    for commitment in extension.commitments:
        process_commitment(block, validator, commitment)
    for answer in extension.answers:
        process_answer(block, validator, answer)


def _process_attestation(
    block: BlockContext, validator: bytes, attestation: Attestation, height: int
) -> bool:
    """Count an attestation that came in time, is not on one's own work, and shows its ticket.

    Returns False for a wrong ticket. Nobody honest shows one, and to find it wrong takes as many
    hashes as blocks since the validator's last right one: one of them in a block is enough.
    """
    segment = SEGMENTS.get(block.state, attestation.job, attestation.segment)
    if segment is None or not _is_at_work(segment, attestation.commit):
        return True
    is_in_time = 0 < height - segment.attest_from <= block.params.attest_window
    known = [a.validator for a in segment.attestations]
    if validator in known or not is_in_time:
        return True
    job = JOBS.get(block.state, attestation.job)
    if job is None or not is_checker(job, segment, validator):
        return True
    drawn_at = segment.commit_height
    if not show_element(
        block.state, validator, TICKETS, drawn_at, attestation.ticket, block.params
    ):
        return False
    attested = Attested(validator, attestation.ticket, attestation.result_root)
    SEGMENTS.put(
        block.state,
        replace(segment, attestations=with_said(segment.attestations, attested, block.validators)),
        attestation.job,
        attestation.segment,
    )
    before = LAST_ATTESTED.get(block.state, validator)
    last = max(segment.attest_from, before.height if before else 0)
    LAST_ATTESTED.put(block.state, LastWork(last), validator)
    return True


def _process_verdict(block: BlockContext, validator: bytes, verdict: Verdict) -> None:
    segment = SEGMENTS.get(block.state, verdict.job, verdict.segment)
    if segment is None or segment.claim is None or not _is_about(segment, verdict.commit):
        return
    claim = segment.claim
    if (
        validator == segment.worker
        or claim.chunk != verdict.chunk
        or validator in [b.validator for b in claim.ballots]
    ):
        return
    ballot = Ballot(validator, verdict.outcome)
    claim = replace(claim, ballots=with_said(claim.ballots, ballot, block.validators))
    SEGMENTS.put(
        block.state,
        replace(segment, claim=claim),
        verdict.job,
        verdict.segment,
    )


def _process_review(block: BlockContext, validator: bytes, review: Reviewed) -> None:
    """Note what a validator re-ran of a HARD segment that can still be claimed wrong."""
    segment = SEGMENTS.get(block.state, review.job, review.segment)
    if segment is None or segment.state != SegmentState.HARD or segment.is_own(validator):
        return
    is_old = block.height > segment.hard_height + block.params.unbonding_blocks
    if is_old or not _is_about(segment, review.commit) or validator not in block.validators:
        return
    assert segment.commit is not None, "HARD segments are committed"
    said = review.stretches & ((1 << count_stretches(segment.commit.count)) - 1)
    said |= get_review(segment, validator)
    others = tuple(known for known in segment.reviews if known.validator != validator)
    reviews = with_said(others, Review(validator, said), block.validators)
    reviews = tuple(sorted(reviews, key=lambda review: review.validator))
    if reviews != segment.reviews:
        SEGMENTS.put(block.state, replace(segment, reviews=reviews), review.job, review.segment)


def _is_about(segment: Segment, commit: bytes) -> bool:
    return segment.commit is not None and commit_id(segment.commit) == commit


def _is_at_work(segment: Segment, commit: bytes) -> bool:
    is_open = segment.state in (SegmentState.COMMITTED, SegmentState.DISPUTED)
    return is_open and _is_about(segment, commit)
