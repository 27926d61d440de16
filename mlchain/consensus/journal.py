"""Entries of the write-ahead log: what a validator must remember of a height it has not decided.

Own signatures are written together with the engine's state, in one entry: neither can survive
without the other. Received messages are written as they come. They reach the disk at the latest
with the next own signature, so **a lock is never on disk without its polka**. Otherwise a crash
of several validators could lose for ever the votes that justify a lock, and with them progress.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain import codec
from mlchain.codec import Record, Uint
from mlchain.consensus.actions import Snapshot
from mlchain.consensus.messages import (
    MAX_MESSAGE_BYTES,
    BlockProposal,
    decode_message,
    encode_message,
)
from mlchain.errors import CodecError, StoreCorrupted
from mlchain.ledger.commit import Vote

MAX_ENTRY_BYTES = MAX_MESSAGE_BYTES + 1024

_Message = Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]


class Received(Record, frozen=True):
    """An authenticated message of somebody else."""

    height: Uint
    message: _Message


class Signed(Record, frozen=True):
    """An own message, and the state in which it was signed."""

    height: Uint
    message: _Message
    snapshot: Snapshot


Entry = Received | Signed

_KINDS: dict[int, type[Entry]] = {1: Received, 2: Signed}


def received_entry(height: int, message: BlockProposal | Vote) -> bytes:
    """Return the entry for a message of somebody else."""
    return b"\x01" + codec.encode(Received(height, encode_message(message)))


def signed_entry(snapshot: Snapshot, message: BlockProposal | Vote) -> bytes:
    """Return the entry for an own message."""
    return b"\x02" + codec.encode(Signed(snapshot.height, encode_message(message), snapshot))


def decode_entry(data: bytes) -> tuple[Entry, BlockProposal | Vote]:
    """Return an entry and the message in it.

    Raises:
        StoreCorrupted: these bytes were not written by this module.
    """
    try:
        if data[:1] not in (b"\x01", b"\x02"):
            raise CodecError("unknown kind of entry")
        entry = codec.decode(_KINDS[data[0]], data[1:], MAX_ENTRY_BYTES)
        message = decode_message(entry.message)
        if not isinstance(message, BlockProposal | Vote):
            raise CodecError("an entry holds a proposal or a vote")
    except CodecError as error:
        raise StoreCorrupted(
            f"write-ahead log: {error.message}",
            "it was written by another version, or the disk is failing",
        ) from error
    return entry, message
