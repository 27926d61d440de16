"""The rows of the database of a chain: their keys, and the small records only the store writes.

Keys: `genesis`, `head`, `kept`, `installing`, and by a letter, heights as 8 big-endian bytes:

    h height -> header      b height -> body      c height -> certificate     r height -> receipts
    v height -> the validators of the blocks after it, where they differ from those before
    t transaction id -> height, index             s state key -> value
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from msgspec import Meta

from mlchain import codec
from mlchain.codec import MAX_RECORD_BYTES, Record, Uint
from mlchain.errors import CodecError, StoreCorrupted
from mlchain.ledger.block import MAX_BLOCK_TRANSACTIONS, Block, Receipt
from mlchain.ledger.validators import MAX_VALIDATORS, Validator, ValidatorSet

T = TypeVar("T")

HEAD, GENESIS = b"head", b"genesis"
KEPT = b"kept"
"""From which height on every block is here, as an integer; no such row: from 0 on."""
INSTALLING = b"installing"
"""A snapshot is being written over the state: until it is whole, this is no chain to open."""

HINT = "check the disk; mlchain node --repair saves what is whole and asks peers for the rest"

RECEIPTS: Any = Annotated[tuple[Receipt, ...], Meta(max_length=MAX_BLOCK_TRANSACTIONS)]
MAX_RECEIPTS_BYTES = 64 << 20
"""Bound of one block's stored receipts: 5,000 of them at their largest are 45 MB."""

Members = Annotated[tuple[Validator, ...], Meta(max_length=MAX_VALIDATORS)]
"""The validators of a set, in key order."""


class Place(Record, frozen=True):
    """Where a transaction stands."""

    height: Uint
    index: Uint


class Voting(Record, frozen=True):
    """Who votes on the blocks after a height."""

    validators: Members


def at(letter: bytes, height: int) -> bytes:
    """Return the key of a row that belongs to a height."""
    return letter + height.to_bytes(8, "big")


def read(kind: type[T], data: bytes, what: str, limit: int = MAX_RECORD_BYTES) -> T:
    """Decode what stood in a row.

    Raises:
        StoreCorrupted: it is not what was written there.
    """
    try:
        return codec.decode(kind, data, limit)
    except CodecError as error:
        raise StoreCorrupted(f"{what}: {error.message}", HINT) from error


def block_rows(block: Block, receipts: tuple[Receipt, ...]) -> dict[bytes, bytes]:
    """Return the rows of a block without its certificate."""
    height = block.header.height
    rows = {
        at(b"h", height): codec.encode(block.header),
        at(b"b", height): codec.encode(block.body),
        at(b"r", height): codec.encode(receipts),
    }
    for index, receipt in enumerate(receipts):  # which names its transaction
        rows[b"t" + receipt.transaction] = codec.encode(Place(height, index))
    return rows


def voting_row(height: int, validators: ValidatorSet) -> dict[bytes, bytes]:
    """Return the row that says who votes after `height`."""
    return {at(b"v", height): codec.encode(Voting(validators.validators))}
