"""Files that a person names: read up to a bound, and written whole or not at all.

Who is stopped while writing leaves the file that was there. Key files, receipts, genesis files,
models: all that a person asked for by name goes through here.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mlchain.errors import CodecError, ConfigError

PRIVATE = 0o600
"""The mode of a file that only its owner reads."""


def read_file(path: Path, limit: int, hint: str = "") -> bytes:
    """Return the bytes of a file, which may as well be a pipe.

    Raises:
        ConfigError: it cannot be read.
        CodecError: it has more than `limit` bytes; no more than that were read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(limit + 1) if size <= limit else b""
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", hint) from error
    if max(size, len(data)) > limit:
        raise CodecError(f"{path}: larger than {limit} bytes")
    return data


def write_file(
    target: Path,
    data: bytes | str,
    hint: str = "",
    *,
    mode: int | None = None,
    is_new: bool = False,
) -> None:
    """Write a whole file; see `draft`."""
    with draft(target, hint, mode=mode, is_new=is_new) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def make_folder(folder: Path, hint: str = "", mode: int = 0o777) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}", hint) from error


@contextmanager
def draft(
    target: Path, hint: str = "", *, mode: int | None = None, is_new: bool = False
) -> Iterator[BinaryIO]:
    """Give a file to write and read that takes the place of `target` at the end, on disk by then.

    If anything is raised meanwhile, `target` is as it was. Without `mode` a file that was there
    keeps its own, and a new one has what the umask leaves. A link is followed. A pipe or a device
    has no place to take: it is given the bytes at the end.

    Raises:
        ConfigError: it cannot be written, or `is_new` and there is one; `hint` says what to do.
    """
    try:
        if is_new:
            yield from _placed(target, mode, os.link)  # unlike a rename, it fails if there is one
            return
        path = Path(os.path.realpath(target))
        there: int | None = None
        with suppress(FileNotFoundError):
            there = path.stat().st_mode
        if there is None:
            yield from _placed(path, mode, os.replace)
        elif stat.S_ISREG(there):
            yield from _placed(path, stat.S_IMODE(there) if mode is None else mode, os.replace)
        else:
            yield from _passed_on(path)
    except FileExistsError as error:
        raise ConfigError(f"{target}: there is a file already", hint) from error
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror or error}", hint) from error


def _placed(
    path: Path, mode: int | None, place: Callable[[Path, Path], None]
) -> Iterator[BinaryIO]:
    """Give a file beside `path`, and call `place` with both at the end."""
    beside = path.with_name(f".{secrets.token_hex(8)}.draft")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o666 if mode is None else PRIVATE)
    try:
        with open(descriptor, "w+b") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        place(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _passed_on(path: Path) -> Iterator[BinaryIO]:
    """Give a file without a name, whose bytes `path` gets at the end."""
    with path.open("wb") as sink, tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        shutil.copyfileobj(file, sink)
