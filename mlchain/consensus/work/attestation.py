"""What a precommit carries besides the vote (protocol.md section 8): its extension.

The engine treats it as bytes; `vm` reads it from the next block's last commit.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from msgspec import Meta

from mlchain import codec
from mlchain.codec import ContentId, Hash, Record, Uint
from mlchain.consensus.work.answers import MAX_ANSWERS, MAX_COMMITMENTS, Answer, Commitment
from mlchain.ledger.commit import MAX_EXTENSION_BYTES

MAX_AVAILABLE = 16
MAX_ATTESTATIONS = 32
MAX_VERDICTS = 32
MAX_REVIEWS = 4
STRETCHES = 32
"""Parts of a HARD segment that are re-run again one by one; fewer if it has fewer chunks."""


NO_FACTS = bytes(32)


class Outcome(IntEnum):
    """What re-executing one chunk showed."""

    EQUAL = 0
    DIFFERS = 1
    UNSERVED = 2


class Available(Record, frozen=True):
    """ "I hold this content, and it is what is said of it."

    `facts` is the digest of what is said: where others come to be said of the same content, this is
    not about them. Left out where `content` is the id of all that is said.
    """

    content: ContentId
    facts: Hash = NO_FACTS


class Attestation(Record, frozen=True):
    """ "I re-executed my slice of this commit and every byte was equal."

    `commit` is the id of the segment's commit; `ticket` is the element of the sender's ticket
    chain for the commit's height, shown here for the first time; `result_root` commits to the
    re-executed chunks and to their custody digests (`custody.py`).
    """

    job: Hash
    segment: Uint
    commit: Hash
    ticket: Hash
    result_root: Hash


class Verdict(Record, frozen=True):
    """What the sender found when it re-ran the chunk under dispute.

    `accused` is empty where the worker's chunk is in question, else the validator whose custody
    digest of it is.
    """

    job: Hash
    segment: Uint
    commit: Hash
    chunk: Uint
    outcome: Annotated[int, Meta(ge=0, le=2)]
    accused: Annotated[bytes, Meta(max_length=32)] = b""


class Reviewed(Record, frozen=True):
    """ "I had nothing else to do, and re-executed these stretches of a HARD segment: all equal."

    Bit i of `stretches` is stretch i (`stretch_range`). It is information for people: nobody is
    paid for it, and nobody checks it.
    """

    job: Hash
    segment: Uint
    commit: Hash
    stretches: Annotated[int, Meta(ge=1, lt=2**STRETCHES)]


class Extension(Record, frozen=True):
    """One validator's extension of a precommit: elements due, content it holds, results.

    `beacon` is the element of this height, `custody` that of `custody.key_due`.
    """

    beacon: Hash
    custody: Hash
    available: Annotated[tuple[Available, ...], Meta(max_length=MAX_AVAILABLE)]
    attestations: Annotated[tuple[Attestation, ...], Meta(max_length=MAX_ATTESTATIONS)]
    verdicts: Annotated[tuple[Verdict, ...], Meta(max_length=MAX_VERDICTS)]
    reviews: Annotated[tuple[Reviewed, ...], Meta(max_length=MAX_REVIEWS)]
    commitments: Annotated[tuple[Commitment, ...], Meta(max_length=MAX_COMMITMENTS)] = ()
    answers: Annotated[tuple[Answer, ...], Meta(max_length=MAX_ANSWERS)] = ()


def decode_extension(data: bytes) -> Extension:
    """Decode an extension.

    Raises:
        CodecError: malformed, oversized or not canonical.
    """
    return codec.decode(Extension, data, MAX_EXTENSION_BYTES)


def count_stretches(chunks: int) -> int:
    """Return into how many stretches a segment of `chunks` is cut."""
    return min(chunks, STRETCHES)


def stretch_range(chunks: int, stretch: int) -> range:
    """Return the offsets of one stretch of a segment of `chunks`."""
    parts = count_stretches(chunks)
    return range(stretch * chunks // parts, (stretch + 1) * chunks // parts)
