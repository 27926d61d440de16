"""Claims about custody digests.

A validator that audits another asks it for the opening of one digest. What cannot be settled
between the two is settled here (protocol.md section 9): a digest that is wrong is claimed with its
opening, and everybody re-runs that chunk; one that was not given is asked for on chain, where
everybody sees the answer.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, ClassVar, NamedTuple

from msgspec import Meta
from msgspec.structs import replace

from mlchain.codec import Hash, PublicKey, Record, Uint
from mlchain.consensus.work.custody import KEY_DELAY, Opening, verify_opening
from mlchain.consensus.work.tickets import CUSTODY
from mlchain.errors import InvalidTransaction
from mlchain.ledger.genesis import Params
from mlchain.ledger.state import State, Table
from mlchain.ledger.validators import MAX_VALIDATORS
from mlchain.vm.context import Context, Payload
from mlchain.vm.families.announcements import take_announced
from mlchain.vm.families.jobs import (
    JOBS,
    Attested,
    Ballot,
    Job,
    Segment,
    get_segment,
    slice_draw_gas,
)
from mlchain.vm.families.jobs import segment_slice as slice_of
from mlchain.vm.families.members import LAST_ATTESTED, VALIDATORS
from mlchain.vm.families.renewal import known_element, public_element, show_element
from mlchain.vm.families.segments import HASH_GAS

MAX_OPEN = 4
"""Claims that one accuser may have open at a time: each makes others answer, or all re-run."""
CLAIM_GAS = 50_000
"""Checking an opening; drawing the slice again is paid by the chunk."""


class ClaimState(IntEnum):
    """Where a claim stands."""

    ASKED = 0
    """The digest is to be shown in time."""
    SHOWN = 1
    """It was; now it can be claimed wrong."""
    DISPUTED = 2
    """Everybody re-runs the chunk."""
    CLOSED = 3
    """Settled for the accused, and not claimed again."""


class CustodyClaim(Record, frozen=True):
    """What is claimed about one digest of an attestation. `digest` is empty until it is known."""

    accuser: PublicKey
    state: Uint
    digest: Annotated[bytes, Meta(max_length=32)]
    height: Uint
    """Height at which it came into its state."""
    ballots: Annotated[tuple[Ballot, ...], Meta(max_length=MAX_VALIDATORS)]


CUSTODY_CLAIMS = Table(b"custody/", CustodyClaim, bytes, int, bytes, int)
"""By job, segment, the accused, and the chunk."""


class Attestment(NamedTuple):
    """An attestation on chain, with what it is about."""

    job: Job
    segment: Segment
    attested: Attested
    chunks: tuple[int, ...]
    """The slice, counted from the start of the job; a chunk that traps is part of it."""

    @property
    def auditable(self) -> tuple[int, ...]:
        """The chunks that were run to their end, and so left a digest."""
        commit = self.segment.commit
        assert commit is not None, "what is attested is committed"
        return self.chunks[: len(self.chunks) - bool(commit.trap)]


def get_attestment(state: State, job_id: bytes, index: int, validator: bytes) -> Attestment:
    """Return what a validator attested of a segment.

    Raises:
        InvalidTransaction: nothing.
    """
    segment, job = get_segment(state, job_id, index), JOBS.get(state, job_id)
    attested = [a for a in segment.attestations if a.validator == validator]
    if job is None or not attested:
        raise InvalidTransaction("this validator has not attested the segment")
    first, _ = job.segment_range(index)
    drawn = slice_of(job, segment, validator, attested[0].ticket)
    return Attestment(job, segment, attested[0], tuple(first + offset for offset in drawn))


def _redraw(ctx: Context, job_id: bytes, index: int, validator: bytes) -> Attestment:
    """Return what a validator attested, paid for: its slice is drawn again."""
    segment, job = get_segment(ctx.state, job_id, index), JOBS.get(ctx.state, job_id)
    ctx.charge(slice_draw_gas(job, segment) if job else 0)
    return get_attestment(ctx.state, job_id, index, validator)


def find_key(state: State, validator: bytes, about: Attestment, params: Params) -> bytes | None:
    """Return the custody element behind the digests of an attestation, None while it is secret."""
    height, length = about.segment.attest_from, params.ticket_heights
    return public_element(state, validator, CUSTODY, height, length)


def audit_begin(segment: Segment, params: Params) -> int:
    """Return the first height at which digests of a segment can be claimed wrong."""
    return segment.attest_from + params.attest_window + KEY_DELAY + 1


def audit_end(segment: Segment, params: Params) -> int:
    """Return the last height at which a digest of a segment can be asked for."""
    return audit_begin(segment, params) + params.custody_window


def claim_end(segment: Segment, claim: CustodyClaim | None, params: Params) -> int:
    """Return the last height at which a digest can be claimed wrong; `claim` is what stands there.

    What is asked for can be claimed as long as it may be shown, and what was shown for a whole
    window from then on: who shows it in the last block must not have run out the clock. A digest is
    asked for and shown once, so this ends, two windows after `audit_end`.
    """
    end = audit_end(segment, params)
    if claim is None or claim.state not in (ClaimState.ASKED, ClaimState.SHOWN):
        return end
    return max(end, claim.height + params.custody_window)


def may_claim(before: CustodyClaim, opening: Opening | None) -> bool:
    """Tell whether a digest can be claimed wrong where `before` stands: shown, or with its opening.

    Who only asks keeps nobody out that has the digest in hand.
    """
    is_asked = before.state == ClaimState.ASKED and opening is not None
    return is_asked or before.state == ClaimState.SHOWN


def is_under_audit(
    state: State, job: bytes, index: int, segment: Segment, height: int, params: Params
) -> bool:
    """Tell whether anybody may need digests or states of a segment after the block at `height`.

    Digests can be asked for until `audit_end`; what is asked for then is shown, claimed wrong and
    judged later.
    """
    is_open = any(True for _ in CUSTODY_CLAIMS.items(state, job, index))
    return height <= audit_end(segment, params) or is_open


def is_still_audited(state: State, validator: bytes, height: int, params: Params) -> bool:
    """Tell whether a validator may be asked for a digest after the block at `height`.

    Only as a validator can it answer: so it does not go before.
    """
    last = LAST_ATTESTED.get(state, validator)
    window = params.attest_window + KEY_DELAY + 1 + params.custody_window
    if last is not None and height < last.height + window:
        return True
    return validator in accused_validators(state)


def accused_validators(state: State) -> dict[bytes, None]:
    """Return the validators that a claim about a digest is open against."""
    claims = CUSTODY_CLAIMS.items(state)
    return {place[2]: None for place, claim in claims if claim.state != ClaimState.CLOSED}


def is_accused(state: State, validator: bytes) -> bool:
    """Tell whether a validator is asked for a digest now, or one of its is judged."""
    claims = CUSTODY_CLAIMS.items(state)
    now = (ClaimState.ASKED, ClaimState.DISPUTED)
    return any(place[2] == validator and claim.state in now for place, claim in claims)


class ClaimDigest(Payload, frozen=True):
    """A validator says that the digest of `chunk` in another's attestation is wrong.

    `opening` shows the digest, whoever has asked for it meanwhile. Without one this asks the other
    to show it; when it has, the same again says that what was shown is wrong. It is announced in
    block `announced`; the `salt` is secret until then.
    """

    KIND: ClassVar[int] = 25
    ROLE: ClassVar[str] = "validator"
    job: Hash
    segment: Uint
    validator: PublicKey
    chunk: Uint
    opening: Opening | None
    salt: Hash
    announced: Uint

    def execute(self, ctx: Context) -> None:
        """Ask for the digest, or have everybody re-run the chunk."""
        ctx.charge(CLAIM_GAS)
        place = (self.job, self.segment, self.validator, self.chunk)
        record = VALIDATORS.get(ctx.state, self.validator)
        if record is None:
            raise InvalidTransaction("it is no validator")
        segment, params = get_segment(ctx.state, self.job, self.segment), ctx.block.params
        before = CUSTODY_CLAIMS.get(ctx.state, *place)
        begin, end = audit_begin(segment, params), claim_end(segment, before, params)
        if not begin <= ctx.block.height <= end:
            raise InvalidTransaction(f"its digests can be claimed wrong from {begin} to {end}")
        about = _redraw(ctx, *place[:3])
        if self.chunk not in about.auditable:
            raise InvalidTransaction(f"chunk {self.chunk} is not in its slice, or it traps")
        if before is not None and not may_claim(before, self.opening):
            raise InvalidTransaction("this digest is claimed or asked for already, or was right")
        open_claims = sum(
            claim.accuser == ctx.sender and claim.state in (ClaimState.ASKED, ClaimState.DISPUTED)
            for at, claim in CUSTODY_CLAIMS.items(ctx.state)
            if at != place
        )
        if open_claims >= MAX_OPEN:
            raise InvalidTransaction(f"{MAX_OPEN} claims of this validator are open")
        take_announced(ctx, self)
        state, digest = ClaimState.DISPUTED, before.digest if before else b""
        if self.opening is not None:
            verify_opening(about.attested.result_root, about.chunks, self.chunk, self.opening)
            digest = self.opening.digest
        elif before is None:
            state = ClaimState.ASKED
            if record.left_height:
                raise InvalidTransaction("it has left, or changed its key: it cannot answer")
        if (
            state == ClaimState.DISPUTED
            and find_key(ctx.state, self.validator, about, ctx.block.params) is None
        ):
            raise InvalidTransaction("its key is not on chain: nobody could re-run the chunk")
        claim = CustodyClaim(ctx.sender, state, digest, ctx.block.height, ())
        CUSTODY_CLAIMS.put(ctx.state, claim, *place)
        ctx.emit(f"digest of chunk {self.chunk} of {self.job.hex()[:8]} {state.name.lower()}")


class ShowDigest(Payload, frozen=True):
    """The accused shows the digest it was asked for, and the custody key if that is missing."""

    KIND: ClassVar[int] = 26
    ROLE: ClassVar[str] = "validator"
    job: Hash
    segment: Uint
    chunk: Uint
    key: Hash
    opening: Opening

    def execute(self, ctx: Context) -> None:
        """Put the digest where everybody sees it."""
        ctx.charge(CLAIM_GAS)
        place = (self.job, self.segment, ctx.sender, self.chunk)
        claim = CUSTODY_CLAIMS.get(ctx.state, *place)
        if claim is None or claim.state != ClaimState.ASKED:
            raise InvalidTransaction("nobody asks for this digest")
        segment, params = get_segment(ctx.state, self.job, self.segment), ctx.block.params
        height = segment.attest_from
        known = known_element(ctx.state, ctx.sender, CUSTODY, height, params.ticket_heights)
        ctx.charge(HASH_GAS * abs(height - known.height) if known else 0)
        if not show_element(ctx.state, ctx.sender, CUSTODY, height, self.key, params):
            raise InvalidTransaction("the key is not the one of that height")
        about = _redraw(ctx, *place[:3])
        verify_opening(about.attested.result_root, about.chunks, self.chunk, self.opening)
        shown = replace(
            claim, state=ClaimState.SHOWN, digest=self.opening.digest, height=ctx.block.height
        )
        CUSTODY_CLAIMS.put(ctx.state, shown, *place)
