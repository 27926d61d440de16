"""Entries of the write-ahead log: what a validator must remember of a height it has not decided.

Before an own message is signed, an *intent* is written and synced: the engine's state and what is
about to be signed, in one entry, for neither may survive without the other. Messages, received
and own, are written as they come. They reach the disk at the latest with the next intent, so
**a lock is never on disk without its polka**. Otherwise a crash of several validators could lose
for ever the votes that justify a lock, and with them progress.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from mlchain.consensus.safety import SignRequest
from mlchain.errors import CodecError, StoreCorrupted
from mlchain.ledger.block import MAX_BLOCK_BYTES
from mlchain.ledger.commit import Vote

MAX_ENTRY_BYTES = MAX_MESSAGE_BYTES + 1024


class Noted(Record, frozen=True):
    """An authenticated message, ours or somebody else's."""

    height: Uint
    message: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]


class Intent(Record, frozen=True):
    """What is about to be signed, and the state that led to it.

    `block` is the block of a proposal; empty for a vote.
    """

    height: Uint
    snapshot: Snapshot
    request: SignRequest
    block: Annotated[bytes, Meta(max_length=MAX_BLOCK_BYTES)]


Entry = Intent | BlockProposal | Vote
"""What an entry says: an intent, or the message noted."""

_KINDS: dict[int, type[Noted | Intent]] = {1: Noted, 2: Intent}


def noted_entry(height: int, message: BlockProposal | Vote) -> bytes:
    """Return the entry for a message."""
    return b"\x01" + codec.encode(Noted(height, encode_message(message)))


def intent_entry(snapshot: Snapshot, request: SignRequest, block: bytes) -> bytes:
    """Return the entry that is synced before `request` is signed."""
    return b"\x02" + codec.encode(Intent(snapshot.height, snapshot, request, block))


def decode_entry(data: bytes) -> Entry:
    """Return an intent, or the message noted.

    Raises:
        StoreCorrupted: these bytes were not written by this module.
    """
    try:
        if data[:1] not in (b"\x01", b"\x02"):
            raise CodecError("unknown kind of entry")
        entry = codec.decode(_KINDS[data[0]], data[1:], MAX_ENTRY_BYTES)
        if isinstance(entry, Intent):
            return entry
        message = decode_message(entry.message)
        if not isinstance(message, BlockProposal | Vote):
            raise CodecError("only proposals and votes are noted")
        return message
    except CodecError as error:
        raise StoreCorrupted(
            f"write-ahead log: {error.message}",
            "it was written by another version, or the disk is failing",
        ) from error


def by_height(records: Iterable[bytes]) -> dict[int, list[Entry]]:
    """Return the entries of a log in their order, by the height they are of.

    Raises:
        StoreCorrupted: these bytes were not written by this module.
    """
    found: dict[int, list[Entry]] = {}
    for record in records:
        entry = decode_entry(record)
        head = entry.proposal if isinstance(entry, BlockProposal) else entry
        found.setdefault(head.height, []).append(entry)
    return found
