"""Chunk states on disk: what a worker must be able to show until its segment is HARD.

One append-only file per attempt of a segment. All states of a job have one size, so the state
before chunk `offset` stands at `offset * size`. A cache, not a ledger: it is never synced, and a
worker that loses it trains the segment again.
"""

from __future__ import annotations

from pathlib import Path

from mlchain.errors import NotFound


class Spool:
    """The states before chunk 0, 1, … of the segments this worker is busy with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._sizes: dict[str, int] = {}

    def start(self, job: bytes, segment: int, attempt: int, first: bytes) -> None:
        """Begin an attempt with the state before its first chunk; an older one is replaced."""
        name = _name(job, segment, attempt)
        self._sizes[name] = len(first)
        (self._folder / name).write_bytes(first)

    def append(self, job: bytes, segment: int, attempt: int, state: bytes) -> None:
        """Add the state after the next chunk."""
        name = _name(job, segment, attempt)
        assert len(state) == self._sizes[name], "the states of a job have one size"
        with (self._folder / name).open("ab") as file:
            file.write(state)

    def read(self, job: bytes, segment: int, attempt: int, offset: int) -> bytes:
        """Return the state before the chunk at `offset` of the segment.

        Raises:
            NotFound: this worker does not have it.
        """
        name = _name(job, segment, attempt)
        size = self._sizes.get(name)
        if size is None:
            raise NotFound(f"segment {segment} attempt {attempt} is not here")
        with (self._folder / name).open("rb") as file:
            file.seek(offset * size)
            state = file.read(size)
        if len(state) != size:
            raise NotFound(f"no state before chunk {offset} of segment {segment}")
        return state

    def forget(self, keep: frozenset[tuple[bytes, int, int]]) -> None:
        """Delete every attempt that is not in `keep`."""
        names = {_name(*key) for key in keep}
        for name in [name for name in self._sizes if name not in names]:
            del self._sizes[name]
            (self._folder / name).unlink(missing_ok=True)


def _name(job: bytes, segment: int, attempt: int) -> str:
    return f"{job.hex()}-{segment}-{attempt}"
