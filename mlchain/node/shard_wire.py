"""What an executor and those who run its shards say to each other; frames as in `compute_wire`.

One request is under way at a time, and each has one answer. Numbers are little-endian; a vector
of an exchange is one `Offer` up and one `Resume` down.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain.codec import Hash, Record, Uint
from mlchain.ml_runtime.split import Split
from mlchain.node.compute_wire import Blob, Failed

MAX_INPUTS = 4096
Blobs = Annotated[tuple[Blob, ...], Meta(max_length=MAX_INPUTS)]


class Hold(Record, frozen=True, tag=True):
    """Keep a dataset; only the latest is kept."""

    identity: Hash
    dataset: Blob


class Prepare(Record, frozen=True, tag=True):
    """Split a program and be one of its shards. The last few are kept.

    `registry` is the digest of the sender's tables: another version would compute other bits.
    """

    identity: Hash
    registry: Hash
    program: Blob
    shards: Uint
    index: Uint


class Begin(Record, frozen=True, tag=True):
    """Run a prepared shard, whatever it was doing, up to its first exchange.

    `inputs` are the arrays it reads, in the order of `Split.inputs`. Where the first two of the
    program, x and y, are rows of the dataset, they are left out, and `rows` holds their numbers.
    """

    identity: Hash
    dataset: Annotated[bytes, Meta(max_length=32)]
    rows: Blob
    inputs: Blobs


class Resume(Record, frozen=True, tag=True):
    """Go on with what the exchange made of all offers."""

    numbers: Blob


Request = Hold | Prepare | Begin | Resume


class Ready(Record, frozen=True, tag=True):
    """Held, or prepared."""


class Missing(Record, frozen=True, tag=True):
    """The shard is not (or no longer) prepared, or the dataset not held: send them, begin again."""

    shard: bool
    dataset: bool


class Offer(Record, frozen=True, tag=True):
    """What the shard offers to the next exchange."""

    numbers: Blob


class Parts(Record, frozen=True, tag=True):
    """The shard is done; its parts of `Split.gathered`."""

    parts: Blobs


Answer = Ready | Missing | Offer | Parts | Failed


def after_rows(plan: Split) -> tuple[int, ...]:
    """Return the inputs that travel at every step where x and y are rows of a dataset."""
    return tuple(r for r in plan.inputs if r > 1)
