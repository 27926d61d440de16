"""Answers of validators to predictions: first bound, then shown (docs/adr/0033).

A validator that has computed an answer binds itself with a hash of it, a secret salt and its own
key. Nobody shows an answer before the block that fixes who is bound is final; from then on nobody
can bind itself any more. So whoever is paid had its answer before any other was to be seen, and
another's hash is of no use, for it names its maker.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain import crypto
from mlchain.codec import Hash, Record

MAX_COMMITMENTS = 16
MAX_ANSWERS = 16
"""In one vote. What waits longer than others goes first."""
MAX_VALUE_BYTES = 64
"""Of an answer that stands on chain itself; a longer one is named by its content id."""


class Commitment(Record, frozen=True):
    """ "I have computed the answer to this request." `hash` is a `commitment_hash`."""

    request: Hash
    hash: Hash


class Answer(Record, frozen=True):
    """What a commitment binds to. `outcome` is a `ml_runtime.serving.Outcome`.

    `content` names the bytes of the answer, and is empty for an outcome without; `value` is those
    bytes where they are few.
    """

    request: Hash
    salt: Hash
    outcome: Annotated[int, Meta(ge=0, le=2)]
    content: Annotated[bytes, Meta(max_length=36)]
    value: Annotated[bytes, Meta(max_length=MAX_VALUE_BYTES)]


def commitment_hash(request: bytes, validator: bytes, salt: bytes, answer: bytes) -> bytes:
    """Return what binds a validator; `answer` is an `answer_digest`, the salt hides it."""
    return crypto.digest("mlchain/answer", request, validator, salt, answer)


def answer_digest(outcome: int, content: bytes) -> bytes:
    """Return what two equal answers have in common."""
    return crypto.digest("mlchain/answer-value", bytes([outcome]), content)


def draw_committee(
    seed: bytes, request: bytes, keys: tuple[bytes, ...], size: int
) -> tuple[bytes, ...]:
    """Return `size` of `keys` (all, if there are no more), in key order."""
    ranked = sorted(keys, key=lambda key: crypto.digest("mlchain/committee", seed, request, key))
    return tuple(sorted(ranked[:size]))
