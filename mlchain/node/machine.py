"""What a node takes from its machine: clocks, randomness, disk, a place to compute.

The simulator puts an invented machine here; everything else of its nodes is the real thing.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from mlchain.ledger.kv import KeyValue
from mlchain.node.agreement import Clock
from mlchain.node.compute import Compute
from mlchain.node.files import SYSTEM, Files
from mlchain.node.spool import Spool
from mlchain.node.wal import LastSignFile, WriteAheadLog


class SystemClock:
    """The machine's clocks."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some moment; never goes back."""
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a node keeps things."""

    chain: KeyValue
    content: KeyValue
    wal: Path
    spool: Path
    snapshots: Path | None = None
    """Folder of snapshots of the state; None: none are taken or served."""
    snapshot_every: int = 0
    """Blocks between two snapshots, 0 for none."""
    keep_blocks: int = 0
    """Blocks kept, 0 for all."""
    content_quota: int = 0
    files: Files = SYSTEM


class Machine:
    """Base of a node: the machine that it runs on. `storage` is set before anything is opened."""

    _storage: Storage

    def _make_clock(self) -> Clock:
        return SystemClock()

    def _random_bytes(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def _open_log(
        self, folder: Path, *, has_signed: bool, is_voting: bool
    ) -> tuple[WriteAheadLog, LastSignFile]:
        """Open the log and the last signature; one that may have signed must have its file."""
        files = self._storage.files
        last_sign = LastSignFile(folder / "last-sign", not has_signed, files)
        if not is_voting:
            LastSignFile(folder / "last-sign", True, files).load()  # now nothing is signed; later,
            # when the chain lets our key vote, a missing file means that it was lost
        return WriteAheadLog(folder, files, self._random_bytes), last_sign

    def _open_spool(self, folder: Path) -> Spool:
        return Spool(folder, self._storage.files)

    def _make_compute(self, executor: str, backend: str) -> Compute:
        return Compute(executor, backend)
