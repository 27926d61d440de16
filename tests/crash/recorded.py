"""The calls of a real process to its disk, recorded by `faults.c`, on a simulated disk.

LevelDB, the log and the files of the node together, as they were called. A disk can be computed for
any moment of the process, written into a folder, and a node started on it.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from simulated_disk import Disk, Truncate, Write

_HEAD = struct.Struct("<qqq")
MARKS = "marks"
"""The file in which the process says what the outside was told: lines of JSON, never synced."""


class Call(NamedTuple):
    kind: str
    number: int
    data: bytes
    path: str


def calls(record: bytes) -> Iterator[Call]:
    """Yield the recorded calls."""
    at = 0
    while at < len(record):
        kind = chr(record[at])
        number, size, length = _HEAD.unpack_from(record, at + 1)
        start = at + 1 + _HEAD.size
        at = start + size + length
        yield Call(kind, number, record[start : start + size], record[start + size : at].decode())


class Replay:
    """A simulated disk that has seen the first calls of a process."""

    def __init__(self, base: Disk) -> None:
        self.disk = base
        self.told: list[dict] = []
        self._open: dict[int, tuple[str, int, int]] = {}
        self._cursor: dict[int, int] = {}

    def do(self, call: Call) -> None:
        """Make one more call."""
        disk = self.disk
        if call.kind == "o":
            (flags,) = struct.unpack("<i", call.data)
            is_folder = os.path.isdir(call.path)
            if call.path not in disk.shown and flags & os.O_CREAT:
                disk.create(call.path)
            elif call.path in disk.shown and flags & os.O_TRUNC:
                disk.inode(call.path).do(Truncate(0))
            inode = -1 if is_folder else disk.shown.get(call.path, -1)
            self._open[call.number] = call.path, inode, flags
            self._cursor[call.number] = 0
        elif call.kind == "w":
            path, inode, flags = self._open[call.number]
            if os.path.basename(path) == MARKS:
                self.told += [json.loads(line) for line in call.data.splitlines()]
                return
            at = self._cursor[call.number]
            if flags & os.O_APPEND:
                at = len(disk.inodes[inode].shown)
            disk.inodes[inode].do(Write(at, call.data))
            self._cursor[call.number] = at + len(call.data)
        elif call.kind == "s":
            path, inode, _ = self._open[call.number]
            if inode < 0:
                disk.sync_folder(path)
            elif not disk.is_deaf and disk.inodes[inode].sync():
                disk.sync_names()
        elif call.kind == "r":
            old = call.data.decode()
            if old in disk.shown:
                disk.rename(old, call.path)
        elif call.kind == "u" and call.path in disk.shown:
            disk.unlink(call.path)
        elif call.kind == "c":
            self._open.pop(call.number, None)


def is_stored(name: str) -> bool:
    """Tell whether a file is for the node to read: not what is said of it, nor what is locked."""
    return os.path.basename(name) not in (MARKS, "LOCK", "LOG", "LOG.old")


def store(disk: Disk, old: Path, new: Path) -> None:
    """Write what a disk holds into a folder."""
    for name, number in disk.shown.items():
        if not is_stored(name):
            continue
        path = new / os.path.relpath(name, old)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(disk.inodes[number].shown)
