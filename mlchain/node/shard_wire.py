"""What an executor and those who run its shards say to each other.

    message     length of the record(8, little-endian) record, zeros up to a multiple of 8, numbers

One request is under way at a time, and each has one answer. Numbers stand behind the record as
they are in memory, little-endian, so that nobody copies them to find them; how many there are
follows from the program. A vector of an exchange is one `Offer` up and one `Resume` down.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Hash, Record, Uint
from mlchain.errors import CodecError
from mlchain.ml_runtime.split import Split
from mlchain.ml_runtime.tensor import Array, Type, storage
from mlchain.node.compute_wire import Failed

MAX_RECORD_BYTES = 2 << 20
LENGTH = struct.Struct("<Q")
Buffer = bytes | bytearray | memoryview


class Hold(Record, frozen=True, tag=True):
    """Keep a dataset, whose encoded bytes follow; only the latest is kept."""

    identity: Hash


class Prepare(Record, frozen=True, tag=True):
    """Split a program and be one of its shards. The last few are kept.

    `registry` is the digest of the sender's tables: another version would compute other bits.
    """

    identity: Hash
    registry: Hash
    program: Annotated[bytes, Meta(max_length=1 << 20)]
    shards: Uint
    index: Uint


class Begin(Record, frozen=True, tag=True):
    """Run a prepared shard, whatever it was doing, up to its first exchange.

    The arrays it reads follow, in the order of `Split.inputs`. Where the first two of the program,
    x and y, are rows of a dataset that is held, the numbers of these rows stand in their place.
    """

    identity: Hash
    dataset: Annotated[bytes, Meta(max_length=32)]


class Resume(Record, frozen=True, tag=True):
    """Go on with what the exchange made of all offers: the vector that follows."""


Request = Hold | Prepare | Begin | Resume


class Ready(Record, frozen=True, tag=True):
    """Held, or prepared."""


class Missing(Record, frozen=True, tag=True):
    """The shard is not (or no longer) prepared, or the dataset not held: send them, begin again."""

    shard: bool
    dataset: bool


class Offer(Record, frozen=True, tag=True):
    """What the shard offers to the next exchange: the vector that follows."""


class Parts(Record, frozen=True, tag=True):
    """The shard is done; its parts of `Split.gathered` follow."""


Answer = Ready | Missing | Offer | Parts | Failed


def after_rows(plan: Split) -> tuple[int, ...]:
    """Return the inputs that travel at every step where x and y are rows of a dataset."""
    return tuple(r for r in plan.inputs if r > 1)


def join(record: Record, *numbers: Buffer) -> list[Buffer]:
    """Return the pieces of a message."""
    body = codec.encode(record)
    return [LENGTH.pack(len(body)) + body + bytes(-len(body) % 8), *numbers]


def part(kinds: Any, message: Buffer) -> tuple[Any, memoryview]:
    """Return the record of a message, one of `kinds` (Request or Answer), and its numbers.

    Raises:
        CodecError: it is none.
    """
    view = memoryview(message)
    (size,) = LENGTH.unpack(view[:8]) if len(view) >= 8 else (len(view),)
    start = 8 + size + -size % 8
    if size > MAX_RECORD_BYTES or start > len(view) or any(view[8 + size : start]):
        raise CodecError("message: cut off, or its record is too large")
    return codec.decode(kinds, bytes(view[8 : 8 + size]), MAX_RECORD_BYTES), view[start:]


def view_of(array: Array) -> memoryview:
    """Return the elements of an array as bytes, without copying what is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def read(kinds: Sequence[Type], numbers: memoryview) -> list[Array]:
    """Return the tensors of these types that stand one after another in `numbers`.

    Raises:
        CodecError: there are more or fewer bytes.
    """
    if len(numbers) != sum(kind.bytes for kind in kinds):
        raise CodecError(f"{len(numbers)} bytes, not {sum(kind.bytes for kind in kinds)}")
    arrays, at = [], 0
    for kind in kinds:
        array = np.frombuffer(numbers, storage(kind), kind.elements, at)
        arrays.append(array.reshape(kind.shape))
        at += kind.bytes
    return arrays


def read_vector(numbers: memoryview) -> Array:
    """Return the vector that all of `numbers` is. Raises CodecError: a broken number."""
    if len(numbers) % 8:
        raise CodecError(f"{len(numbers)} bytes are no numbers")
    return np.frombuffer(numbers, "<f8")
