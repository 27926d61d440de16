"""The write-ahead log and the signer's last signature, on disk.

The log is one file of records, little-endian:

    length(4) crc32 of the payload(4) crc32 of these 8 bytes(4) payload

It holds one height: when a block is stored, the log has done its duty and is emptied. A record that
was being written when the power failed is cut off. Damage before the end is never guessed at; the
second checksum is there so that a damaged length cannot pass for a record cut off, and take all
that follows with it.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlchain.consensus.journal import MAX_ENTRY_BYTES
from mlchain.consensus.safety import MAX_LAST_SIGN_BYTES
from mlchain.errors import StoreCorrupted

_LENGTHS = struct.Struct("<II")
_CHECK = struct.Struct("<I")
_HEAD = struct.Struct("<III")
_HINT = (
    "if the disk lost writes, move the log away and start again: the file last-sign keeps this "
    "validator from contradicting itself, and peers send what it missed"
)


class WriteAheadLog:
    """Records of the height being decided. One process at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        _sync_folder(folder)

    def records(self) -> list[bytes]:
        """Return all records; a torn one at the end is cut off.

        Raises:
            StoreCorrupted: a record before the end is damaged.
        """
        data = self._path.read_bytes()
        records: list[bytes] = []
        at = 0
        while at + _HEAD.size <= len(data):
            head = data[at : at + _HEAD.size]
            length, check, head_check = _HEAD.unpack(head)
            end = at + _HEAD.size + length
            if not any(head) and not any(data[at:]):
                break  # never filled: some file systems leave zeros
            if zlib.crc32(head[: _LENGTHS.size]) != head_check or length > MAX_ENTRY_BYTES:
                raise StoreCorrupted(f"{self._path}, byte {at}: no record starts here", _HINT)
            payload = data[at + _HEAD.size : end]
            is_last = end >= len(data)
            if len(payload) < length or zlib.crc32(payload) != check:
                if is_last:
                    break
                raise StoreCorrupted(f"{self._path}, byte {at}: the checksum is wrong", _HINT)
            records.append(payload)
            at = end
        if at < len(data):
            os.ftruncate(self._file, at)
        return records

    def append(self, record: bytes, sync: bool) -> None:
        """Add a record; with `sync`, all of the log is on disk on return.

        Raises:
            StoreCorrupted: the disk did not take it.
        """
        with _told(self._path):
            lengths = _LENGTHS.pack(len(record), zlib.crc32(record))
            _write(self._file, lengths + _CHECK.pack(zlib.crc32(lengths)) + record)
            if sync:
                os.fdatasync(self._file)

    def forget(self) -> None:
        """Empty the log: its height is decided and stored.

        Not synced: records that come back after a power failure name a height that is over.
        """
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


class LastSignFile:
    """The last signature, replaced as a whole and on disk before `save` returns."""

    def __init__(self, path: Path, may_be_missing: bool = True) -> None:
        """`may_be_missing`: nothing can have been signed yet."""
        self._path = path
        self._may_be_missing = may_be_missing

    def load(self) -> bytes | None:
        """Return what was saved last, None if nothing was. An empty file says that nothing was.

        Raises:
            StoreCorrupted: missing though something may have been signed, or too large to be one.
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_LAST_SIGN_BYTES + 1)
        except FileNotFoundError:
            if self._may_be_missing:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self.save(b"")  # so that later, when it is missing, something is wrong
                return None
            raise StoreCorrupted(
                f"{self._path}: missing, though this validator may have signed the next block",
                "put it back; if this key certainly signed nothing above the stored height, "
                "here or elsewhere, make an empty file",
            ) from None
        if not data:
            return None
        if len(data) > MAX_LAST_SIGN_BYTES:
            raise StoreCorrupted(f"{self._path}: not a signature record", _HINT)
        return data

    def save(self, data: bytes) -> None:
        """Replace the file by `data`.

        Raises:
            StoreCorrupted: the disk did not take it.
        """
        fresh = self._path.with_suffix(".new")
        with _told(self._path):
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                _write(descriptor, data)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(fresh, self._path)
            _sync_folder(self._path.parent)


def _write(descriptor: int, data: bytes) -> None:
    """Write all of `data`; a disk that is nearly full takes a part."""
    written = os.write(descriptor, data)
    if written != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Name the file in what the system says of a failed write."""
    try:
        yield
    except OSError as error:
        hint = "check the free space and the disk"
        raise StoreCorrupted(f"{path}: cannot write: {error.strerror}", hint) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
