"""What a node and its ML process say to each other: records in frames over a pair of pipes.

    frame     length(4, little-endian) canonical record

One request is under way at a time. Each is answered by one reply, `RunChunks` by one for each
chunk; `Trapped`, `Unknown` and `Failed` end an answer early.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any

from msgspec import Meta

from mlchain import codec, errors
from mlchain.codec import Hash, Record, Uint
from mlchain.errors import CodecError, MlchainError, Trap
from mlchain.ml_runtime import Metrics
from mlchain.ml_runtime.proof import ChunkClaim, Move

HEADER = struct.Struct("<I")
MAX_BLOB_BYTES = 1 << 30
"""Largest dataset or state that is handed over."""
MAX_MOVES = 8
"""Messages of one side in the search for a difference: two, for programs that can be dear."""
MAX_PARTIES = 256
MAX_FRAME_BYTES = MAX_BLOB_BYTES + (4 << 20)

Blob = Annotated[bytes, Meta(max_length=MAX_BLOB_BYTES)]
Moves = Annotated[tuple[Move, ...], Meta(max_length=MAX_MOVES)]


class Load(Record, frozen=True, tag=True):
    """Prepare a job. `identity` names it in later requests; the process keeps the last few."""

    identity: Hash
    task: Blob
    dataset: Blob
    seed: Hash


class InitialState(Record, frozen=True, tag=True):
    """Ask for the state before the first step."""

    identity: Hash


class RunChunks(Record, frozen=True, tag=True):
    """Train `count` chunks from chunk `first`, which starts at `state`."""

    identity: Hash
    first: Uint
    count: Uint
    state: Blob


class Replay(Record, frozen=True, tag=True):
    """Train one chunk for its digests only; `key` is 32 bytes, or empty for no custody digest."""

    identity: Hash
    index: Uint
    state: Blob
    key: Annotated[bytes, Meta(max_length=32)]


class Evaluate(Record, frozen=True, tag=True):
    """Measure a state on the job's test rows."""

    identity: Hash
    state: Blob


class MakeModel(Record, frozen=True, tag=True):
    """Make the model file of a state."""

    identity: Hash
    state: Blob


class MergeStates(Record, frozen=True, tag=True):
    """Make the model file of what the states of parties make, who trained on so many rows each."""

    identity: Hash
    states: Annotated[tuple[Blob, ...], Meta(min_length=1, max_length=MAX_PARTIES)]
    rows: Annotated[tuple[Uint, ...], Meta(min_length=1, max_length=MAX_PARTIES)]


class AnswerClaim(Record, frozen=True, tag=True):
    """Trace a chunk, and answer an accuser, who claims `theirs`, after each of its `moves`."""

    identity: Hash
    index: Uint
    state: Blob
    theirs: ChunkClaim | None
    moves: Moves


class MakeProof(Record, frozen=True, tag=True):
    """Trace a chunk, and find where `theirs` of `party` differs, given its answers so far."""

    identity: Hash
    index: Uint
    state: Blob
    theirs: ChunkClaim
    party: Hash
    moves: Moves


class LoadModel(Record, frozen=True, tag=True):
    """Examine a model file and make it ready; the process keeps the last few."""

    identity: Hash
    model: Blob


class AskModel(Record, frozen=True, tag=True):
    """Ask a model about `rows` rows in a text; or measure it on the last rows of a dataset."""

    identity: Hash
    data: Blob
    rows: Uint
    is_evaluation: bool


Training = InitialState | RunChunks | Replay | Evaluate | MakeModel | MergeStates
Question = Training | AnswerClaim | MakeProof
"""Requests about a job that was prepared."""

Request = Load | Question | LoadModel | AskModel


class Loaded(Record, frozen=True, tag=True):
    """The job is prepared; it has this many chunks."""

    chunks: Uint


class Unknown(Record, frozen=True, tag=True):
    """The job is not (or no longer) prepared: load it and ask again."""


class StateIs(Record, frozen=True, tag=True):
    """A state: its canonical bytes and their digest."""

    state: Blob
    digest: Hash


class Chunk(Record, frozen=True, tag=True):
    """The state after chunk `index`. `loss_micros`, in millionths, is to look at: nobody agrees."""

    index: Uint
    state: Blob
    digest: Hash
    loss_micros: int


class Digest(Record, frozen=True, tag=True):
    """The digest of the state after a replayed chunk, and its custody digest if asked for."""

    digest: Hash
    custody: Annotated[bytes, Meta(max_length=32)]


class Trapped(Record, frozen=True, tag=True):
    """A step left the exact range, on every machine alike; this is the job's result."""

    step: Uint


class Measured(Record, frozen=True, tag=True):
    """What a state is worth."""

    metrics: Metrics


class ModelIs(Record, frozen=True, tag=True):
    """An encoded model file."""

    model: Blob


class Searched(Record, frozen=True, tag=True):
    """Our own claim; the next message, if one is due; the encoded fraud proof, once it is made."""

    claim: ChunkClaim
    move: Move | None
    proof: Blob


class ModelLoaded(Record, frozen=True, tag=True):
    """What a model file is (`serving.Facts`)."""

    features: Uint
    outputs: Uint
    answer: Annotated[str, Meta(max_length=16)]
    gas: Uint


class Answered(Record, frozen=True, tag=True):
    """The outcome (`serving.Outcome`), and the bytes of the answer."""

    outcome: Uint
    answer: Blob


class Failed(Record, frozen=True, tag=True):
    """The request raised. `code` names a class of `mlchain.errors`, empty for a bug of ours.

    `step` is that of a Trap, -1 otherwise.
    """

    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=4096)]
    hint: Annotated[str, Meta(max_length=4096)]
    step: int


Reply = (
    Loaded | Unknown | StateIs | Chunk | Digest | Trapped | Measured | ModelIs | Searched
    | ModelLoaded | Answered | Failed
)  # fmt: skip


def pack(record: Record) -> tuple[bytes, bytes]:
    """Return the header and the body of a frame."""
    body = codec.encode(record)
    if len(body) > MAX_FRAME_BYTES:
        raise CodecError(f"{type(record).__name__}: {len(body)} bytes do not fit a frame")
    return HEADER.pack(len(body)), body


def body_size(header: bytes) -> int:
    """Return how many bytes follow a header.

    Raises:
        CodecError: more than a frame may have.
    """
    (size,) = HEADER.unpack(header)
    if size > MAX_FRAME_BYTES:
        raise CodecError(f"frame: {size} bytes, at most {MAX_FRAME_BYTES} allowed")
    return int(size)


def unpack(kinds: Any, body: bytes) -> Any:
    """Return the record in a body, one of `kinds` (Request or Reply).

    Raises:
        CodecError: it is none.
    """
    return codec.decode(kinds, body, MAX_FRAME_BYTES)


def describe(error: MlchainError) -> Failed:
    """Return the reply that carries an expected error, by the nearest class all of us know."""
    known = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    step = error.step if isinstance(error, Trap) else -1
    return Failed(next(known), error.message[:4096], error.hint[:4096], step)


def revive(failed: Failed) -> MlchainError | None:
    """Return the error that a reply carries, None if it was not an expected one."""
    kind = getattr(errors, failed.code, None)
    if not (isinstance(kind, type) and issubclass(kind, MlchainError)):
        return None
    if issubclass(kind, Trap):
        return kind(failed.message, failed.hint, failed.step)
    return kind(failed.message, failed.hint)
