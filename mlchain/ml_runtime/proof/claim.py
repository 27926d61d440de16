"""What is traced, and what a party says about it and signs.

A *traced job* is everything that decides a training: task, rows, seed. A *chunk claim* says where
one chunk begins, where it ends, and the root of its whole trace: 32 bytes that bind the party to
every digest of every op. `claim_id` is what a commitment would carry; until one does, a worker
signs the claim when it is asked for it.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from mlchain import codec, crypto
from mlchain.codec import Hash, PublicKey, Record, Uint
from mlchain.crypto import SecretKey
from mlchain.ml_runtime import tree
from mlchain.ml_runtime.data import MAX_ROWS, Dataset
from mlchain.ml_runtime.tensor import Array
from mlchain.ml_runtime.train import Task

ROWS = tree.Tags("mlchain/row-node", "mlchain/rows")
"""The tree over the rows of a dataset."""

Digest = Annotated[bytes, Meta(max_length=32)]
"""32 bytes, or none where a chunk trapped."""
MaybeSignature = Annotated[bytes, Meta(max_length=64)]


class TracedJob(Record, frozen=True):
    """A training: `rows` is the root over all `count` rows of the dataset."""

    task: Task
    rows: Hash
    count: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    seed: Hash


class ChunkClaim(Record, frozen=True):
    """What one party says a chunk computes.

    `start`, `end`: state digests, `end` empty if the chunk traps. `trap`: 0, or 1 + the step that
    traps. `trace`: root over the `steps` roots of the steps. `job`: `job_id`.
    """

    job: Hash
    chunk: Uint
    start: Hash
    end: Digest
    trap: Uint
    steps: Uint
    trace: Hash


class SignedClaim(Record, frozen=True):
    """A claim and whose it is. The signature is empty where a commitment stands for it."""

    claim: ChunkClaim
    party: PublicKey
    signature: MaybeSignature


def job_id(job: TracedJob) -> bytes:
    """Return the id of a traced job."""
    return crypto.digest("mlchain/traced-job", codec.encode(job))


def claim_id(claim: ChunkClaim) -> bytes:
    """Return the id of a claim: what is signed, and what a leaf of a commitment would bind."""
    return crypto.digest("mlchain/chunk-claim", codec.encode(claim))


def sign_claim(claim: ChunkClaim, key: SecretKey) -> SignedClaim:
    """Return the claim signed by its party."""
    return SignedClaim(claim, key.public, key.sign(claim_id(claim)))


def traced_job(task: Task, dataset: Dataset, seed: bytes) -> TracedJob:
    """Return what `task` on `dataset` with the order seed is, for claims about it."""
    root = tree.root(ROWS, row_leaves(dataset.x, dataset.y))
    return TracedJob(task, root, dataset.rows, seed)


def row_leaves(x: Array, y: Array) -> list[bytes]:
    """Return the leaves of rows: of mantissas and targets as a dataset stores them."""
    targets = y.reshape(len(y), -1)
    return [
        crypto.digest("mlchain/row", a.tobytes(), b.tobytes())
        for a, b in zip(np.ascontiguousarray(x), np.ascontiguousarray(targets), strict=True)
    ]
