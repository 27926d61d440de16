"""The engine's words: where it stands, what it says to do, what it must remember."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from mlchain.codec import Record, Uint
from mlchain.consensus.messages import RoundOrNone
from mlchain.ledger.commit import BlockId, VoteKind


class Step(IntEnum):
    """Where a validator is in a round: what it will sign next, or that it signed all."""

    PROPOSE = 0
    PREVOTE = 1
    PRECOMMIT = 2


class Verdict(IntEnum):
    """Outcome of checking a block."""

    INVALID = 0
    UNWANTED = 1
    VALID = 2


class Snapshot(Record, frozen=True):
    """What the write-ahead log keeps of an engine beside each own signature."""

    height: Uint
    round: RoundOrNone
    step: Uint
    locked_round: RoundOrNone
    locked_id: BlockId
    valid_round: RoundOrNone
    valid_id: BlockId


@dataclass(frozen=True, slots=True)
class Schedule:
    """Call `timeout(step, round)` in `delay_ms`."""

    step: Step
    round: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Propose:
    """Propose `block_id`, for which `pol_round` has a polka; nil: build a new block."""

    round: int
    block_id: bytes
    pol_round: int


@dataclass(frozen=True, slots=True)
class Check:
    """Say through `set_verdict` whether this block is valid."""

    block_id: bytes


@dataclass(frozen=True, slots=True)
class Cast:
    """Sign, store and send this vote."""

    kind: VoteKind
    round: int
    block_id: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """The height is decided."""

    round: int
    block_id: bytes


Action = Schedule | Propose | Check | Cast | Decision
