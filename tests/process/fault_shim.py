"""Clock and disk of a single process in our hands: `faults.c`, compiled and preloaded."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
_CONTROL = struct.Struct("<6q256s")
_FIELDS = ("clock_offset_ns", "sync_delay_us", "calls", "fails_at", "fails_until", "error")
FOR_EVER = 1 << 62


def missing() -> str:
    """Say why there is no shim here, "" if there is one."""
    return "" if shutil.which("gcc") else "gcc is not installed: clock and slow disk cannot be set"


@cache
def library() -> Path:
    """Compile the shim, once for this process."""
    folder = Path(tempfile.mkdtemp(prefix="mlchain-shim-"))
    made = folder / "faults.so"
    command = ["gcc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(made), str(SOURCE), "-ldl"]
    subprocess.run([*command, "-lpthread"], check=True)
    return made


class Shim:
    """What one process is made to see; every assignment holds at once."""

    def __init__(self, path: Path, prefix: Path) -> None:
        """`path` is the control file; files under `prefix` are followed."""
        path.write_bytes(_CONTROL.pack(0, 0, 0, -1, FOR_EVER, 0, str(prefix).encode()))
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CONTROL.size)

    def environment(self, record: Path | None = None) -> dict[str, str]:
        """What the process is started with."""
        found = {"LD_PRELOAD": str(library()), "MLCHAIN_FAULTS": str(self.path)}
        return found | ({"MLCHAIN_RECORD": str(record)} if record else {})

    def __getitem__(self, field: str) -> int:
        return int(struct.unpack_from("<q", self._map, 8 * _FIELDS.index(field))[0])

    def __setitem__(self, field: str, value: int) -> None:
        struct.pack_into("<q", self._map, 8 * _FIELDS.index(field), value)
