"""The state after one block in 256 chunks, to hand over; and a store made of them.

A chunk holds all keys whose path begins with one byte, and the proof of that under the header's
state root (`merkle.verify_chunk`). So each is judged when it comes, and a wrong one names whoever
gave it. Two nodes cut one state into the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from mlchain import codec
from mlchain.codec import Record
from mlchain.errors import CodecError, VerificationFailed
from mlchain.ledger.block import Header
from mlchain.ledger.commit import Commit
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.kv import KeyValue, Reader
from mlchain.ledger.merkle import (
    CHUNKS,
    SparseTree,
    StateProof,
    chunk_of,
    verify_chunk,
)
from mlchain.ledger.rows import HEAD, INSTALLING, KEPT, at, voting_row
from mlchain.ledger.state import MAX_KEY_BYTES, MAX_VALUE_BYTES, State
from mlchain.ledger.store import Store
from mlchain.ledger.validators import ValidatorSet

MAX_CHUNK_BYTES = 32 << 20
"""Of one encoded chunk: a state of up to 8 GiB can be handed over."""
MAX_CHUNK_ROWS = 1 << 20
BATCH = 10_000
"""Rows removed in one write."""


class StateRow(Record, frozen=True):
    """One key of the state."""

    key: Annotated[bytes, Meta(max_length=MAX_KEY_BYTES)]
    value: Annotated[bytes, Meta(max_length=MAX_VALUE_BYTES)]


class Chunk(Record, frozen=True):
    """All keys whose path begins with the byte `index`, in key order."""

    index: Annotated[int, Meta(ge=0, le=CHUNKS - 1)]
    rows: Annotated[tuple[StateRow, ...], Meta(max_length=MAX_CHUNK_ROWS)]
    proof: StateProof


def make_chunks(
    values: Reader, tree: SparseTree, pause: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """Yield the 256 encoded chunks of a state that does not change meanwhile.

    `pause` is called often: a thread that does this beside a node lets the node go first.
    """
    keys: list[list[bytes]] = [[] for _ in range(CHUNKS)]
    for number, (key, _) in enumerate(values.items()):
        keys[chunk_of(key)].append(key)
        if number % 500 == 0:
            pause()
    for index, of in enumerate(keys):
        rows = []
        for number, key in enumerate(of):
            value = values.get(key)
            assert value is not None, "the state does not change"
            rows.append(StateRow(key, value))
            if number % 500 == 0:
                pause()
        yield codec.encode(Chunk(index, tuple(rows), tree.prove_chunk(index)))


def check_chunk(data: bytes, index: int, state_root: bytes) -> dict[bytes, bytes]:
    """Return the values in an encoded chunk, which is the one at `index` under `state_root`.

    Raises:
        CodecError: malformed or too large.
        VerificationFailed: it is not that chunk.
    """
    chunk = codec.decode(Chunk, data, MAX_CHUNK_BYTES)
    keys = [row.key for row in chunk.rows]
    if chunk.index != index or any(a >= b for a, b in pairwise(keys)):
        raise VerificationFailed(f"chunk {index}: another chunk, or its keys are not in order")
    values = {row.key: row.value for row in chunk.rows}
    verify_chunk(state_root, index, values, chunk.proof)
    return values


def install(
    kv: KeyValue,
    genesis: Genesis,
    initial: Callable[[State], None],
    voters: ValidatorSet,
    way: Iterable[tuple[Header, Commit, ValidatorSet]],
    chunks: Iterable[Mapping[bytes, bytes]],
) -> None:
    """Make `kv` a store whose head is the last header of `way` and whose state are the `chunks`.

    The caller has verified both. `way` are certified headers with who votes after each: those at
    which the set changed, and the last. `voters` voted on the first of them. Where they are not
    those of the genesis, the store knows nothing of who voted before, and says so. Older blocks
    are removed. It is done in many writes, and a row says so until the last: a store in the middle
    of it does not open, and installing again from the beginning ends as if nothing had happened.
    """
    marks = list(way)
    first, height = marks[0][0].height, marks[-1][0].height
    if kv.get(HEAD) is None:
        Store.create_or_open(kv, genesis, initial)
    kv.write({INSTALLING: codec.encode(height)})
    for letter in (b"s", b"b", b"r", b"t", b"h", b"c", b"v"):
        _remove(kv, letter)
    for values in chunks:
        kv.write({b"s" + key: value for key, value in values.items()})
    rows = {HEAD: codec.encode(height), KEPT: codec.encode(height + 1)}
    is_known = voters == genesis.validators()
    rows.update(voting_row(0 if is_known else first - 1, voters))
    for header, commit, voting in marks:
        rows[at(b"h", header.height)] = codec.encode(header)
        rows[at(b"c", header.height)] = codec.encode(commit)
        if voting.hash != header.validators_hash:
            rows.update(voting_row(header.height, voting))
    kv.write(rows, [INSTALLING])


def _remove(kv: KeyValue, letter: bytes) -> None:
    """Remove all rows of a letter but the parts of block 0."""
    kept = {at(letter, 0)} if letter in (b"h", b"b", b"r") else set()
    gone: list[bytes] = []
    for key, _ in kv.items(letter):
        if key in (HEAD,) or key in kept:
            continue
        gone.append(key)
        if len(gone) >= BATCH:
            kv.write({}, gone)
            gone = []
    kv.write({}, gone)


def installing_height(kv: KeyValue) -> int | None:
    """Return the height of a snapshot whose installation was interrupted, None if none was."""
    data = kv.get(INSTALLING)
    try:
        return None if data is None else codec.decode(int, data)
    except CodecError:
        return 0
