"""Where bytes are kept: one small protocol, in memory and on disk. The only file that knows a disk.

Both kinds give atomic writes and reads of one moment (`snapshot`), so whoever is above never sees
half a block. `LevelKeyValue` is durable: a write that returned survives a power cut, as far as the
disk keeps its word.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

import plyvel  # type: ignore[import-untyped]

from mlchain.errors import ConfigError, StoreCorrupted
from mlchain.ledger.torn import is_only_torn

Items = Iterator[tuple[bytes, bytes]]


class Reader(Protocol):
    """Bytes by key, to read. Safe to use from several threads."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if it has none."""
        ...

    def items(self, prefix: bytes = b"") -> Items:
        """Yield the pairs whose key starts with `prefix`, in key order, as of this call."""
        ...


class KeyValue(Reader, Protocol):
    """Bytes by key, to read and write."""

    failure: StoreCorrupted | None
    """Why a write failed, if one did: no later one will be taken."""

    def snapshot(self) -> Reader:
        """Return a view of this moment, which later writes do not change."""
        ...

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove `deletes`, then set `puts`: all or nothing, and on disk when this returns.

        Raises:
            StoreCorrupted: the disk did not take it.
        """
        ...

    def compact(self) -> None:
        """Give back the space of what was removed; slow, and safe to call from a thread."""
        ...

    def close(self) -> None:
        """Release the files; closing twice is allowed."""
        ...


class Namespace:
    """The part of a reader whose keys start with `prefix`, seen without it."""

    def __init__(self, reader: Reader, prefix: bytes) -> None:
        self._reader = reader
        self._prefix = prefix

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if it has none."""
        return self._reader.get(self._prefix + key)

    def items(self, prefix: bytes = b"") -> Items:
        """Yield the pairs whose key starts with `prefix`, in key order."""
        cut = len(self._prefix)
        return ((key[cut:], value) for key, value in self._reader.items(self._prefix + prefix))


RECENT_KEYS = 8_192
RECENT_BYTES = 1_024
"""Largest value that is remembered."""


class Recent(Namespace):
    """A namespace that never changes, and remembers what was read of it or known before.

    `after` gives the namespace of the next moment what stayed true in this one, so that accounts
    in use are read from the disk once.
    """

    def __init__(
        self, reader: Reader, prefix: bytes, known: Mapping[bytes, bytes | None] | None = None
    ) -> None:
        super().__init__(reader, prefix)
        self._known = dict(known or {})

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if it has none."""
        try:
            return self._known[key]
        except KeyError:
            value = super().get(key)
            if len(self._known) < RECENT_KEYS and len(value or b"") <= RECENT_BYTES:
                self._known[key] = value
            return value

    def after(self, reader: Reader, changes: Mapping[bytes, bytes | None]) -> Recent:
        """Return the namespace of `reader`, in which exactly `changes` differ from this one."""
        known = {} if len(self._known) >= RECENT_KEYS else self._known.copy()
        for key, value in changes.items():
            if len(value or b"") <= RECENT_BYTES and (key in known or len(known) < RECENT_KEYS):
                known[key] = value
            else:
                known.pop(key, None)
        return Recent(reader, self._prefix, known)


class _MemoryReader:
    def __init__(self, values: dict[bytes, bytes], keys: list[bytes]) -> None:
        self._values = values
        self._keys = keys  # sorted

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if it has none."""
        return self._values.get(key)

    def items(self, prefix: bytes = b"") -> Items:
        """Yield the pairs whose key starts with `prefix`, in key order, as of this call."""
        keys = self._keys
        tail = (keys[i] for i in range(bisect_left(keys, prefix), len(keys)))
        found = list(takewhile(lambda key: key.startswith(prefix), tail))
        return iter([(key, self._values[key]) for key in found])


class MemoryKeyValue(_MemoryReader):
    """A dictionary with the manners of a database: for tests and the simulator."""

    failure: StoreCorrupted | None = None

    def __init__(self) -> None:
        super().__init__({}, [])
        self._shared = False  # a snapshot looks at our dictionary: copy it before the next write

    def snapshot(self) -> Reader:
        """Return a view of this moment, which later writes do not change."""
        self._shared = True
        return _MemoryReader(self._values, self._keys)

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove `deletes`, then set `puts`."""
        if self._shared:
            self._values, self._keys = dict(self._values), list(self._keys)
            self._shared = False
        for key in deletes:
            if self._values.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        for key, value in puts.items():
            if key not in self._values:
                insort(self._keys, key)
            self._values[key] = value

    def compact(self) -> None:
        """Nothing to do: what is removed is gone."""

    def close(self) -> None:
        """Keep everything: opening a store on it again is a restart without a disk."""


_REFETCH = "check the disk; mlchain node --repair saves what is whole and asks peers for the rest"


class Unreadable(StoreCorrupted):
    """The database itself is damaged: what it wrote fails its own checksum, or is gone.

    Writing over it does not help, for LevelDB will stumble over it when it merges its files.
    """


class _LevelReader:
    """A LevelDB database or a snapshot of one."""

    def __init__(self, source: Any, where: Path) -> None:
        self._source = source
        self._where = where

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if it has none.

        Raises:
            StoreCorrupted: a checksum does not match what was read.
        """
        try:
            value: bytes | None = self._source.get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise _damaged(self._where, error) from error
        return value

    def items(self, prefix: bytes = b"") -> Items:
        """Yield the pairs whose key starts with `prefix`, in key order, as of this call.

        Raises:
            StoreCorrupted: a checksum does not match what was read.
        """
        try:
            iterator = self._source.iterator(prefix=prefix, verify_checksums=True)
        except plyvel.Error as error:
            raise _damaged(self._where, error) from error
        return self._guard(iterator)

    def _guard(self, iterator: Any) -> Items:
        try:
            with iterator:
                yield from iterator
        except plyvel.Error as error:
            raise _damaged(self._where, error) from error


class LevelKeyValue(_LevelReader):
    """A LevelDB database in a folder of its own, made if missing.

    A crash in the middle of a write may leave any part of it (`torn.py`); the database then opens
    at the last whole write. Anything worse is either found by a checksum here or by whoever
    compares the state with its root (`store.py`). A creation that was interrupted begins anew.

    One write that failed makes all later ones fail until the database is opened again.

    Raises:
        ConfigError: another process has it open, or the folder cannot be made.
        StoreCorrupted: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            # LevelDB would start an empty database where CURRENT was lost beside the data.
            has_data = any(
                p.stat().st_size for p in path.iterdir() if p.suffix in (".ldb", ".sst", ".log")
            )
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}", "name a folder we may write") from error
        self.failure: StoreCorrupted | None = None
        try:
            database = _open(path, not has_data)
        except plyvel.Error as error:
            said = _text(error)
            if "/LOCK:" in said and not said.endswith(_DISK_FAILED):
                raise ConfigError(
                    f"{path}: in use", "another process runs on this folder, or may write here only"
                ) from error
            try:
                if not has_data:
                    _empty(path)
                elif is_only_torn(p.read_bytes() for p in sorted(path.glob("*.log"))):
                    _open(path, False, paranoid_checks=False).close()  # drops what was torn
                database = _open(path, not has_data)
            except (plyvel.Error, OSError):
                raise _unopened(path, error) from error
        super().__init__(database, path)

    def snapshot(self) -> Reader:
        """Return a view of this moment, which later writes do not change."""
        return _LevelReader(self._source.snapshot(), self._where)

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove `deletes`, then set `puts`: all or nothing, and on disk when this returns.

        Raises:
            StoreCorrupted: the disk did not take it.
        """
        try:
            with self._source.write_batch(transaction=True, sync=True) as batch:
                for key in deletes:
                    batch.delete(key)
                for key, value in puts.items():
                    batch.put(key, value)
        except plyvel.Error as error:
            self.failure = _full(self._where, error)
            raise self.failure from error

    def compact(self) -> None:
        """Give back the space of what was removed; slow, and safe to call from a thread."""
        self._source.compact_range(start=b"\x00", stop=b"\xff" * 64)  # None means: nothing

    def close(self) -> None:
        """Release the files; closing twice is allowed."""
        self._source.close()


def salvage(path: Path) -> None:
    """Let LevelDB save what it can of a folder it cannot open, dropping what it cannot read.

    What comes out may lack anything and may hold what was removed: nothing of it is to be believed.

    Raises:
        StoreCorrupted: nothing can be saved.
    """
    try:
        plyvel.repair_db(str(path), paranoid_checks=False)
    except plyvel.Error as error:
        raise _damaged(path, error) from error


WRITE_BUFFER_BYTES = 2 << 20
"""Written rows that wait in memory for a file of their own; twice that while one is written."""
CACHE_BYTES = 2 << 20
"""Blocks of files that were read and unpacked. What is read often is in `Recent`."""


def _open(path: Path, create: bool, paranoid_checks: bool = True) -> Any:
    return plyvel.DB(
        str(path), create_if_missing=create, paranoid_checks=paranoid_checks, max_open_files=200,
        write_buffer_size=WRITE_BUFFER_BYTES, lru_cache_size=CACHE_BYTES,
    )  # fmt: skip


def _empty(path: Path) -> None:
    """Remove what an interrupted creation left: the names of a database that holds nothing."""
    for left in path.iterdir():
        if left.name == "CURRENT" or left.suffix in (".log", ".dbtmp") or "MANIFEST" in left.name:
            left.unlink()


_DISK_FAILED = ("No space left on device", "Disk quota exceeded", "Input/output error")
"""What LevelDB says of a file that it could not make, as strerror has it in English."""


def _unopened(where: Path, error: Exception) -> StoreCorrupted:
    """To open a database is to write: a full disk is not a damaged one."""
    is_full = isinstance(error, plyvel.IOError) and "No such file" not in _text(error)
    return _full(where, error) if is_full else _damaged(where, error)


def _full(where: Path, error: Exception) -> StoreCorrupted:
    hint = "check the free space and the disk, then start again"
    return StoreCorrupted(f"{where}: cannot write: {_text(error)}", hint)


def _damaged(where: Path, error: Exception) -> StoreCorrupted:
    return Unreadable(f"{where}: {_text(error)}", _REFETCH)


def _text(error: Exception) -> str:
    """Return LevelDB's own words, which arrive as bytes."""
    words = error.args[0] if error.args else ""
    return words.decode(errors="replace") if isinstance(words, bytes) else str(words)
