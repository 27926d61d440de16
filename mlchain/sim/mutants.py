"""Deliberate bugs in the rules that safety and liveness rest on.

A simulator that finds nothing shows nothing, unless it finds these. Each overrides one small part
of the real code; none of them can be switched on outside the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlchain.consensus.actions import Snapshot
from mlchain.consensus.driver import Driver
from mlchain.consensus.effects import Effect, Persist, SignMessage
from mlchain.consensus.engine import Engine
from mlchain.consensus.height import Height
from mlchain.consensus.inbox import Authenticator
from mlchain.consensus.journal import decode_entry, intent_entry
from mlchain.consensus.messages import BlockProposal, Status
from mlchain.consensus.safety import SignRequest
from mlchain.consensus.votes import VoteBook
from mlchain.ledger.commit import NIL, Vote
from mlchain.ledger.validators import ValidatorSet


@dataclass(frozen=True, slots=True)
class Mutant:
    """A driver with a bug, or a host that loses its log. Without arguments: neither."""

    driver: type[Driver] = Driver
    adversary: str = ""
    """Who exposes it best, and therefore plays against it unless another is named."""
    loses_log: bool = False
    loses_last_sign: bool = False


def _with_engine(engine: type[Engine]) -> type[Driver]:
    return type("MutantDriver", (Driver,), {"engine_type": engine})


class _NoLock(Engine):
    """Prevotes whatever is valid (L23, L29 without their second half)."""

    def _lock_allows(self, block_id: bytes, pol_round: int) -> bool:
        return True


class _LateLock(Engine):
    """Takes the lock a round too late (L38)."""

    _late: tuple[int, bytes] = (-1, NIL)

    def _set_locked(self, block_id: bytes) -> None:
        self._late = (self.round, block_id)

    def _start_round(self, round_: int) -> None:
        if self._late[0] < round_ - 1:
            self.locked_round, self.locked_id = self._late
        super()._start_round(round_)


class _NoValid(Engine):
    """Always proposes a new block (L15 to L18 without valid value)."""

    def _value_to_propose(self) -> tuple[bytes, int]:
        return NIL, -1


class _NoPolkaCheck(Engine):
    """Believes that an old value had its polka (L28 without its votes)."""

    def _has_polka(self, round_: int, block_id: bytes) -> bool:
        return True


class _CredulousInbox(Authenticator):
    def check_polka(self, message: BlockProposal, book: VoteBook) -> None:
        """Believe it."""


class _NoPolkaCheckDriver(Driver):
    """The polka of a proposal is checked on arrival and by the rule, so both checks must go."""

    engine_type = _NoPolkaCheck
    inbox_type = _CredulousInbox


class _LogWithoutLock(Engine):
    """Forgets to write the lock down."""

    def snapshot(self) -> Snapshot:
        full = super().snapshot()
        return Snapshot(full.height, full.round, full.step, -1, NIL, -1, NIL)


class _SmallQuorumBook(VoteBook):
    """Takes 2f for a quorum."""

    def __init__(self, validators: ValidatorSet) -> None:
        super().__init__(validators)
        self.quorum = 2 * validators.faults


class _FirstVoteBook(VoteBook):
    """Keeps only the first vote of an equivocator."""

    def admits(self, vote: Vote, known_block: bool) -> bool:
        return not self.of(vote.kind, vote.round, vote.validator)


class _SmallQuorum(Engine):
    book_type = _SmallQuorumBook


class _FirstVote(Engine):
    book_type = _FirstVoteBook


class _BareProposals(Height):
    def _polka(self, request: SignRequest) -> tuple[Vote, ...]:
        votes = super()._polka(request)
        return tuple(vote for vote in votes if vote.validator == self.engine.me)


class _OwnGossip(Driver):
    """Passes on nobody else's votes.

    Not in answer to a status, and not inside proposals, which then wait for the votes to come by
    themselves. Either way alone would make up for the other.
    """

    height_type = _BareProposals
    inbox_type = _CredulousInbox

    def _votes_lacking(self, engine: Engine, status: Status) -> list[Vote]:
        votes = super()._votes_lacking(engine, status)
        return [vote for vote in votes if vote.validator == self._key]


class _LogWithoutPolkaHeight(Height):
    """Writes down locks and own votes, but not the votes of others."""

    def __init__(
        self, engine: Engine, inbox: Authenticator, emit: Callable[[Effect], None]
    ) -> None:
        def emit_less(effect: Effect) -> None:
            entry = decode_entry(effect.record) if isinstance(effect, Persist) else None
            if not isinstance(entry, Vote) or entry.validator == engine.me:
                emit(effect)

        super().__init__(engine, inbox, emit_less)


class _LogWithoutPolka(Driver):
    height_type = _LogWithoutPolkaHeight


class _SignsFirst(Height):
    """Has a message signed before the intent is in the log."""

    def intend(self, request: SignRequest, block: bytes = b"") -> None:
        emit, self._emit = self._emit, lambda effect: None
        super().intend(request, block)
        self._emit = emit
        self._emit(SignMessage(request))
        self._emit(Persist(intent_entry(self.engine.snapshot(), request, block), sync=True))


class _SignBeforeLog(Driver):
    height_type = _SignsFirst


class _LogOfNow(Driver):
    """Forgets what the log holds of heights that its database has yet to come to."""

    def start(self, *height: Any) -> None:
        super().start(*height)
        self._journal = {}


MUTANTS = {
    "no-lock": Mutant(_with_engine(_NoLock), "schemer"),
    "late-lock": Mutant(_with_engine(_LateLock), "schemer"),
    "no-valid-value": Mutant(_with_engine(_NoValid), "deserter"),
    "no-polka-check": Mutant(_NoPolkaCheckDriver, "forger"),
    "small-quorum": Mutant(_with_engine(_SmallQuorum), "twins"),
    "first-vote-only": Mutant(_with_engine(_FirstVote), "equivocator"),
    "own-gossip-only": Mutant(_OwnGossip, "deserter"),
    "log-lost": Mutant(Driver, "silent", loses_log=True),
    "log-and-signer-lost": Mutant(Driver, "silent", loses_log=True, loses_last_sign=True),
    "log-of-now": Mutant(_LogOfNow, "deserter"),
    "log-without-lock": Mutant(_with_engine(_LogWithoutLock), "schemer"),
    "log-without-polka": Mutant(_LogWithoutPolka, "deserter"),
    "sign-before-log": Mutant(_SignBeforeLog, "silent"),
}
"""By name; the simulator's tests kill every one."""
