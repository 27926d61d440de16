"""One height as the driver sees it: the engine, the blocks, and what may enter.

Bounds come first, then signatures, so that nobody can make us check or keep much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mlchain.consensus.effects import Effect, Persist, ReportEvidence, SignMessage
from mlchain.consensus.engine import Engine
from mlchain.consensus.evidence import proposal_evidence, vote_evidence
from mlchain.consensus.inbox import Authenticator
from mlchain.consensus.journal import Entry, Intent, intent_entry, noted_entry
from mlchain.consensus.messages import BlockProposal, Proposal
from mlchain.consensus.safety import SignRequest
from mlchain.errors import InvalidSignature
from mlchain.ledger.commit import Vote, VoteKind

ROUNDS_AHEAD = 10
"""Votes of later rounds than this are not kept; they only say where their sender is."""
MAX_REFUSED = 2
"""Votes beyond the bounds, per validator, kind and round, that are looked at for evidence."""


class Height:
    """What is known about the height being decided."""

    def __init__(
        self, engine: Engine, inbox: Authenticator, emit: Callable[[Effect], None]
    ) -> None:
        self.engine = engine
        self.number = engine.height
        self.validators = engine.validators
        self._inbox = inbox
        self._emit = emit
        self._messages: dict[tuple[int, bytes], BlockProposal] = {}
        self._reported: dict[tuple[bytes, int, int], None] = {}
        self._pending: tuple[SignRequest, bytes] | None = None
        self._refused: dict[tuple[bytes, int, int], int] = {}

    def block(self, block_id: bytes) -> bytes | None:
        """Return a block some proposal brought."""
        return next((m.block for (_, b), m in self._messages.items() if b == block_id), None)

    def proposal(self, round_: int, block_id: bytes) -> BlockProposal | None:
        """Return a proposal of the block, of that round if there is one; nil: any of the round."""
        if block_id:
            same = [m for (_, b), m in self._messages.items() if b == block_id]
            return self._messages.get((round_, block_id)) or (same[0] if same else None)
        return next((m for (r, _), m in self._messages.items() if r == round_), None)

    def take(self, message: Vote | BlockProposal, verified: bool = False) -> str | None:
        """Let a message of this height in; return why it is of no use, or None.

        `verified`: a vote's signature was checked before.

        Raises:
            InvalidSignature, InvalidBlock, CodecError: forged, or senseless.
        """
        if isinstance(message, Vote):
            return self._take_vote(message, verified)
        return self._take_proposal(message)

    def intend(self, request: SignRequest, block: bytes = b"") -> None:
        """Write down, and then ask for, the signature of a message of our own."""
        self._pending = (request, block)
        entry = intent_entry(self.engine.snapshot(), request, block)
        self._emit(Persist(entry, sync=True))
        self._emit(SignMessage(request))

    @property
    def is_signing(self) -> bool:
        """Whether a signature was asked for; until it comes, no rule is applied."""
        return self._pending is not None

    def take_own(
        self, request: SignRequest, key: bytes, signature: bytes | None
    ) -> Vote | BlockProposal | None:
        """Return our own message, let in and noted; None if there is nothing to send.

        So it is if the signer refused, the request is out of date, or its polka is not at hand.
        """
        if self._pending is None or self._pending[0] != request:
            return None
        block = self._pending[1]
        self._pending = None
        if signature is None or (request.pol_round >= 0 and not self._polka(request)):
            return None
        message = self._make(request, block, key, signature)
        self._store(message)
        self._emit(Persist(noted_entry(self.number, message), sync=False))
        return message

    def replay(self, entries: Iterable[Entry]) -> None:
        """Take up this height where the write-ahead log left it; `entries` are those of it.

        What was to be signed last, and perhaps never left, is asked for again: the signer gives
        the same signature for the same bytes.
        """
        last: Intent | None = None
        is_done = True
        for entry in entries:
            if isinstance(entry, Intent):
                last, is_done = entry, False
            else:
                self._store(entry)
                is_done = is_done or (last is not None and self._is_of(entry, last.request))
        if last is None:
            return
        self.engine.restore(last.snapshot)
        if not is_done:
            self._pending = (last.request, last.block)
            self._emit(SignMessage(last.request))

    def forget_blocks(self) -> None:
        """Drop the blocks the engine has dropped."""
        rounds = self.engine.proposals
        for key in [k for k in self._messages if k[0] not in rounds]:
            del self._messages[key]

    # ---- votes ----------------------------------------------------------------------------

    def _take_vote(self, vote: Vote, verified: bool) -> str | None:
        engine = self.engine
        if vote.validator not in self.validators:
            raise InvalidSignature("vote: not a validator")
        if vote.round > max(engine.round, 0) + ROUNDS_AHEAD:
            return self._take_far_vote(vote)
        if not engine.keeps_votes_of(vote.round):
            return "an old round"
        earlier = engine.votes.of(vote.kind, vote.round, vote.validator)
        if vote in earlier:
            return "known"
        if not engine.votes.admits(vote, engine.knows(vote.block_id)):
            return self._refuse_vote(vote, earlier)
        if not verified:
            self._inbox.check_vote(vote, self.validators)
        if earlier:
            self._report_votes(earlier[0], vote)
        self._store(vote)
        self._emit(Persist(noted_entry(self.number, vote), sync=False))
        return None

    def _take_far_vote(self, vote: Vote) -> str | None:
        if vote.round <= self.engine.last_seen(vote.validator):
            return "known to be there"
        self._inbox.check_vote(vote, self.validators)
        self.engine.seen(vote.validator, vote.round)
        return None

    def _refuse_vote(self, vote: Vote, earlier: list[Vote]) -> str:
        """A vote beyond the bounds is of no use, but it may be the first proof of an offence."""
        key = (vote.validator, vote.kind, vote.round)
        if key not in self._reported and self._refused.get(key, 0) < MAX_REFUSED:
            self._inbox.check_vote(vote, self.validators)
            self._refused[key] = self._refused.get(key, 0) + 1
            self._report_votes(earlier[0], vote)
        return "more votes of this validator than are kept"

    def _report_votes(self, one: Vote, other: Vote) -> None:
        key = (other.validator, other.kind, other.round)
        chain_id = self._inbox.chain_id
        if key not in self._reported and one.sign_bytes(chain_id) != other.sign_bytes(chain_id):
            self._reported[key] = None
            self._emit(ReportEvidence(vote_evidence(one, other)))

    # ---- proposals ------------------------------------------------------------------------

    def _take_proposal(self, message: BlockProposal) -> str | None:
        engine, proposal = self.engine, message.proposal
        round_, block_id = proposal.round, proposal.block_id
        backed = engine.is_backed(round_, block_id)
        if round_ > engine.round + 1 and not backed:
            return "a round too far ahead"
        known = self._first_of(round_)
        if not engine.admits_proposal(round_, block_id, proposal.pol_round):
            if known is None or proposal in (m.proposal for m in self._of(round_)):
                return "known, or an old round"
            self._inbox.check_proposer(proposal, self.validators)
            self._report_proposals(known, proposal)
            return "more proposals of this round than are kept"
        self._inbox.check_proposer(proposal, self.validators)
        if known is not None:
            self._report_proposals(known, proposal)
        self._inbox.check_polka(message, engine.votes)
        self._inbox.check_block(message.block, block_id)
        for vote in message.polka:
            for earlier in engine.votes.of(vote.kind, vote.round, vote.validator)[:1]:
                self._report_votes(earlier, vote)
        self._store(message)
        self._emit(Persist(noted_entry(self.number, message), sync=False))
        return None

    def _of(self, round_: int) -> list[BlockProposal]:
        return [m for (r, _), m in self._messages.items() if r == round_]

    def _first_of(self, round_: int) -> Proposal | None:
        of_round = self._of(round_)
        return of_round[0].proposal if of_round else None

    def _report_proposals(self, one: Proposal, other: Proposal) -> None:
        key = (other.validator, 0, other.round)
        chain_id = self._inbox.chain_id
        if key not in self._reported and one.sign_bytes(chain_id) != other.sign_bytes(chain_id):
            self._reported[key] = None
            self._emit(ReportEvidence(proposal_evidence(one, other)))

    # ---- both -----------------------------------------------------------------------------

    def _store(self, message: Vote | BlockProposal) -> None:
        engine = self.engine
        if isinstance(message, Vote):
            engine.add_vote(message)
            return
        proposal = message.proposal
        if engine.admits_proposal(proposal.round, proposal.block_id, proposal.pol_round):
            self._messages.setdefault((proposal.round, proposal.block_id), message)
            engine.add_proposal(proposal.round, proposal.block_id, proposal.pol_round)
            for vote in message.polka:
                engine.add_vote(vote)

    def _make(
        self, request: SignRequest, block: bytes, key: bytes, signature: bytes
    ) -> Vote | BlockProposal:
        height, round_, block_id = request.height, request.round, request.block_id
        if request.kind != VoteKind.PROPOSAL:
            return Vote(request.kind, height, round_, block_id, key, request.extension, signature)
        pol_round = request.pol_round
        proposal = Proposal(height, round_, block_id, pol_round, key, signature)
        return BlockProposal(proposal, self._polka(request), block)

    def _is_of(self, message: Vote | BlockProposal, request: SignRequest) -> bool:
        """Tell whether `message` is what came of `request`."""
        if isinstance(message, Vote):
            made = (message.kind, message.round, message.block_id, message.extension)
            asked = (request.kind, request.round, request.block_id, request.extension)
            return message.validator == self.engine.me and made == asked
        made_of = message.proposal
        return request.kind == VoteKind.PROPOSAL and made_of.round == request.round

    def _polka(self, request: SignRequest) -> tuple[Vote, ...]:
        """Return the votes that justify proposing an old value again."""
        votes = self.engine.votes
        return tuple(votes.cast_for(VoteKind.PREVOTE, request.pol_round, request.block_id))
