"""A disk that keeps apart what was synced and what was not, and says what a crash may leave.

Every file is an inode: what is on the platter, what the system shows, and the operations between
the two that no sync has covered. The names are a list of their own. At a crash any part of what
is not covered may be there: see `OUTCOMES`. This is weaker than what ext4 or XFS give, on purpose:
POSIX promises no more.

The operations come from the node itself (`SimulatedFiles`, `SimulatedKeyValue`), or from a record
of the system calls of a real process (`recorded.py`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from random import Random

from mlchain.errors import StoreCorrupted
from mlchain.ledger.kv import MemoryKeyValue

SECTOR = 512


@dataclass(frozen=True)
class Write:
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    size: int


Change = Write | Truncate


@dataclass
class Inode:
    platter: bytes = b""
    shown: bytes = b""
    pending: list[Change] = field(default_factory=list)

    def do(self, change: Change) -> None:
        self.shown = apply(self.shown, change)
        self.pending.append(change)

    def sync(self) -> bool:
        """Bring all of it to the platter; tell whether there was anything."""
        had = bool(self.pending)
        for change in self.pending:  # not simply `shown`: a failed sync lost pages for good
            self.platter = apply(self.platter, change)
        self.pending = []
        return had

    def fail_sync(self) -> None:
        """The pages could not be written; the system shows them still, and calls them clean."""
        self.pending = []


@dataclass(frozen=True)
class Link:
    """A name is given to an inode, in place of another name's if `old` is one."""

    name: str
    inode: int
    old: str = ""


@dataclass(frozen=True)
class Unlink:
    name: str


def apply(content: bytes, change: Change) -> bytes:
    if isinstance(change, Truncate):
        return content[: change.size].ljust(change.size, b"\0")
    end = change.offset + len(change.data)
    content = content.ljust(change.offset, b"\0")
    return content[: change.offset] + change.data + content[end:]


@dataclass
class Disk:
    """All of it: inodes, and the names as they are on the platter and as they are shown."""

    inodes: dict[int, Inode] = field(default_factory=dict)
    platter: dict[str, int] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)
    pending: list[Link | Unlink] = field(default_factory=list)
    is_deaf: bool = False
    """Control: a disk that confirms every sync and does nothing."""
    forgives: bool = False
    """Control: a sync that failed may be tried again, and then tells the truth."""

    def inode(self, name: str) -> Inode:
        return self.inodes[self.shown[name]]

    def create(self, name: str) -> None:
        number = len(self.inodes)
        self.inodes[number] = Inode()
        self._name(Link(name, number))

    def rename(self, old: str, new: str) -> None:
        self._name(Link(new, self.shown[old], old))

    def unlink(self, name: str) -> None:
        self._name(Unlink(name))

    def _name(self, change: Link | Unlink) -> None:
        rename(self.shown, change)
        self.pending.append(change)

    def sync(self, name: str) -> None:
        if not self.is_deaf:
            self.inode(name).sync()

    def sync_names(self) -> None:
        """What the journal of ext4, XFS and btrfs adds to POSIX, and LevelDB needs: with a file
        that grew, all changes of names that came before reach the disk."""
        for change in self.pending:
            rename(self.platter, change)
        self.pending = []

    def sync_folder(self, folder: str) -> None:
        if self.is_deaf:
            return
        here = [c for c in self.pending if os.path.dirname(c.name) == folder]
        for change in here:
            rename(self.platter, change)
        self.pending = [c for c in self.pending if c not in here]

    def crashed(self, choose: Callable[[Inode], bytes], names: Iterable[Link | Unlink]) -> Disk:
        """Return the disk after a crash: `choose` says what each file holds."""
        table = dict(self.platter)
        for change in names:
            rename(table, change)
        contents = {name: choose(self.inodes[number]) for name, number in table.items()}
        after = Disk()
        for number, (name, content) in enumerate(contents.items()):
            after.inodes[number] = Inode(content, content)
            after.platter[name] = after.shown[name] = number
        return after


def rename(table: dict[str, int], change: Link | Unlink) -> None:
    """Apply a change of names; one whose forerunner was lost does what it can."""
    if isinstance(change, Unlink):
        table.pop(change.name, None)
        return
    table.pop(change.old, None)
    table[change.name] = change.inode


# ---- what a crash may leave -----------------------------------------------------------------


def nothing(inode: Inode) -> bytes:
    return inode.platter


def everything(inode: Inode) -> bytes:
    content = inode.platter
    for change in inode.pending:
        content = apply(content, change)
    return content


def torn(share: float) -> Callable[[Inode], bytes]:
    """All but the last operation, and a part of that one's bytes."""

    def choose(inode: Inode) -> bytes:
        content = inode.platter
        for change in inode.pending[:-1]:
            content = apply(content, change)
        if inode.pending and isinstance(last := inode.pending[-1], Write):
            size = min(len(last.data) - 1, max(1, int(len(last.data) * share)))
            content = apply(content, Write(last.offset, last.data[:size]))
        return content

    return choose


def zeros(inode: Inode) -> bytes:
    """The sizes were kept, the bytes were not."""
    content = inode.platter
    for change in inode.pending:
        if isinstance(change, Write):
            change = Write(change.offset, bytes(len(change.data)))
        content = apply(content, change)
    return content


def last_first(inode: Inode) -> bytes:
    """The first operation is lost and the later ones are there."""
    content = inode.platter
    for change in inode.pending[1:]:
        content = apply(content, change)
    return content


def sectors(rng: Random) -> Callable[[Inode], bytes]:
    """Any sectors of any operations."""

    def choose(inode: Inode) -> bytes:
        content = inode.platter
        for change in inode.pending:
            if isinstance(change, Truncate):
                content = apply(content, change) if rng.random() < 0.7 else content
                continue
            at, data = change.offset, change.data
            while data:
                size = min(len(data), SECTOR - at % SECTOR)
                if rng.random() < 0.7:
                    content = apply(content, Write(at, data[:size]))
                at, data = at + size, data[size:]
        return content

    return choose


def outcomes(
    disk: Disk, seed: int, draws: int = 4, is_journaled: bool = False
) -> Iterable[tuple[str, Disk]]:
    """Yield (name, disk) for what a crash may leave; the last `draws` are random.

    `is_journaled`: names change in order, and whole.
    """
    every = disk.pending
    yield "nothing unsynced", disk.crashed(nothing, [])
    yield "everything, as after kill -9", disk.crashed(everything, every)
    yield "bytes without names", disk.crashed(everything, [])
    yield "names without bytes", disk.crashed(nothing, every)
    yield "zeros", disk.crashed(zeros, every)
    yield "one byte of the last write", disk.crashed(torn(0), every)
    yield "half of the last write", disk.crashed(torn(0.5), every)
    yield "all but one byte of the last write", disk.crashed(torn(1), every)
    yield "the first write lost", disk.crashed(last_first, every)
    for draw in range(draws):
        rng = Random(f"{seed}/{draw}")
        names = [change for change in every if rng.random() < 0.7]
        if is_journaled:
            names = every[: len(names)]
        yield f"random {seed}/{draw}", disk.crashed(sectors(rng), names)


def distinct(disks: Iterable[tuple[str, Disk]]) -> list[tuple[str, Disk]]:
    """Return those that no earlier one equals: many outcomes are one where little was unsynced."""
    first: dict[bytes, tuple[str, Disk]] = {}
    for name, disk in disks:
        first.setdefault(look(disk), (name, disk))
    return list(first.values())


def look(disk: Disk, is_kept: Callable[[str], bool] = lambda name: True) -> bytes:
    """Return a digest of what a start would read: equal ones, equal starts."""
    digest = blake2b(digest_size=16)
    for name in sorted(filter(is_kept, disk.shown)):
        content = disk.inode(name).shown
        digest.update(b"%d %d " % (len(name), len(content)) + name.encode() + content)
    return digest.digest()


# ---- the node's side ------------------------------------------------------------------------


class PowerFailure(BaseException):
    """The process ends here."""


@dataclass
class Machine:
    """A disk with a database on it, and the calls to it counted; one of them may fail."""

    disk: Disk = field(default_factory=Disk)
    rows: MemoryKeyValue = field(default_factory=MemoryKeyValue)
    calls: list[str] = field(default_factory=list)
    fails_at: int = -1
    error: int = 0
    """An errno; 0: the power fails."""
    until: int = 1 << 30
    """The error lasts up to this call."""
    before_each: Callable[[], None] = lambda: None

    def call(self, what: str, partly: Callable[[], None] = lambda: None) -> None:
        """Count a call; fail if it is its turn, with what a call that fails may have done."""
        self.before_each()
        self.calls.append(what)
        if not self.fails_at <= len(self.calls) - 1 < self.until or self.fails_at < 0:
            return
        if not self.error:
            raise PowerFailure
        if self.error == errno.ENOSPC and not what.startswith(("append", "open", "write")):
            return  # what needs no space does not fail for want of it
        partly()
        raise StoreCorrupted(f"{what}: cannot write: {os.strerror(self.error)}", "check the disk")

    def after(self, disk: Disk) -> Machine:
        """Another start of the machine, on what a crash left."""
        rows = MemoryKeyValue()
        rows.write(dict(self.rows.items()))
        return Machine(disk, rows)

    def copy(self) -> Machine:
        again = self.after(deepcopy(self.disk))
        again.calls = list(self.calls)
        return again


class SimulatedFile:
    def __init__(self, machine: Machine, name: str) -> None:
        self._machine, self._name = machine, name
        self._inode = machine.disk.inode(name)

    def append(self, data: bytes) -> None:
        at = len(self._inode.shown)
        half = Write(at, data[: len(data) // 2])
        self._machine.call(f"append {self._name}", lambda: self._inode.do(half))
        self._inode.do(Write(at, data))

    def sync(self) -> None:
        fail = (lambda: None) if self._machine.disk.forgives else self._inode.fail_sync
        self._machine.call(f"sync {self._name}", fail)
        if not self._machine.disk.is_deaf:
            self._inode.sync()

    def close(self) -> None:
        pass


class SimulatedFiles:
    """`node.files.Files` on a simulated disk."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def make_folder(self, folder: Path) -> None:
        pass

    def open(self, path: Path, is_new: bool = False) -> SimulatedFile:
        name = str(path)
        self._machine.call(f"open {name}")
        disk = self._machine.disk
        if name not in disk.shown:
            disk.create(name)
        elif is_new:
            disk.inode(name).do(Truncate(0))
        return SimulatedFile(self._machine, name)

    def read(self, path: Path, offset: int = 0, size: int = -1) -> bytes | None:
        if str(path) not in self._machine.disk.shown:
            return None
        data = self._machine.disk.inode(str(path)).shown[offset:]
        return data if size < 0 else data[:size]

    def names(self, folder: Path) -> list[str]:
        return sorted(
            os.path.basename(name)
            for name in self._machine.disk.shown
            if os.path.dirname(name) == str(folder)
        )

    def written(self, path: Path) -> int:
        return self._machine.disk.shown.get(str(path), -1) + 1

    def replace(self, path: Path, by: Path) -> None:
        self._machine.call(f"replace {path}")
        self._machine.disk.rename(str(by), str(path))

    def remove(self, path: Path) -> None:
        self._machine.call(f"remove {path}")
        if str(path) in self._machine.disk.shown:
            self._machine.disk.unlink(str(path))

    def sync_folder(self, folder: Path) -> None:
        self._machine.call(f"sync folder {folder}")
        self._machine.disk.sync_folder(str(folder))


class SimulatedKeyValue(MemoryKeyValue):
    """The database by its contract: a write is there as a whole when it returned, else not.

    That LevelDB keeps this contract is shown by `test_crash_leveldb.py`.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine
        super().write(dict(machine.rows.items()))

    def write(self, puts, deletes=()):
        deletes = list(deletes)
        self._machine.call("write chain")
        super().write(puts, deletes)
        if not self._machine.disk.is_deaf:
            self._machine.rows.write(puts, deletes)
