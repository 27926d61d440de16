"""What a worker binds itself to: a Merkle root over one leaf per chunk (protocol.md section 6).

A leaf names chain, job, segment, attempt, worker and chunk, so no leaf can be moved, copied from
another worker or replayed on another chain.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain import codec, crypto
from mlchain.codec import ContentId, Hash, Record, Uint
from mlchain.ledger.merkle import list_root
from mlchain.ml_runtime import Metrics

MAX_SEGMENT_CHUNKS = 1 << 18
"""Whoever claims something of a segment has its slices drawn again, in the block."""


class SegmentCommit(Record, frozen=True):
    """Result of one segment.

    `start` and `end` are digests of the training state before the first and after the last
    chunk; `end_content` names the encoded end state, which auditors fetch, check and keep, so
    that the worker may vanish. `leaf_root` is the root over the `count` leaves; `leaves_content`
    names the list of end digests (32 bytes a chunk) they are made from. `trap` is 0, or 1 + the
    step at which the program left the exact range: the segment then ends with the last whole
    chunk before it. `metrics` is the evaluation of the final state, in the segment that ends the
    job if it has test rows; None also if the evaluation itself leaves the exact range.
    """

    job: Hash
    segment: Uint
    attempt: Uint
    start: Hash
    end: Hash
    end_content: ContentId
    leaf_root: Hash
    leaves_content: ContentId
    count: Annotated[int, Meta(ge=0, le=MAX_SEGMENT_CHUNKS)]
    trap: Uint
    metrics: Metrics | None


def commit_id(commit: SegmentCommit) -> bytes:
    """Return the id by which attestations and claims name a commit."""
    return crypto.digest("mlchain/segment-commit", codec.encode(commit))


def chunk_leaf(
    chain_id: str, job: bytes, segment: int, attempt: int, worker: bytes, chunk: int, state: bytes
) -> bytes:
    """Return the leaf of `chunk` (counted from the start of the job) whose end state is `state`."""
    place = codec.encode((chain_id, job, segment, attempt, worker, chunk))
    return crypto.digest("mlchain/chunk", place, state)


def segment_root(
    chain_id: str,
    job: bytes,
    segment: int,
    attempt: int,
    worker: bytes,
    first: int,
    states: tuple[bytes, ...],
) -> bytes:
    """Return the root over the chunks `first`, `first + 1`, … that end in `states`."""
    return list_root(
        [
            chunk_leaf(chain_id, job, segment, attempt, worker, first + i, state)
            for i, state in enumerate(states)
        ]
    )
