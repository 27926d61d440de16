"""The state of the chain while a block executes: a base that stays, and changes laid over it.

`State` is bytes by key; `Table` gives records by typed keys and is what transactions use. Nothing
here reaches the base: a block that is refused is forgotten by dropping its `State`, and two
candidate blocks run on two states over one base.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Any, Generic, TypeVar, cast

from mlchain import codec
from mlchain.codec import Record
from mlchain.errors import CodecError, StoreCorrupted
from mlchain.ledger.kv import Items, Reader
from mlchain.ledger.merkle import SparseTree

T = TypeVar("T", bound=Record)

MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1 << 20

_UNCHANGED: Any = object()
"""Stands for a key that was not changed: None says that it was removed."""


class State:
    """Changes over `base`, whose tree of hashes is `tree`.

    A mark of `checkpoint` may be rolled back to until an earlier one is; marks nest and cost
    nothing, a rollback costs what it undoes.
    """

    def __init__(self, base: Reader, tree: SparseTree) -> None:
        self.base_tree = tree
        self._base = base
        self._changed: dict[bytes, bytes | Record | None] = {}
        self._keys: list[bytes] = []  # of _changed, sorted
        self._journal: list[tuple[bytes, Any]] = []  # key, and what it was in _changed
        self._tree: SparseTree | None = tree  # None: changes came after the last update

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if it has none."""
        value = self.find(key)
        return codec.encode(value) if isinstance(value, Record) else value

    def find(self, key: bytes) -> bytes | Record | None:
        """Return the value of `key` as it stands here: a record that was put, or else bytes."""
        value = self._changed.get(key, _UNCHANGED)
        return self._base.get(key) if value is _UNCHANGED else value

    def put(self, key: bytes, value: bytes | Record) -> None:
        """Set the value of `key`. A record is encoded when the changes are asked for: most are
        written over before that.
        """
        assert len(key) <= MAX_KEY_BYTES, "records bound their keys"
        self._set(key, value)

    def delete(self, key: bytes) -> None:
        """Remove `key`, there or not."""
        self._set(key, None)

    def items(self, prefix: bytes = b"") -> Items:
        """Yield the pairs whose key starts with `prefix`, in key order, as of this call."""
        changed = [(key, self._encoded(key)) for key in self.changed_keys(prefix)]
        return _overlay(self._base.items(prefix), changed)

    def changed_keys(self, prefix: bytes) -> Iterator[bytes]:
        """Yield the keys written since the base, to any value, that start with `prefix`."""
        first = bisect_left(self._keys, prefix)
        return takewhile(lambda key: key.startswith(prefix), islice(self._keys, first, None))

    def checkpoint(self) -> int:
        """Return a mark of this moment for `rollback`."""
        return len(self._journal)

    def rollback(self, mark: int) -> None:
        """Undo every change made since `mark`."""
        assert 0 <= mark <= len(self._journal), "a mark of this state, not yet rolled past"
        while len(self._journal) > mark:
            key, old = self._journal.pop()
            if old is _UNCHANGED:
                del self._changed[key]
                del self._keys[bisect_left(self._keys, key)]
            else:
                self._changed[key] = old
            self._tree = None

    def changes(self) -> dict[bytes, bytes | None]:
        """Return what differs from the base in key order; None stands for a removed key."""
        return {key: self._encoded(key) for key in self._keys}

    def tree(self) -> SparseTree:
        """Return the tree with the changes made; kept until the next change."""
        if self._tree is None:
            self._tree = self.base_tree.update(self.changes())
        return self._tree

    def root(self) -> bytes:
        """Return the state root, as it stands in a header."""
        return self.tree().root

    def _encoded(self, key: bytes) -> bytes | None:
        """Return what a changed key has now, and keep it in this form."""
        value = self._changed[key]
        if isinstance(value, Record):
            value = self._changed[key] = codec.encode(value)
        assert value is None or len(value) <= MAX_VALUE_BYTES, "records bound their size"
        return value

    def _set(self, key: bytes, value: bytes | Record | None) -> None:
        old = self._changed.get(key, _UNCHANGED)
        self._journal.append((key, old))
        if old is _UNCHANGED:
            insort(self._keys, key)
        self._changed[key] = value
        self._tree = None


class Mark(Record, frozen=True):
    """A row of an index: all that it says is its key."""


class Table(Generic[T]):
    """Records of one type in the state, under `prefix` and the parts of their key.

    `Table(b"segment/", Segment, bytes, int)` is keyed by 32 bytes and an integer below 2^64
    (written with 8 big-endian bytes, so the order of keys is the order of numbers). The last part
    may be bytes of any length. A prefix is a word and one slash, so no table reaches into another.
    """

    def __init__(self, prefix: bytes, record: type[T], *parts: type) -> None:
        assert prefix.count(b"/") == 1 and prefix.endswith(b"/"), "a word and a slash"
        assert all(part in (bytes, int) for part in parts)
        self.prefix = prefix
        self.record = record
        self.parts = parts
        self._is_plain = parts == (bytes,)

    def key(self, *key: bytes | int) -> bytes:
        """Return the state key of a record, for proofs."""
        if self._is_plain:  # accounts: most of all reads and writes
            (only,) = key
            assert isinstance(only, bytes), f"{self.prefix!r} is keyed by bytes"
            return self.prefix + only
        assert len(key) == len(self.parts), f"{self.prefix!r} has {len(self.parts)} key parts"
        return self._encode(key)

    def get(self, state: State, *key: bytes | int) -> T | None:
        """Return the record under `key`, None if there is none."""
        value = state.find(self.key(*key))
        return self._decode(value) if isinstance(value, bytes) else cast("T | None", value)

    def put(self, state: State, value: T, *key: bytes | int) -> None:
        """Set the record under `key`."""
        state.put(self.key(*key), value)

    def delete(self, state: State, *key: bytes | int) -> None:
        """Remove the record under `key`, there or not."""
        state.delete(self.key(*key))

    def items(self, state: State, *leading: bytes | int) -> Iterator[tuple[tuple[Any, ...], T]]:
        """Yield (key parts, record) in key order, of the keys that begin with `leading`."""
        for key, data in state.items(self._encode(leading)):
            yield self._split(key), self._decode(data)

    def changed(self, state: State) -> Iterator[tuple[Any, ...]]:
        """Yield the key parts of the records written or removed since the base of `state`."""
        return map(self._split, state.changed_keys(self.prefix))

    def _encode(self, key: tuple[bytes | int, ...]) -> bytes:
        chunks = [self.prefix]
        for index, (part, value) in enumerate(zip(self.parts, key, strict=False)):
            if isinstance(value, bytes):
                last = index == len(self.parts) - 1
                assert part is bytes and (last or len(value) == 32), f"part {index} of {key}"
                chunks.append(value)
            else:
                assert part is int, f"part {index} of {key}"
                chunks.append(value.to_bytes(8, "big"))
        return b"".join(chunks)

    def _split(self, key: bytes) -> tuple[bytes | int, ...]:
        place = len(self.prefix)
        found: list[bytes | int] = []
        for index, part in enumerate(self.parts):
            last = index == len(self.parts) - 1
            size = 8 if part is int else len(key) - place if last else 32
            chunk = key[place : place + size]
            found.append(int.from_bytes(chunk, "big") if part is int else chunk)
            place += size
        return tuple(found)

    def _decode(self, data: bytes) -> T:
        try:
            return codec.decode(self.record, data)
        except CodecError as error:
            raise StoreCorrupted(f"state under {self.prefix!r}: {error.message}") from error


def _overlay(base: Items, changed: list[tuple[bytes, bytes | None]]) -> Items:
    """Yield `base` with `changed`, both in key order, laid over it."""
    place = 0
    for key, value in base:
        while place < len(changed) and changed[place][0] < key:
            name, new = changed[place]
            if new is not None:
                yield name, new
            place += 1
        if place < len(changed) and changed[place][0] == key:
            new = changed[place][1]
            if new is not None:
                yield key, new
            place += 1
        else:
            yield key, value
    for name, new in changed[place:]:
        if new is not None:
            yield name, new
