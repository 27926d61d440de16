"""The machine of a simulated node: a disk that outlives it, power that may fail, a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import trio

from mlchain.errors import NotFound
from mlchain.ledger.kv import Items, MemoryKeyValue, Reader
from mlchain.node.compute import Compute
from mlchain.node.machine import Storage
from mlchain.node.node import Node
from mlchain.node.spool import Place as Attempt
from mlchain.node.spool import Spool
from mlchain.node.wal import LastSignFile, WriteAheadLog
from mlchain.sim.work.lesson import RememberedCompute

HOME = Path("/invented")
SPOOL = HOME / "spool"
EPOCH_MS = 1_700_000_000_000


class PowerCut(BaseException):
    """The machine lost power in the middle of something; no handler of the node sees it."""


@dataclass(slots=True)
class Power:
    """Of one life of a process. `flicker` may end it; afterwards nothing reaches the disk."""

    draw: Callable[[], bool]
    is_on: bool = True

    def flicker(self) -> None:
        """Perhaps fail here.

        Raises:
            PowerCut: it failed, now or before.
        """
        if self.is_on and self.draw():
            self.is_on = False
        if not self.is_on:
            raise PowerCut


@dataclass(slots=True)
class Disk:
    """What outlives a crash: two databases, and files by path; and what the machine draws."""

    chain: MemoryKeyValue = field(default_factory=MemoryKeyValue)
    content: MemoryKeyValue = field(default_factory=MemoryKeyValue)
    files: dict[Path, _Content] = field(default_factory=dict)
    random: Random = field(default_factory=lambda: Random(0))
    on_save: Callable[[bytes], None] = lambda data: None
    """Told of what the signer saved: all that it ever signs."""

    def crash(self, rng: Random) -> None:
        """Lose what was not synced, but for a random beginning of it."""
        for content in self.files.values():
            unsynced = len(content.data) - content.synced
            del content.data[content.synced + rng.randrange(unsynced + 1) :]
            content.synced = len(content.data)

    def states(self, attempt: Attempt) -> list[bytes]:
        """Return the training states that the node here keeps of an attempt."""
        spool = Spool(SPOOL, InventedFiles(self, Power(lambda: False)))
        found: list[bytes] = []
        while True:
            try:
                found.append(spool.read(attempt, len(found)))
            except NotFound:
                return found


@dataclass(slots=True)
class _Content:
    data: bytearray = field(default_factory=bytearray)
    synced: int = 0


class InventedFiles:
    """`node.files.Files` on a `Disk`; power may fail around every sync and every rename.

    Names are on the disk at once. That they need not be is for tests/crash to try.
    """

    def __init__(self, disk: Disk, power: Power) -> None:
        self._disk = disk
        self._power = power

    def make_folder(self, folder: Path) -> None:
        """Folders are part of names."""

    def open(self, path: Path, is_new: bool = False) -> _InventedFile:
        """Open a file for appending."""
        if is_new or path not in self._disk.files:
            self._disk.files[path] = _Content()
        return _InventedFile(self._disk.files[path], self._power)

    def read(self, path: Path, offset: int = 0, size: int = -1) -> bytes | None:
        """Return at most `size` bytes from `offset` on; None if there is no such file."""
        content = self._disk.files.get(path)
        if content is None:
            return None
        return bytes(content.data[offset : len(content.data) if size < 0 else offset + size])

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, sorted."""
        return sorted(path.name for path in self._disk.files if path.parent == folder)

    def written(self, path: Path) -> int:
        """Return a number that is greater for what was written later; 0 if there is no file."""
        return list(self._disk.files).index(path) + 1 if path in self._disk.files else 0

    def replace(self, path: Path, by: Path) -> None:
        """Give the file `by` the name `path`."""
        self._power.flicker()
        self._disk.files[path] = self._disk.files.pop(by)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        self._disk.files.pop(path, None)

    def sync_folder(self, folder: Path) -> None:
        """Names are on the disk at once."""


class _InventedFile:
    def __init__(self, content: _Content, power: Power) -> None:
        self._content = content
        self._power = power

    def append(self, data: bytes) -> None:
        self._content.data += data

    def sync(self) -> None:
        self._power.flicker()
        self._content.synced = len(self._content.data)
        self._power.flicker()

    def close(self) -> None:
        pass


class PoweredKeyValue:
    """A database that power may leave before or after a write, never inside: it is atomic."""

    failure = None

    def __init__(self, kv: MemoryKeyValue, power: Power) -> None:
        self._kv = kv
        self._power = power

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if it has none."""
        return self._kv.get(key)

    def items(self, prefix: bytes = b"") -> Items:
        """Yield the pairs whose key starts with `prefix`, in key order."""
        return self._kv.items(prefix)

    def snapshot(self) -> Reader:
        """Return a view of this moment."""
        return self._kv.snapshot()

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Write all or nothing."""
        self._power.flicker()
        self._kv.write(puts, deletes)
        self._power.flicker()

    def compact(self) -> None:
        """There is nothing to give back."""

    def close(self) -> None:
        """Keep everything."""


class InventedClock:
    """Both clocks of a node, from the invented time; `skew_ms` is how far this one is ahead."""

    def __init__(self, skew_ms: int) -> None:
        self._skew_ms = skew_ms

    def monotonic_ms(self) -> int:
        """Milliseconds since the beginning of the run."""
        return int(trio.current_time() * 1000)

    def wall_ms(self) -> int:
        """Unix time in milliseconds, as this machine believes."""
        return EPOCH_MS + self.monotonic_ms() + self._skew_ms


@dataclass(slots=True)
class Machine:
    """What a `SimulatedNode` runs on in one life."""

    disk: Disk
    power: Power
    skew_ms: int

    def storage(self) -> Storage:
        """Return the databases, as a node wants them; there are no folders."""
        chain, content = (
            PoweredKeyValue(kv, self.power) for kv in (self.disk.chain, self.disk.content)
        )
        files = InventedFiles(self.disk, self.power)
        return Storage(chain, content, HOME / "wal", SPOOL, files=files)


class SimulatedNode(Node):
    """A node on an invented machine: nothing but the machine differs."""

    machine: Machine

    def __init__(self, machine: Machine, *args: Any) -> None:
        self.machine = machine
        super().__init__(*args)

    def _make_clock(self) -> Any:
        return InventedClock(self.machine.skew_ms)

    def _random_bytes(self, size: int) -> bytes:
        return self.machine.disk.random.randbytes(size)

    def _open_log(self, folder: Path, **what: bool) -> tuple[WriteAheadLog, LastSignFile]:
        log, last_sign = super()._open_log(folder, **what)
        last_sign.save = partial(self._save, last_sign.save)  # type: ignore[method-assign]
        return log, last_sign

    def _save(self, save: Callable[[bytes], None], data: bytes) -> None:
        save(data)
        if data:
            self.machine.disk.on_save(data)

    def make_compute(self) -> Compute:
        """Return what computes for this node."""
        return RememberedCompute()

    def _make_compute(self, executor: str, backend: str) -> Compute:
        return self.make_compute()
