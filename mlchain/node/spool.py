"""Chunk states on disk: what a worker must be able to show until its segment is HARD.

One append-only file per attempt of a segment. All states of a job have one size, which stands in
the file's name, so the state before chunk `offset` stands at `offset * size`. A cache, not a
ledger: it is never synced, and a worker that loses it trains the segment again.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mlchain.errors import NotFound

Place = tuple[bytes, int, int]
"""(job, segment, attempt)."""


class Spool:
    """The states before chunk 0, 1, … of the segments this worker is busy with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._files = {path.stem: path for path in folder.glob("*-*-*.*") if _size(path)}

    def start(self, place: Place, first: bytes) -> None:
        """Begin an attempt with the state before its first chunk; an older one is replaced."""
        name = _name(place)
        if name in self._files:
            self._files[name].unlink(missing_ok=True)
        self._files[name] = self._folder / f"{name}.{len(first)}"
        self._files[name].write_bytes(first)

    def append(self, place: Place, state: bytes) -> None:
        """Add the state after the next chunk."""
        path = self._files[_name(place)]
        assert len(state) == _size(path), "the states of a job have one size"
        with path.open("ab") as file:
            file.write(state)

    def read(self, place: Place, offset: int) -> bytes:
        """Return the state before the chunk at `offset` of the segment.

        Raises:
            NotFound: this worker does not have it.
        """
        path = self._files.get(_name(place))
        if path is None:
            raise NotFound(f"segment {place[1]} attempt {place[2]} is not here")
        size = _size(path)
        with path.open("rb") as file:
            file.seek(offset * size)
            state = file.read(size)
        if len(state) != size:
            raise NotFound(f"no state before chunk {offset} of segment {place[1]}")
        return state

    def keep(self, places: Collection[Place]) -> None:
        """Delete every attempt that is not among `places`."""
        names = [_name(place) for place in places]
        for name in [name for name in self._files if name not in names]:
            self._files.pop(name).unlink(missing_ok=True)


def _name(place: Place) -> str:
    return f"{place[0].hex()}-{place[1]}-{place[2]}"


def _size(path: Path) -> int:
    """Return the size of one state, 0 if the file is none of ours."""
    text = path.suffix.removeprefix(".")
    return int(text) if text.isdecimal() else 0
