"""The rules of Tendermint for one height, as a pure state machine over block ids.

Source: Buchman, Kwon, Milosevic, "The latest gossip on BFT consensus" (arXiv:1807.04938),
Algorithm 1; L22 is its line 22. The engine counts votes and says what to do next. It neither
signs, sends, waits nor executes: `driver.py` does, and tells it what came of it.

Where it differs from the paper, and why that is sound:

* round -1 waits for demand (no empty rounds while nobody has anything to say);
* rule L55 counts validators seen in round r *or later*: some correct one is there in both cases;
* `valid(v)` has three outcomes. A block that is correct but unwanted (a validator did not attest
  the work it pays for) gets no first prevote; once a quorum prevoted it, it is like any other.
  Otherwise a veto could leave a locked minority waiting for ever.
"""

from __future__ import annotations

from mlchain.consensus.actions import (
    Action,
    Cast,
    Check,
    Decision,
    Propose,
    Schedule,
    Snapshot,
    Step,
    Verdict,
)
from mlchain.consensus.effects import Timeouts
from mlchain.consensus.votes import VoteBook
from mlchain.ledger.commit import MAX_ROUND, NIL, Vote, VoteKind
from mlchain.ledger.validators import ValidatorSet

KEEP_ROUNDS = 16
"""Votes of older rounds are dropped, but for those of the locked and the valid round."""
KEEP_BLOCKS = 2
"""The same for blocks, which are larger."""
MAX_PROPOSALS = 2
"""Proposals kept per round, besides those that more than a third prevoted."""

PREVOTE, PRECOMMIT = VoteKind.PREVOTE, VoteKind.PRECOMMIT


class Engine:
    """One validator's view of one height. `me` is None for who only watches."""

    book_type: type[VoteBook] = VoteBook

    def __init__(
        self, height: int, validators: ValidatorSet, me: bytes | None, timeouts: Timeouts
    ) -> None:
        self.height = height
        self.validators = validators
        self.me = me
        self.votes = self.book_type(validators)
        self.round = -1
        self.step = Step.PROPOSE
        self.locked_round, self.locked_id = -1, NIL
        self.valid_round, self.valid_id = -1, NIL
        self.decided = False
        self.proposals: dict[int, list[tuple[bytes, int]]] = {}
        self._timeouts = timeouts
        self._verdicts: dict[bytes, Verdict] = {}
        self._asked: set[bytes] = set()
        self._done: dict[tuple[str, int], None] = {}
        self._seen_in: dict[bytes, int] = {}
        self._latest = -1
        self._demand = False
        self._actions: list[Action] = []
        self._rules = (
            self._decide,
            self._skip_round,
            self._begin,
            self._prevote_new,
            self._prevote_old,
            self._schedule_prevote,
            self._lock,
            self._precommit_nil,
            self._schedule_precommit,
        )

    # ---- what the driver tells ------------------------------------------------------------

    def demand(self) -> None:
        """Somebody wants a block: leave round -1."""
        self._demand = True

    def seen(self, voter: bytes, round_: int) -> None:
        """`voter` signed something in `round_`."""
        self._seen_in[voter] = max(round_, self.last_seen(voter))
        self._latest = max(round_, self._latest)

    def last_seen(self, voter: bytes) -> int:
        """Return the latest round in which `voter` is known to have signed, or -1."""
        return self._seen_in.get(voter, -1)

    def admits_proposal(self, round_: int, block_id: bytes, pol_round: int) -> bool:
        """Tell whether a proposal is new and within the bounds."""
        known = self.proposals.get(round_, [])
        if (block_id, pol_round) in known:
            return False
        if self.is_backed(round_, block_id):
            return len(known) < 2 * MAX_PROPOSALS
        return len(known) < MAX_PROPOSALS and round_ >= self.round - KEEP_BLOCKS

    def is_backed(self, round_: int, block_id: bytes) -> bool:
        """Tell whether more than a third voted for the block: some correct validator did."""
        third = self.validators.third
        return any(self.votes.weight(k, round_, block_id) >= third for k in (PREVOTE, PRECOMMIT))

    def add_proposal(self, round_: int, block_id: bytes, pol_round: int) -> None:
        """Take an admitted, authenticated proposal whose block is at hand."""
        self.proposals.setdefault(round_, []).append((block_id, pol_round))
        self.seen(self.validators.proposer(self.height, round_), round_)

    def add_vote(self, vote: Vote) -> bool:
        """Take an authenticated vote of this height; tell whether it was new."""
        self.seen(vote.validator, vote.round)
        return self.votes.add(vote, self.knows(vote.block_id))

    def has_asked(self, block_id: bytes) -> bool:
        """Tell whether `Check` was said of this block; it is said once, so the answer counts."""
        return block_id in self._asked

    def set_verdict(self, block_id: bytes, verdict: Verdict) -> None:
        """Answer to `Check`, or a block of our own."""
        self._verdicts[block_id] = verdict

    def timeout(self, step: Step, round_: int) -> None:
        """Answer to `Schedule`."""
        if round_ != self.round or self.decided:
            return
        if step is Step.PROPOSE and self.step is Step.PROPOSE:
            self._cast(PREVOTE, NIL)  # L57
        elif step is Step.PREVOTE and self.step is Step.PREVOTE:
            self._cast(PRECOMMIT, NIL)  # L61
        elif step is Step.PRECOMMIT and round_ < MAX_ROUND:
            self._start_round(round_ + 1)  # L65

    def advance(self) -> list[Action]:
        """Apply the next rule that does something; an empty list: nothing to do for now."""
        while not self._actions and not self.decided:
            for rule in self._rules:
                if rule():
                    break
            else:
                break
        actions, self._actions = self._actions, []
        return actions

    # ---- what the driver asks -------------------------------------------------------------

    def keeps_votes_of(self, round_: int) -> bool:
        """Tell whether votes of `round_` may still matter."""
        marked = (self.locked_round, self.valid_round)
        return round_ >= self.round - KEEP_ROUNDS or round_ in marked

    def knows(self, block_id: bytes) -> bool:
        """Tell whether a proposal of this block is at hand."""
        if block_id != NIL:
            for proposals in self.proposals.values():
                for known, _ in proposals:
                    if known == block_id:
                        return True
        return False

    def snapshot(self) -> Snapshot:
        """Return what must survive a crash."""
        return Snapshot(
            self.height,
            self.round,
            int(self.step),
            self.locked_round,
            self.locked_id,
            self.valid_round,
            self.valid_id,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Continue where the last own signature left off."""
        self.round, self.step = snapshot.round, Step(snapshot.step)
        self.locked_round, self.locked_id = snapshot.locked_round, snapshot.locked_id
        self.valid_round, self.valid_id = snapshot.valid_round, snapshot.valid_id
        if self.round >= 0 and self.step is Step.PROPOSE:
            self._schedule(Step.PROPOSE, self._timeouts.propose_ms)

    # ---- the rules, each telling whether it changed something -----------------------------

    def _decide(self) -> bool:
        """L49: a quorum of precommits, of any round, for a block at hand that is valid."""
        for round_, block_id in self.votes.decisions():
            if self.knows(block_id) and self._is_correct(block_id):
                self.decided = True
                self._actions.append(Decision(round_, block_id))
                return True
        return False

    def _skip_round(self) -> bool:
        """L55: more than a third is in a later round."""
        if self._latest <= self.round:
            return False
        weight = 0
        for voter, round_ in sorted(self._seen_in.items(), key=lambda item: -item[1]):
            if round_ <= self.round:
                return False
            weight += self.validators.weight(voter)
            if weight >= self.validators.third:
                self._start_round(round_)
                return True
        return False

    def _begin(self) -> bool:
        """Leave round -1: we have demand, or the proposer of round 0 has."""
        if self.round < 0 and (self._demand or 0 in self.proposals):
            self._start_round(0)
            return True
        return False

    def _prevote_new(self) -> bool:
        """L22: a new block; prevote it if it is valid and no lock forbids it."""
        if self.step is not Step.PROPOSE:
            return False
        for block_id, pol_round in self.proposals.get(self.round, ()):
            if pol_round == -1 and self._prevote(block_id, -1, Verdict.VALID):
                return True
        return False

    def _prevote_old(self) -> bool:
        """L28: a block with a polka in an earlier round; that polka may undo an older lock."""
        if self.step is not Step.PROPOSE:
            return False
        for block_id, pol_round in self.proposals.get(self.round, ()):
            if (
                0 <= pol_round < self.round
                and self._has_polka(pol_round, block_id)
                and self._prevote(block_id, pol_round, Verdict.UNWANTED)
            ):
                return True
        return False

    def _schedule_prevote(self) -> bool:
        """L34: a quorum prevoted, but perhaps not for one value: wait a little for the others."""
        if (
            self.step is Step.PREVOTE
            and self.votes.has_any_quorum(PREVOTE, self.round)
            and self._once("prevote")
        ):
            self._schedule(Step.PREVOTE, self._timeouts.vote_ms)
            return True
        return False

    def _lock(self) -> bool:
        """L36: a polka for a valid block: lock and precommit it, and propose it from now on."""
        if self.step < Step.PREVOTE:
            return False
        for block_id, _ in self.proposals.get(self.round, ()):
            if (
                self.votes.has_quorum(PREVOTE, self.round, block_id)
                and self._is_correct(block_id)
                and self._once("polka")
            ):
                self._set_valid(block_id)
                if self.step is Step.PREVOTE:
                    self._set_locked(block_id)
                    self._cast(PRECOMMIT, block_id)
                return True
        return False

    def _precommit_nil(self) -> bool:
        """L44: a quorum prevoted nil."""
        if self.step is Step.PREVOTE and self.votes.has_quorum(PREVOTE, self.round, NIL):
            self._cast(PRECOMMIT, NIL)
            return True
        return False

    def _schedule_precommit(self) -> bool:
        """L47: a quorum precommitted, but perhaps not one value: wait a little, then go on."""
        if (
            self.round >= 0
            and self.votes.has_any_quorum(PRECOMMIT, self.round)
            and self._once("precommit")
        ):
            self._schedule(Step.PRECOMMIT, self._timeouts.vote_ms)
            return True
        return False

    # ---- small parts, one idea each -------------------------------------------------------

    def _start_round(self, round_: int) -> None:
        """L11."""
        self.round, self.step = round_, Step.PROPOSE
        self._forget()
        self._schedule(Step.PROPOSE, self._timeouts.propose_ms)  # L21
        if self.validators.proposer(self.height, round_) == self.me:
            self._actions.append(Propose(round_, *self._value_to_propose()))

    def _value_to_propose(self) -> tuple[bytes, int]:
        """L15: what once had a polka is proposed again, or whoever locked it could never move."""
        return self.valid_id, self.valid_round

    def _lock_allows(self, block_id: bytes, pol_round: int) -> bool:
        """L23 (`pol_round` -1) and L29."""
        return self.locked_round <= pol_round or self.locked_id == block_id

    def _has_polka(self, round_: int, block_id: bytes) -> bool:
        """L28: the quorum that justifies an old value."""
        return self.votes.has_quorum(PREVOTE, round_, block_id)

    def _set_locked(self, block_id: bytes) -> None:
        """L38."""
        self.locked_round, self.locked_id = self.round, block_id

    def _set_valid(self, block_id: bytes) -> None:
        """L42."""
        self.valid_round, self.valid_id = self.round, block_id

    def _prevote(self, block_id: bytes, pol_round: int, least: Verdict) -> bool:
        if not self._lock_allows(block_id, pol_round):
            self._cast(PREVOTE, NIL)
            return True
        verdict = self._verdict(block_id)
        if verdict is None:
            return False
        self._cast(PREVOTE, block_id if verdict >= least else NIL)
        return True

    def _cast(self, kind: VoteKind, block_id: bytes) -> None:
        self.step = Step(kind)
        self._actions.append(Cast(kind, self.round, block_id))

    def _schedule(self, step: Step, base_ms: int) -> None:
        delay_ms = self._timeouts.delay_ms(base_ms, self.round)
        self._actions.append(Schedule(step, self.round, delay_ms))

    def _verdict(self, block_id: bytes) -> Verdict | None:
        """Return the verdict, or ask for it once."""
        verdict = self._verdicts.get(block_id)
        if verdict is None and block_id not in self._asked:
            self._asked.add(block_id)
            self._actions.append(Check(block_id))
        return verdict

    def _is_correct(self, block_id: bytes) -> bool:
        verdict = self._verdict(block_id)
        return verdict is not None and verdict >= Verdict.UNWANTED

    def _once(self, name: str) -> bool:
        """L34, L36, L47 hold "for the first time" in a round."""
        if (name, self.round) in self._done:
            return False
        self._done[name, self.round] = None
        return True

    def _forget(self) -> None:
        """Drop what no rule will ask for any more."""
        marked = (self.locked_round, self.valid_round)
        self.votes.forget(self.round - KEEP_ROUNDS, marked)
        kept_ids = {self.locked_id, self.valid_id, *(b for _, b in self.votes.decisions())}
        for round_ in [r for r in self.proposals if r < self.round - KEEP_BLOCKS]:
            kept = [p for p in self.proposals[round_] if p[0] in kept_ids]
            if kept:
                self.proposals[round_] = kept
            else:
                del self.proposals[round_]
        self._done = {key: None for key in self._done if key[1] >= self.round}
