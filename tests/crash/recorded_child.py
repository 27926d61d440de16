"""A chain of one validator on a real disk, whose calls are recorded; run by test_crash_leveldb.py.

    python tests/crash/recorded_child.py HOME MARKS

Exit status 7, and what failed on stdout: the disk did. Without arguments it reads lines of JSON,
[HOME, MARKS], lives each in a process that it forks, and says how that one ended: imports take
longer than a life.

Small LevelDB buffers: its log is changed and its tables are written within a few blocks.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("crash", "node", "process")]

import plyvel  # noqa: E402  # type: ignore[import-untyped]
from crash_lab import Life, World, small_genesis  # noqa: E402

from mlchain.errors import StoreCorrupted  # noqa: E402
from mlchain.ledger.kv import LevelKeyValue  # noqa: E402
from mlchain.node import node as node_module  # noqa: E402
from mlchain.node.machine import Storage  # noqa: E402

WRITE_BUFFER = 64 << 10
BLOCKS = 4


def quick() -> None:
    """Make starts quick and LevelDB's buffers small."""
    node_module.check_registry = lambda genesis: None  # type: ignore[assignment]
    whole = plyvel.DB

    def small(name, **options):
        return whole(name, **{**options, "write_buffer_size": WRITE_BUFFER})

    plyvel.DB = small


class Told(World):
    """Everything the outside is told is written down where the record shows when."""

    def __init__(self, path: Path) -> None:
        super().__init__(Marked(path, "said"), MarkedPlaces(path))  # type: ignore[arg-type]


class Marked(list):
    def __init__(self, path: Path, kind: str) -> None:
        super().__init__()
        self._file, self._kind = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), kind

    def append(self, message: bytes) -> None:
        super().append(message)
        os.write(self._file, json.dumps({self._kind: message.hex()}).encode() + b"\n")


class MarkedPlaces(dict):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __setitem__(self, identity: bytes, height: int) -> None:
        super().__setitem__(identity, height)
        os.write(self._file, json.dumps({"final": identity.hex(), "at": height}).encode() + b"\n")


def storage(home: Path) -> Storage:
    return Storage(
        LevelKeyValue(home / "data"), LevelKeyValue(home / "content"), home / "wal", home / "spool"
    )


def live(home: Path, world: World) -> None:
    life = Life(small_genesis(1), storage(home), world)
    for number in range(BLOCKS):
        life.node.content.put(bytes([number]) * 40_000)
        nonce = life.nonce()
        life.block(range(nonce, nonce + 12))
    life.node.close()


def run(home: str, marks: str) -> None:
    """Live; exit with 7, and say what failed, if the disk does."""
    told = Told(Path(marks))
    try:
        live(Path(home), told)
    except StoreCorrupted as error:
        print(error.message, "|", error.hint, flush=True)
        os._exit(7)
    os._exit(0)


if __name__ == "__main__":
    quick()
    if sys.argv[1:]:
        run(*sys.argv[1:])
    for line in sys.stdin:
        if not (pid := os.fork()):
            run(*json.loads(line))
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])), flush=True)
