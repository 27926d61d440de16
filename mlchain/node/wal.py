"""The write-ahead log and the signer's last signature, on disk.

The log is one file, little-endian. It begins with "mlchain log 1\\n", 8 random bytes, called
the *salt*, and the crc32 of both (4); records follow:

    salt(8) length(4) durable(8) crc32 of the payload(4) crc32 of these 24 bytes(4) payload

`durable` says how many bytes of the file were on disk, as far as `fdatasync` told, when the record
was written. The salt keeps a peer from writing, into a block that we log, what would pass for a
record of ours.

Records are only ever added. What decided heights left is dropped when it has grown, by a new file
in place of the old: a file cut off and written over could, after a power failure, be a mixture of
both heights.

After a power failure the disk may hold any part of what was not synced: a record torn, or zeros
where one should be and whole ones behind them. That is cut off, for nobody was promised it. But
where a later record says that what is damaged had been on disk, the disk has failed: nothing is
guessed, the node does not start (adr/0023).
"""

from __future__ import annotations

import secrets
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mlchain.consensus.journal import MAX_ENTRY_BYTES
from mlchain.consensus.safety import MAX_LAST_SIGN_BYTES
from mlchain.errors import StoreCorrupted
from mlchain.node.files import SYSTEM, File, Files, replace_durably

_TITLE = b"mlchain log 1\n"
_SALT_BYTES = 8
_HEAD = struct.Struct(f"<{_SALT_BYTES}sIQI")
_CHECK = struct.Struct("<I")
_MARK_BYTES = len(_TITLE) + _SALT_BYTES + _CHECK.size
_HEAD_BYTES = _HEAD.size + _CHECK.size
MAX_DECIDED_BYTES = 4 << 20
"""The log is written anew when it is larger at the end of a height."""
_HINT = (
    "the disk lost what it had confirmed. Move the log away and start again: the file last-sign"
    " keeps this validator from contradicting itself, and peers send what it missed; but a lock"
    " is lost with the log, so do this on one validator at a time"
)


class _Record(NamedTuple):
    at: int
    end: int
    durable: int
    payload: bytes


class WriteAheadLog:
    """Records of the height being decided, and of some before. One process at a time."""

    def __init__(
        self,
        folder: Path,
        files: Files = SYSTEM,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Open the log in `folder`, made if missing; salts come from `random_bytes`.

        Raises:
            StoreCorrupted: damaged where it was on disk, or the disk does not take it.
        """
        self._files = files
        self._random_bytes = random_bytes
        self._path = folder / "log"
        files.make_folder(folder)
        self._records = self._read()
        self._file: File | None = None
        self._size = self._durable = 0
        # Written anew, for what is read after a crash may be in memory only: a sync that failed
        # leaves pages that no later sync writes.
        self._rewrite(self._records)

    def records(self) -> list[bytes]:
        """Return what the log held when it was opened."""
        return self._records

    def append(self, record: bytes, sync: bool) -> None:
        """Add a record; with `sync`, all of the log is on disk on return.

        Raises:
            StoreCorrupted: the disk did not take it. Do not go on.
        """
        assert self._file is not None, "not closed"
        data = self._encode(record, self._durable)
        self._file.append(data)
        self._size += len(data)
        if sync:
            self._file.sync()
            self._durable = self._size

    def forget(self) -> None:
        """Let go of all records, now or later: their height is decided and stored.

        Raises:
            StoreCorrupted: the disk did not take it.
        """
        self._records = []
        if self._size > MAX_DECIDED_BYTES:
            self._rewrite([])

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self, records: list[bytes]) -> None:
        self._salt = self._random_bytes(_SALT_BYTES)
        data = _mark(self._salt) + b"".join(self._encode(record, 0) for record in records)
        replace_durably(self._files, self._path, data)
        self.close()
        self._file = self._files.open(self._path)
        self._size = self._durable = len(data)

    def _read(self) -> list[bytes]:
        data = self._files.read(self._path)
        if data is None:
            return []
        salt = data[len(_TITLE) :][:_SALT_BYTES]
        if data[:_MARK_BYTES] != _mark(salt):
            raise StoreCorrupted(f"{self._path}: not a log of this version", _HINT)
        found = list(_scan(data, salt))
        promised = max((record.durable for record in found), default=0)
        end, payloads = _MARK_BYTES, []
        for record in found:
            if record.at != end:
                break
            end = record.end
            payloads.append(record.payload)
        if promised > end:
            raise StoreCorrupted(
                f"{self._path}, byte {end}: damaged, though {promised} bytes were on disk", _HINT
            )
        return payloads

    def _encode(self, payload: bytes, durable: int) -> bytes:
        head = _HEAD.pack(self._salt, len(payload), durable, zlib.crc32(payload))
        return head + _CHECK.pack(zlib.crc32(head)) + payload


def _mark(salt: bytes) -> bytes:
    return _TITLE + salt + _CHECK.pack(zlib.crc32(_TITLE + salt))


def _scan(data: bytes, salt: bytes) -> Iterator[_Record]:
    """Yield every whole record, wherever it stands; whatever lies between is skipped."""
    at = data.find(salt, _MARK_BYTES)
    while at >= 0:
        record = _record_at(data, at)
        if record is not None:
            yield record
        at = data.find(salt, record.end if record else at + 1)


def _record_at(data: bytes, at: int) -> _Record | None:
    head = data[at : at + _HEAD.size]
    check = data[at + _HEAD.size : at + _HEAD_BYTES]
    if check != _CHECK.pack(zlib.crc32(head)) or len(head) < _HEAD.size:
        return None
    _, length, durable, payload_check = _HEAD.unpack(head)
    start = at + _HEAD_BYTES
    payload = data[start : start + length]
    if length > MAX_ENTRY_BYTES or len(payload) < length or zlib.crc32(payload) != payload_check:
        return None
    return _Record(at, start + length, durable, payload)


class LastSignFile:
    """The last signature, replaced as a whole and on disk before `save` returns."""

    def __init__(self, path: Path, may_be_missing: bool = True, files: Files = SYSTEM) -> None:
        """`may_be_missing`: nothing can have been signed yet."""
        self._path = path
        self._may_be_missing = may_be_missing
        self._files = files

    def load(self) -> bytes | None:
        """Return what was saved last, None if nothing was. An empty file says that nothing was.

        What is returned is on disk: it is saved again, for the crash may have come between the
        new name and its sync, and this signer will not save what it signed before.

        Raises:
            StoreCorrupted: missing though something may have been signed, or too large to be one.
        """
        data = self._files.read(self._path, size=MAX_LAST_SIGN_BYTES + 1)
        if data is None:
            if not self._may_be_missing:
                raise StoreCorrupted(
                    f"{self._path}: missing, though this validator may have signed the next block",
                    "put it back; if this key certainly signed nothing above the stored height, "
                    "here or elsewhere, make an empty file",
                )
            self._files.make_folder(self._path.parent)
            self.save(b"")  # so that later, when it is missing, something is wrong
            return None
        if len(data) > MAX_LAST_SIGN_BYTES:
            raise StoreCorrupted(f"{self._path}: not a signature record", "restore the file")
        self.save(data)
        return data or None

    def save(self, data: bytes) -> None:
        """Replace the file by `data`.

        Raises:
            StoreCorrupted: the disk did not take it.
        """
        replace_durably(self._files, self._path, data)
