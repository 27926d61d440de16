"""How a claim about one chunk is settled: everybody re-runs it (protocol.md section 10).

A FRAUD claim says "the leaf of this chunk is wrong"; an UNSERVED claim says "the worker does not
give me this chunk of my slice". Both make every validator fetch and re-run the chunk and vote.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from mlchain.consensus.work.attestation import Outcome
from mlchain.ledger.validators import ValidatorSet


class ClaimKind(IntEnum):
    """What a claim accuses the worker of."""

    FRAUD = 0
    UNSERVED = 1


class Ruling(IntEnum):
    """How a claim ends."""

    OPEN = 0
    UPHELD = 1
    """The chunk differs: the worker forged it."""
    REJECTED = 2
    """The chunk is equal: it was served and right."""
    UNAVAILABLE = 3
    """Too many could not get the chunk: at least one honest validator among them."""
    LAPSED = 4
    """The window closed without a quorum for anything."""


def settle(verdicts: Iterable[tuple[bytes, int]], validators: ValidatorSet, is_due: bool) -> Ruling:
    """Return the ruling on (validator, outcome) pairs, one per validator.

    A quorum decides equal or different. Only when the window `is_due` does silence of the worker
    count, and then more than a third suffices: f liars cannot reach it.
    """
    weight = dict.fromkeys(Outcome, 0)
    for key, outcome in verdicts:
        weight[Outcome(outcome)] += validators.weight(key)
    if weight[Outcome.DIFFERS] >= validators.quorum:
        return Ruling.UPHELD
    if weight[Outcome.EQUAL] >= validators.quorum:
        return Ruling.REJECTED
    if not is_due:
        return Ruling.OPEN
    if weight[Outcome.UNSERVED] >= validators.third:
        return Ruling.UNAVAILABLE
    return Ruling.LAPSED
