"""What this validator owes the chain in its next precommit: its extension.

The auditor adds results as they come; they ride in every precommit until they stand on chain or
have become pointless, because a precommit may be left out of the next block.
"""

from __future__ import annotations

from msgspec.structs import replace

from mlchain import codec
from mlchain.consensus.work.answers import MAX_ANSWERS, MAX_COMMITMENTS, Answer, Commitment
from mlchain.consensus.work.attestation import (
    MAX_ATTESTATIONS,
    MAX_AVAILABLE,
    MAX_REVIEWS,
    MAX_VERDICTS,
    NO_FACTS,
    Attestation,
    Available,
    Extension,
    Reviewed,
    Verdict,
)
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.custody import key_due
from mlchain.consensus.work.tickets import BEACON, CUSTODY, TICKETS
from mlchain.crypto import SecretKey
from mlchain.ledger.block import SegmentRef
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.state import State
from mlchain.node.chains import OwnChains
from mlchain.vm.answering import is_answer_of, may_bind
from mlchain.vm.families.custody import CUSTODY_CLAIMS, ClaimState
from mlchain.vm.families.data import DATASETS
from mlchain.vm.families.jobs import SEGMENTS, Ballot, Segment, SegmentState, get_review
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.families.merges import MERGES
from mlchain.vm.families.models import MODEL_FILES
from mlchain.vm.families.partitions import NAMINGS, SAID
from mlchain.vm.families.predictions import OPEN, PREDICTIONS
from mlchain.vm.params import get_params
from mlchain.vm.votes import NO_ELEMENT


class Duties:
    """Results of one validator on their way to the chain."""

    def __init__(self, genesis: Genesis, key: SecretKey) -> None:
        self.key = key.public
        self.chains = OwnChains(genesis, key)
        self._window = genesis.params.attest_window
        self._available: dict[Available, None] = {}
        self._attestations: dict[bytes, Attestation] = {}
        self._since: dict[bytes, int] = {}
        """When the slices we attest were dealt: dealt anew, they are other slices."""
        self._verdicts: dict[tuple[bytes, int, bytes], Verdict] = {}
        self._reviews: dict[bytes, Reviewed] = {}
        self._commitments: dict[bytes, Commitment] = {}
        self._answers: dict[bytes, Answer] = {}

    async def prepare(self, height: int) -> None:
        """Have every element at hand that is shown from `height` on."""
        await self.chains.prepare(key_due(height, self._window) - self._window)

    def ticket(self, height: int) -> bytes | None:
        """Return our ticket of `height`; secret until our attestation shows it."""
        return self.chains.element(TICKETS, height)

    def custody_key(self, height: int) -> bytes | None:
        """Return what keys our digests of segments attested from `height` on; secret until due."""
        return self.chains.element(CUSTODY, height)

    def add_available(self, content: bytes, facts: bytes = NO_FACTS) -> None:
        """Announce content that is here, whole, and what is said of it (the digest `facts`).

        Or confirm what is said of partitions, under the id of saying it.
        """
        self._available[Available(content, facts)] = None

    def is_announced(self, content: bytes, facts: bytes) -> bool:
        """Tell whether this is on its way already."""
        return Available(content, facts) in self._available

    def add_attestation(self, attestation: Attestation, since: int | None = None) -> None:
        """Announce a slice that was re-executed and equal; it was dealt at height `since`."""
        if since is not None:
            self._since[attestation.commit] = since
        self._attestations[attestation.commit] = attestation

    def add_verdict(self, verdict: Verdict) -> None:
        """Announce what re-running a disputed chunk showed."""
        self._verdicts[verdict.commit, verdict.chunk, verdict.accused] = verdict

    def add_commitment(self, commitment: Commitment) -> None:
        """Bind ourselves to the answer to a request."""
        self._commitments[commitment.request] = commitment

    def add_answer(self, answer: Answer) -> None:
        """Show the answer that we are bound to, now that nobody can bind itself any more."""
        self._answers[answer.request] = answer

    def add_review(self, review: Reviewed) -> None:
        """Announce what was re-run of HARD work; it waits for a vote that is cast anyway."""
        known = self._reviews.get(review.commit)
        stretches = review.stretches | (known.stretches if known else 0)
        self._reviews[review.commit] = replace(review, stretches=stretches)

    def has_attested(self, ref: SegmentRef, commit: bytes) -> bool:
        """Tell whether our attestation of this commit is on its way."""
        return commit in self._attestations

    def has_verdict(self, commit: bytes, chunk: int, accused: bytes = b"") -> bool:
        """Tell whether our verdict on this chunk, or this digest of it, is on its way."""
        return (commit, chunk, accused) in self._verdicts

    @property
    def is_pending(self) -> bool:
        """Whether something waits for a precommit; no block is made for reviews."""
        results = self._available or self._attestations or self._verdicts
        return bool(results or self._commitments or self._answers)

    def extension(self, height: int) -> bytes:
        """Return the extension of our precommit for a block at `height`."""
        return codec.encode(
            Extension(
                self.chains.element(BEACON, height) or NO_ELEMENT,
                self.chains.element(CUSTODY, key_due(height, self._window)) or NO_ELEMENT,
                tuple(self._available)[:MAX_AVAILABLE],
                tuple(self._attestations.values())[:MAX_ATTESTATIONS],
                tuple(self._verdicts.values())[:MAX_VERDICTS],
                tuple(self._reviews.values())[:MAX_REVIEWS],
                tuple(self._commitments.values())[:MAX_COMMITMENTS],
                tuple(self._answers.values())[:MAX_ANSWERS],
            )
        )

    def settle(self, state: State) -> None:
        """Forget what stands on chain after the last block, or can no longer get there."""
        self._window = get_params(state).attest_window
        self.chains.follow(state)
        for said in list(self._available):
            tables = (NAMINGS, MERGES) if said.content.startswith(SAID) else (DATASETS, MODEL_FILES)
            records = [record for table in tables if (record := table.get(state, said.content))]
            about = [r for r in records if getattr(r, "facts", NO_FACTS) == said.facts]
            if not any(self.key not in record.holders for record in about):
                del self._available[said]
        for commit, attestation in list(self._attestations.items()):
            segment = SEGMENTS.get(state, attestation.job, attestation.segment)
            keys = [a.validator for a in segment.attestations] if segment else []
            if (
                segment is None
                or self.key in keys
                or not _is_at_work(segment, commit)
                or self._since.get(commit, segment.attest_from) != segment.attest_from
            ):
                del self._attestations[commit]
                self._since.pop(commit, None)
        for key, verdict in list(self._verdicts.items()):
            ballots = _ballots(state, verdict)
            if ballots is None or self.key in [ballot.validator for ballot in ballots]:
                del self._verdicts[key]
        voters = get_validator_set(state).keys
        for request in list(self._commitments):
            prediction = PREDICTIONS.get(state, request)
            if prediction is None or not may_bind(prediction, self.key, voters):
                del self._commitments[request]
        for request, answer in list(self._answers.items()):
            prediction = PREDICTIONS.get(state, request) if OPEN.get(state, request) else None
            if prediction is None or not is_answer_of(prediction, self.key, answer):
                del self._answers[request]
        for commit, review in list(self._reviews.items()):
            segment = SEGMENTS.get(state, review.job, review.segment)
            said = get_review(segment, self.key) if segment else 0
            if segment is None or not _is_about(segment, commit) or said | review.stretches == said:
                del self._reviews[commit]


def _ballots(state: State, verdict: Verdict) -> tuple[Ballot, ...] | None:
    """Return the ballots of the dispute that a verdict is for, None if it is over."""
    if verdict.accused:
        place = (verdict.job, verdict.segment, verdict.accused, verdict.chunk)
        about = CUSTODY_CLAIMS.get(state, *place)
        return about.ballots if about and about.state == ClaimState.DISPUTED else None
    segment = SEGMENTS.get(state, verdict.job, verdict.segment)
    claim = segment.claim if segment and _is_about(segment, verdict.commit) else None
    return claim.ballots if claim and claim.chunk == verdict.chunk else None


def _is_about(segment: Segment, commit: bytes) -> bool:
    return segment.commit is not None and commit_id(segment.commit) == commit


def _is_at_work(segment: Segment, commit: bytes) -> bool:
    is_open = segment.state in (SegmentState.COMMITTED, SegmentState.DISPUTED)
    return is_open and _is_about(segment, commit)
