"""Chunk states on disk: what a worker must be able to show until nobody audits its segment.

One append-only file per attempt of a segment. All states of a job have one size, which stands in
the file's name, so the state before chunk `offset` stands at `offset * size`. A cache until the
segment is committed: a worker that loses it trains the segment again. From the commit on it is owed
to whoever checks, so it is synced before.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mlchain.errors import NotFound
from mlchain.node.files import SYSTEM, Files

Place = tuple[bytes, int, int]
"""(job, segment, attempt)."""


class Spool:
    """The states before chunk 0, 1, … of the segments this worker is busy with."""

    def __init__(self, folder: Path, files: Files = SYSTEM) -> None:
        self._folder = folder
        self._disk = files
        files.make_folder(folder)
        found = [folder / name for name in files.names(folder) if name.count("-") == 2]
        self._files = {path.stem: path for path in found if _size(path)}

    def start(self, place: Place, first: bytes) -> None:
        """Begin an attempt with the state before its first chunk; an older one is replaced.

        Raises:
            StoreCorrupted: the disk did not take it.
        """
        name = _name(place)
        if name in self._files:
            self._disk.remove(self._files[name])
        self._files[name] = self._folder / f"{name}.{len(first)}"
        self._write(self._files[name], first, is_new=True)

    def append(self, place: Place, state: bytes) -> None:
        """Add the state after the next chunk.

        Raises:
            StoreCorrupted: the disk did not take it; `start` the attempt again.
        """
        path = self._files[_name(place)]
        assert len(state) == _size(path), "the states of a job have one size"
        self._write(path, state)

    def sync(self, place: Place) -> None:
        """Return when all states of an attempt are on disk.

        Raises:
            StoreCorrupted: the disk did not take them.
        """
        file = self._disk.open(self._files[_name(place)])
        try:
            file.sync()
        finally:
            file.close()
        self._disk.sync_folder(self._folder)

    def read(self, place: Place, offset: int) -> bytes:
        """Return the state before the chunk at `offset` of the segment.

        Raises:
            NotFound: this worker does not have it.
        """
        path = self._files.get(_name(place))
        if path is None:
            raise NotFound(f"segment {place[1]} attempt {place[2]} is not here")
        size = _size(path)
        state = self._disk.read(path, offset * size, size)
        if state is None or len(state) != size:
            raise NotFound(f"no state before chunk {offset} of segment {place[1]}")
        return state

    @property
    def places(self) -> list[Place]:
        """The attempts that are here."""
        parts = [name.split("-") for name in self._files]
        return [(bytes.fromhex(job), int(index), int(attempt)) for job, index, attempt in parts]

    def keep(self, places: Collection[Place]) -> None:
        """Delete every attempt that is not among `places`."""
        names = [_name(place) for place in places]
        for name in [name for name in self._files if name not in names]:
            self._disk.remove(self._files.pop(name))

    def _write(self, path: Path, data: bytes, is_new: bool = False) -> None:
        file = self._disk.open(path, is_new)
        try:
            file.append(data)
        finally:
            file.close()


def _name(place: Place) -> str:
    return f"{place[0].hex()}-{place[1]}-{place[2]}"


def _size(path: Path) -> int:
    """Return the size of one state, 0 if the file is none of ours."""
    text = path.suffix.removeprefix(".")
    return int(text) if text.isdecimal() else 0
