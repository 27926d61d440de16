"""Snapshots of the state on disk: taken beside the running chain, and served to who catches up.

A folder for each height holds the 256 chunks, one file each, and last of all an index with their
hashes: without it the folder is half a snapshot. The state of a block is a tree that never changes
over a database snapshot, so to take one nothing stops: a thread writes it down.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2s
from pathlib import Path
from typing import Annotated

import structlog
import trio
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Hash, Record, Uint
from mlchain.consensus.light import LightQuestion, make_path
from mlchain.errors import CodecError, MlchainError, NotFound, StoreCorrupted
from mlchain.ledger.merkle import CHUNKS
from mlchain.ledger.snapshot import MAX_CHUNK_BYTES, make_chunks
from mlchain.ledger.store import Moment, Store

log = structlog.get_logger("snapshots")

OFFERS_PROTOCOL = "/mlchain/snapshots/1"
CHUNK_PROTOCOL = "/mlchain/snapshot-chunk/1"
LIGHT_PROTOCOL = "/mlchain/light/1"

KEEP = 2
"""Snapshots kept: whoever fetches the older one still finds it when the next is taken."""
PAUSE_S = 0.0005
"""The thread that takes a snapshot lets the others go this long, every few hundred keys."""


class Offers(Record, frozen=True):
    """The heights whose snapshots a node has."""

    heights: Annotated[tuple[Uint, ...], Meta(max_length=16)]


class ChunkQuestion(Record, frozen=True):
    """Asks for one chunk of a snapshot."""

    height: Uint
    index: Annotated[int, Meta(ge=0, le=CHUNKS - 1)]


class Index(Record, frozen=True):
    """What completes a snapshot: the BLAKE2s hashes of its chunks."""

    height: Uint
    chunks: Annotated[tuple[Hash, ...], Meta(min_length=CHUNKS, max_length=CHUNKS)]


class SnapshotFolder:
    """Snapshots under one folder, by height; whole ones and such that are being written.

    The folder may go and come back while a node runs, as a volume of its own does. Whatever the
    disk refuses is `StoreCorrupted`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with _asking(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def heights(self) -> list[int]:
        """Return the heights of whole snapshots, the newest first."""
        found = [int(p.parent.name) for p in self.folder.glob("*/index") if p.parent.name.isdigit()]
        return sorted(found, reverse=True)

    def begun(self) -> list[int]:
        """Return the heights of which only a part is here, the newest first."""
        names = [int(p.name) for p in self.folder.glob("*") if p.name.isdigit()]
        return sorted(set(names) - set(self.heights()), reverse=True)

    def write(self, height: int, index: int, data: bytes) -> None:
        """Keep one chunk; on disk under its name only when it is whole."""
        place = self._place(height)
        with _asking(place):
            place.mkdir(parents=True, exist_ok=True)
        self._replace(place / f"{index:02x}", data)

    def complete(self, height: int) -> None:
        """Say that all chunks are here. They are read once more, for their hashes."""
        chunks = tuple(blake2s(data).digest() for data in self.read_all(height))
        self._replace(self._place(height) / "index", codec.encode(Index(height, chunks)))

    def read_part(self, height: int, index: int) -> bytes | None:
        """Return a chunk of a snapshot that may not be whole, unchecked; None if it is not here."""
        return _read(self._place(height) / f"{index:02x}")

    def read_all(self, height: int) -> Iterator[bytes]:
        """Yield all chunks, unchecked.

        Raises:
            StoreCorrupted: one is missing.
        """
        for index in range(CHUNKS):
            data = self.read_part(height, index)
            if data is None:
                raise StoreCorrupted(f"{self._place(height)}: chunk {index} is missing")
            yield data

    def read(self, height: int, index: int) -> bytes:
        """Return a chunk as it was written.

        Raises:
            NotFound: no such snapshot here, or not any more: a damaged one is removed.
        """
        try:
            hashes = codec.decode(Index, _read(self._place(height) / "index") or b"").chunks
        except CodecError:
            raise NotFound(f"no snapshot of block {height} here", "ask for the offers") from None
        found = self.read_part(height, index)
        if found is None or blake2s(found).digest() != hashes[index]:
            log.warning("snapshot-damaged", height=height, chunk=index)
            self.remove(height)
            raise NotFound(f"the snapshot of block {height} is damaged here", "ask another peer")
        return found

    def remove(self, height: int) -> None:
        """Remove a snapshot, its index first, so that no half of it passes for a whole."""
        with _asking(self._place(height)):
            (self._place(height) / "index").unlink(missing_ok=True)
        shutil.rmtree(self._place(height), ignore_errors=True)

    def _place(self, height: int) -> Path:
        return self.folder / str(height)

    def _replace(self, path: Path, data: bytes) -> None:
        fresh = path.with_suffix(".new")
        with _asking(path):
            # Not synced: what a power failure takes is found by its hash, and the log goes first.
            fresh.write_bytes(data)
            os.replace(fresh, path)


@contextmanager
def _asking(path: Path) -> Iterator[None]:
    """Say in our own words what the disk refuses."""
    try:
        yield
    except OSError as error:
        raise StoreCorrupted(
            f"{path}: {error.strerror}", "check the free space and the disk"
        ) from error


def _read(path: Path) -> bytes | None:
    with _asking(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


class Snapshots:
    """Takes a snapshot at every multiple of `every` blocks (0: never), and serves what is there."""

    def __init__(self, store: Store, folder: SnapshotFolder, every: int) -> None:
        self._store = store
        self._folder = folder
        self._every = every
        self._due: Moment | None = None
        self._wake = trio.Event()

    def on_block(self, height: int) -> None:
        """Note that a block became final; cheap."""
        if self._every and height % self._every == 0:
            self._due = self._store.moment()
            self._wake.set()

    async def run(self) -> None:
        """Take what is due, one at a time; for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            moment, self._due = self._due, None
            if moment is not None:
                try:
                    await trio.to_thread.run_sync(self.take, moment, _pause)
                except MlchainError as error:  # the chain goes on without
                    log.warning("snapshot-failed", reason=error.message)

    def take(self, moment: Moment, pause: Callable[[], None] = lambda: None) -> None:
        """Write down the state of a moment and remove what is too old. Slow: for a thread.

        Raises:
            StoreCorrupted: the disk did not take it, or a chunk is larger than can be handed over.
        """
        height, started, size = moment.header.height, time.monotonic(), 0
        if height in self._folder.heights():
            return
        for old in self._folder.begun():
            self._folder.remove(old)
        for index, data in enumerate(make_chunks(moment.values, moment.tree, pause)):
            if len(data) > MAX_CHUNK_BYTES:
                raise StoreCorrupted(f"chunk {index} of block {height} has {len(data)} bytes")
            self._folder.write(height, index, data)
            size += len(data)
        self._folder.complete(height)
        seconds = round(time.monotonic() - started, 1)
        log.info("snapshot-taken", height=height, bytes=size, seconds=seconds)
        for old in self._folder.heights()[KEEP:]:
            self._folder.remove(old)

    # ---- what peers ask -----------------------------------------------------------------------

    async def serve_offers(self, peer: bytes, payload: bytes) -> bytes:
        """Answer the empty question for what there is."""
        return codec.encode(Offers(tuple(self._folder.heights()[:16])))

    async def serve_chunk(self, peer: bytes, payload: bytes) -> bytes:
        """Answer a `ChunkQuestion`."""
        question = codec.decode(ChunkQuestion, payload, 64)
        return await trio.to_thread.run_sync(self._folder.read, question.height, question.index)

    async def serve_light(self, peer: bytes, payload: bytes) -> bytes:
        """Answer a `LightQuestion`."""
        return codec.encode(make_path(self._store, codec.decode(LightQuestion, payload, 64)))


def _pause() -> None:
    """Let the other threads go; end here if the node is to stop."""
    trio.from_thread.check_cancelled()
    time.sleep(PAUSE_S)
