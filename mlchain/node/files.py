"""The file system, as the node's log, last signature and chunk states need it.

All of it goes through the few operations of `Files`, so that a test can put a disk behind them
that loses, tears and reorders what was not synced (`tests/crash/simulated_disk.py`). The rules of
whoever writes here:

- What must survive is synced: the bytes by `File.sync`, the name of a new or renamed file by
  `sync_folder`.
- **A failed sync is never repeated.** The system may have dropped the pages that it could not
  write and marked them clean; a second sync would then succeed without having written them. The
  node ends, and what it finds at its next start is written anew before it is trusted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mlchain.errors import StoreCorrupted


class File(Protocol):
    """A file open for appending. Every method raises StoreCorrupted if the disk fails."""

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end. It may be lost or torn until `sync` returns."""

    def sync(self) -> None:
        """Return when everything written is on the disk."""

    def close(self) -> None:
        """Let go of the file."""


class Files(Protocol):
    """A file system. Every method raises StoreCorrupted, naming the path, if the disk fails."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, unless they are there."""

    def open(self, path: Path, is_new: bool = False) -> File:
        """Open a file for appending, made if missing and emptied if `is_new`; only we may read."""

    def read(self, path: Path, offset: int = 0, size: int = -1) -> bytes | None:
        """Return at most `size` bytes from `offset` on; None if there is no such file."""

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, sorted."""

    def written(self, path: Path) -> int:
        """Return a number that is greater for what was written later; 0 if there is no file."""

    def replace(self, path: Path, by: Path) -> None:
        """Give the file `by` the name `path`: whoever opens it sees the old or the new one."""

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in a folder are on the disk."""


class _SystemFile:
    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        with _told(path):
            self._descriptor = os.open(path, flags, 0o600)

    def append(self, data: bytes) -> None:
        with _told(self._path):
            if os.write(self._descriptor, data) != len(data):  # a disk that is nearly full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        with _told(self._path):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class SystemFiles:
    """The real one."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, unless they are there."""
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def open(self, path: Path, is_new: bool = False) -> File:
        """Open a file for appending, made if missing and emptied if `is_new`."""
        return _SystemFile(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if is_new else 0)
        )

    def read(self, path: Path, offset: int = 0, size: int = -1) -> bytes | None:
        """Return at most `size` bytes from `offset` on; None if there is no such file."""
        try:
            with _told(path, "read"), path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except StoreCorrupted as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, sorted."""
        with _told(folder, "read"):
            return sorted(os.listdir(folder))

    def written(self, path: Path) -> int:
        """Return when a file was last written, in ns; 0 if there is none."""
        with _told(path, "read"):
            return path.stat().st_mtime_ns if path.exists() else 0

    def replace(self, path: Path, by: Path) -> None:
        """Give the file `by` the name `path`."""
        with _told(path):
            os.replace(by, path)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        with _told(path):
            path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in a folder are on the disk."""
        with _told(folder):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


SYSTEM = SystemFiles()


def replace_durably(files: Files, path: Path, data: bytes) -> None:
    """Make `data` the content of `path`, on disk when this returns; after a crash old or new.

    Raises:
        StoreCorrupted: the disk did not take it; the old content stands, unless only the last
            step, the sync of the folder, failed.
    """
    fresh = path.with_name(path.name + ".new")
    file = files.open(fresh, is_new=True)
    try:
        file.append(data)
        file.sync()
    finally:
        file.close()
    files.replace(path, fresh)
    files.sync_folder(path.parent)


@contextmanager
def _told(path: Path, verb: str = "write") -> Iterator[None]:
    """Name the file in what the system says."""
    try:
        yield
    except OSError as error:
        hint = "check the free space and the disk, then start again"
        raise StoreCorrupted(f"{path}: cannot {verb}: {error.strerror}", hint) from error
