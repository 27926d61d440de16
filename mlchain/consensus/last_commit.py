"""The certificate of the height just decided, still growing.

A height is decided by the first quorum of precommits. The others arrive a moment later, and what
they bring (attestations of work, tickets) is worth a place in the next block.
"""

from __future__ import annotations

from collections.abc import Callable

from mlchain.consensus.effects import Effect, ReportEvidence
from mlchain.consensus.evidence import vote_evidence
from mlchain.consensus.inbox import Authenticator
from mlchain.ledger.commit import Commit, CommitSignature, Vote, VoteKind
from mlchain.ledger.validators import ValidatorSet


class LastCommit:
    """Precommits of one round for the decided block; no others are of use."""

    def __init__(
        self, commit: Commit, validators: ValidatorSet | None, emit: Callable[[Effect], None]
    ) -> None:
        """`validators` None (after a restart): the certificate does not grow."""
        self._emit = emit
        self._reported: dict[bytes, None] = {}
        self.height = commit.height
        self._round = commit.round
        self._block_id = commit.block_id
        self._validators = validators
        self._signatures = {s.validator: s for s in commit.signatures}

    def add(self, vote: Vote, inbox: Authenticator) -> str | None:
        """Take a late vote of the decided height; return why it is of no use, or None.

        Raises:
            InvalidSignature: forged, or its extension is bad.
        """
        place = (VoteKind.PRECOMMIT, self._round)
        if (vote.kind, vote.round) != place or self._validators is None:
            return "height is decided"
        if vote.block_id != self._block_id:
            self._report(vote, inbox, self._validators)
            return "height is decided"
        if vote.validator in self._signatures:
            return "known"
        inbox.check_vote(vote, self._validators)
        self._signatures[vote.validator] = CommitSignature(
            vote.validator, vote.extension, vote.signature
        )
        return None

    def _report(self, vote: Vote, inbox: Authenticator, validators: ValidatorSet) -> None:
        """Convict who signed for the decided block, and in that round for another or for none."""
        known = self._signatures.get(vote.validator)
        if known is None or vote.validator in self._reported:
            return
        inbox.check_vote(vote, validators)
        self._reported[vote.validator] = None
        decided = Vote(
            vote.kind, self.height, self._round, self._block_id, vote.validator, known.extension,
            known.signature,
        )  # fmt: skip
        self._emit(ReportEvidence(vote_evidence(decided, vote)))

    def certificate(self) -> Commit:
        """Return the commit with all signatures known by now, in key order."""
        signatures = tuple(self._signatures[key] for key in sorted(self._signatures))
        return Commit(self.height, self._round, self._block_id, signatures)
