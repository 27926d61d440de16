"""Blocks. A header holds the roots of the block's *own* execution: a vote attests the computation.

The block id is the hash of the header; the header commits to everything else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from msgspec import Meta

from mlchain import codec, crypto
from mlchain.codec import Hash, Name, PublicKey, Record, Uint
from mlchain.ledger.commit import Commit
from mlchain.ledger.merkle import list_root
from mlchain.ledger.transaction import MAX_TRANSACTION_BYTES

PROTOCOL_VERSION = 1
FIRST_VERSION = 1
"""Of block 0 of every chain: a genesis file names none."""
MAX_BLOCK_BYTES = 4 << 20
MAX_BLOCK_TRANSACTIONS = 5_000
MAX_BLOCK_EVIDENCE = 16
MAX_EVIDENCE_BYTES = 64 << 10
MAX_FINALISED = 64


class SegmentRef(Record, frozen=True):
    """Names one segment of one job."""

    job: Hash
    index: Uint


class Header(Record, frozen=True):
    """Head of a block. `time_ms` is Unix time in milliseconds, later than the parent's."""

    protocol_version: Uint
    chain_id: Name
    height: Uint
    time_ms: Uint
    parent: Hash
    proposer: PublicKey
    validators_hash: Hash
    next_validators_hash: Hash
    body_root: Hash
    state_root: Hash
    receipts_root: Hash
    gas_used: Uint


class Body(Record, frozen=True):
    """Everything a block carries.

    `last_commit` certifies the parent (None for the first block after genesis); `evidence` holds
    encoded proofs of misbehaviour; `finalise` the segments this block declares HARD
    (protocol.md section 8); `transactions` are encoded transactions, executed in order.
    """

    last_commit: Commit | None
    evidence: Annotated[
        tuple[Annotated[bytes, Meta(max_length=MAX_EVIDENCE_BYTES)], ...],
        Meta(max_length=MAX_BLOCK_EVIDENCE),
    ]
    finalise: Annotated[tuple[SegmentRef, ...], Meta(max_length=MAX_FINALISED)]
    transactions: Annotated[
        tuple[Annotated[bytes, Meta(max_length=MAX_TRANSACTION_BYTES)], ...],
        Meta(max_length=MAX_BLOCK_TRANSACTIONS),
    ]


class Block(Record, frozen=True):
    """A header and the body it commits to."""

    header: Header
    body: Body


class Receipt(Record, frozen=True):
    """Outcome of one transaction. `code` is "ok" or an error's name; `events` are short texts."""

    transaction: Hash
    code: Name
    gas_used: Uint
    message: Annotated[str, Meta(max_length=512)]
    events: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=32)]


def header_id(header: Header) -> bytes:
    """Return the block id."""
    return crypto.digest("mlchain/header", codec.encode(header))


@lru_cache(maxsize=4)  # asked of one block by whoever decodes, checks and stores it
def body_root(body: Body) -> bytes:
    """Return the digest of a body, as it stands in the header."""
    return crypto.digest("mlchain/body", codec.encode(body))


@lru_cache(maxsize=4)
def receipts_root(receipts: tuple[Receipt, ...]) -> bytes:
    """Return the root over a block's receipts, as it stands in the header."""
    return list_root([codec.encode(receipt) for receipt in receipts])


@lru_cache(maxsize=4)
def decode_block(data: bytes) -> Block:
    """Decode a block; its signatures and roots are not checked here.

    Raises:
        CodecError: malformed, oversized or not canonical.
    """
    return codec.decode(Block, data, MAX_BLOCK_BYTES)
