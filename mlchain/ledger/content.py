"""A store of files by content id, block by block, so that peers can exchange the blocks.

Datasets, models and chunk states live here, their ids in the state. What the ids are is said in
`unixfs.py`; here is what is on disk and what is still missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import sha256
from typing import Any, BinaryIO, NamedTuple

from mlchain.errors import CodecError, NotFound, StoreCorrupted, VerificationFailed
from mlchain.ledger.kv import KeyValue
from mlchain.ledger.unixfs import (
    DEFAULT,
    Part,
    add,
    block_limit,
    check_part,
    children,
    cid_of,
    cid_text,
    is_leaf,
    leaf_part,
    parse_cid,
    placed,
    profile_of,
    root_part,
)

__all__ = ["ContentStore", "cid_of", "cid_text", "parse_cid"]

MAX_GET_BYTES = 1 << 30
"""Largest file `get` returns in one piece."""

_BATCH = 16  # blocks in one write while a file is added


_SWEEP = 256  # blocks looked at in one step of a collection

Lock = AbstractContextManager[Any]


class Kept(NamedTuple):
    """A file in the list: `order` grows with each file that is added, `size` is -1 if unknown."""

    cid: bytes
    order: int
    is_pinned: bool
    size: int


class ContentStore:
    """Files by content id, kept as blocks in a key-value store of their own.

    Two keys for a block, so that asking for it does not read it: `i` id -> size in 4 bytes, and
    `b` id -> bytes. Every block is hashed again whenever it is read. For every file that was put or
    asked for, `f` id -> a number in 8 bytes that grows; and for those pinned, `p` id.

    `lock` keeps a collection and the writes of other threads apart.
    """

    def __init__(self, kv: KeyValue, lock: Lock | None = None) -> None:
        self._kv = kv
        self._lock: Lock = lock or nullcontext()
        self._last = 0
        self._writers = 0
        self._young: dict[bytes, None] = {}
        """Blocks written while a file was being added or a collection ran: no file names them yet,
        or none did when the collection looked."""

    def put(self, source: bytes | BinaryIO, profile: str = DEFAULT) -> bytes:
        """Add a file and return its content id; adding it again changes nothing.

        Raises:
            CodecError: larger than `MAX_CONTENT_BYTES`.
        """
        pending: dict[bytes, bytes] = {}

        def keep(cid: bytes, block: bytes) -> None:
            pending.update(_rows(cid, block))
            if len(pending) >= 2 * _BATCH:
                self._write(pending)
                pending.clear()

        with self._writing():
            cid = add(source, keep, profile)
            self._write(pending)
            self.note(cid)
        return cid

    def note(self, cid: bytes) -> None:
        """Put a file at the end of the list, whether or not it is here: it was asked for now."""
        block_limit(cid)
        with self._lock:
            if not self._last:
                orders = (int.from_bytes(n, "big") for _, n in self._kv.items(b"f"))
                self._last = max(orders, default=0)
            self._last += 1
            self._kv.write({b"f" + cid: self._last.to_bytes(8, "big")})

    def pin(self, cid: bytes, is_wanted: bool = True) -> None:
        """Keep a file whatever a collection is told, or no longer."""
        block_limit(cid)
        if is_wanted:
            self._kv.write({b"p" + cid: b""})
            self.note(cid)
        else:
            self._kv.write({}, [b"p" + cid])

    def is_pinned(self, cid: bytes) -> bool:
        """Tell whether a file is pinned."""
        return self._kv.get(b"p" + cid) is not None

    def files(self, limit: int | None = None, before: int | None = None) -> list[Kept]:
        """Return the files of the list and those pinned, the newest first.

        At most `limit` of them, of an order below `before`; only of these the size is looked up.
        """
        pinned = dict.fromkeys(key[1:] for key, _ in self._kv.items(b"p"))
        orders = dict.fromkeys(pinned, 0)
        orders |= {key[1:]: int.from_bytes(n, "big") for key, n in self._kv.items(b"f")}
        rows = sorted(
            (-n, cid) for cid, n in orders.items() if before is None or n < before
        )  # fmt: skip
        return [Kept(cid, -n, cid in pinned, self._size_or(cid)) for n, cid in rows[:limit]]

    def used_bytes(self) -> int:
        """Return the bytes of all blocks; looks at each key."""
        return sum(int.from_bytes(size, "big") for _, size in self._kv.items(b"i"))

    def collect(self, needed: Iterable[bytes], max_bytes: int) -> int:
        """Remove blocks until at most `max_bytes` are left; return how many bytes went.

        What is `needed` or pinned stays even beyond that; of the other files the newest stay. Files
        may be added meanwhile, from other threads: their blocks stay.
        """
        with self._writing():
            files = self.files()
            stays: dict[bytes, int] = {}
            for cid in (*needed, *(kept.cid for kept in files if kept.is_pinned)):
                stays |= self._blocks(cid, stays)
            room = max_bytes - sum(stays.values())
            gone = []
            for place, kept in enumerate(files):
                more = self._blocks(kept.cid, stays)
                room -= sum(more.values())
                if room < 0:
                    gone = [b"f" + kept.cid for kept in files[place:] if kept.cid not in stays]
                    break
                stays |= more
            return self._sweep(stays, gone)

    def _sweep(self, stays: dict[bytes, int], gone: list[bytes]) -> int:
        """Remove all blocks but these and the young ones, and files from the list."""
        freed = 0
        blocks = [(key[1:], int.from_bytes(n, "big")) for key, n in self._kv.items(b"i")]
        for start in range(0, len(blocks), _SWEEP):
            with self._lock:
                victims = [
                    (cid, size)
                    for cid, size in blocks[start : start + _SWEEP]
                    if cid not in stays and cid not in self._young
                ]
                self._kv.write({}, [kind + cid for cid, _ in victims for kind in (b"i", b"b")])
            freed += sum(size for _, size in victims)
        with self._lock:
            self._kv.write({}, [key for key in gone if key[1:] not in self._young])
        return freed

    def _blocks(self, cid: bytes, known: dict[bytes, int]) -> dict[bytes, int]:
        """Return the blocks of a file that are here and not `known`, with their sizes."""
        found: dict[bytes, int] = {}
        todo: list[Part | None] = [None]  # None: the whole file
        while todo:
            part = todo.pop()
            block = part.cid if part else cid
            size = self._block_size(block)
            if size is None or block in found or block in known:
                continue
            found[block] = size
            try:
                part = part or self._root(cid)
                if part.depth:
                    todo.extend(children(part, self.get_block(block)))
            except (VerificationFailed, StoreCorrupted):
                continue  # no file, or damaged: what is below it cannot be known
        return found

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Remember what is written while this lasts."""
        with self._lock:
            self._writers += 1
        try:
            yield
        finally:
            with self._lock:
                self._writers -= 1
                if not self._writers:
                    self._young.clear()

    def _write(self, rows: dict[bytes, bytes]) -> None:
        with self._lock:
            if self._writers:
                self._young.update(dict.fromkeys(key[1:] for key in rows))
            self._kv.write(rows)

    def _size_or(self, cid: bytes, unknown: int = -1) -> int:
        try:
            return self.size(cid)
        except (NotFound, VerificationFailed, StoreCorrupted):
            return unknown

    def has(self, cid: bytes) -> bool:
        """Tell whether the whole file is here."""
        try:
            return not self.missing(cid, 1)
        except VerificationFailed:
            return False

    def size(self, cid: bytes) -> int:
        """Return the bytes of a file whose first block is here.

        Raises:
            NotFound: it is not here.
            VerificationFailed: the id names something, but not a file in the layout of this chain.
        """
        return self._root(cid).size

    def profile(self, cid: bytes) -> str:
        """Return the profile of a file whose first block is here (`unixfs.LAYOUTS`).

        Raises: as `size`.
        """
        return profile_of(self._root(cid))

    def get(self, cid: bytes, max_bytes: int = MAX_GET_BYTES) -> bytes:
        """Return a whole file of at most `max_bytes`.

        Raises:
            NotFound: a block of it is not here.
            CodecError: it is larger; nothing was read.
            VerificationFailed: the id names something, but not a file in the layout of this chain.
            StoreCorrupted: a block is not what was stored; names it.
        """
        if (size := self.size(cid)) > max_bytes:
            raise CodecError(f"{cid_text(cid)}: {size} bytes, at most {max_bytes} allowed")
        return b"".join(self.read(cid))

    def read(self, cid: bytes, start: int = 0) -> Iterator[bytes]:
        """Yield a file from byte `start` leaf by leaf, each verified, in constant memory.

        Raises: as `get`, for files of any size.
        """
        for at, part, block in self._walk(cid, start):
            if part.depth == 0:
                yield block[max(0, start - at) :]

    def blocks(
        self, cid: bytes, seen: dict[Part, None] | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (id, block) of a file, a node before what is below it, equal parts once.

        So the work is that of the blocks there are, however long the file that they stand for.
        `seen` carries parts from one file to the next.

        Raises: as `get`, for files of any size.
        """
        for _, part, block in self._walk(cid, seen={} if seen is None else seen):
            yield part.cid, block

    def _walk(
        self, cid: bytes, start: int = 0, seen: dict[Part, None] | None = None
    ) -> Iterator[tuple[int, Part, bytes]]:
        """Yield (first byte, part, block) of what reaches beyond byte `start`, a node first.

        Parts in `seen` are left out, and those that are looked at added.
        """
        todo = [(0, self._root(cid))]
        while todo:
            at, part = todo.pop()
            if 0 < start >= at + part.size or (seen is not None and part in seen):
                continue
            if seen is not None:
                seen[part] = None
            block = self.get_block(part.cid)
            if part.depth == 0:
                check_part(part, len(block) == part.size)
            else:
                todo.extend(reversed(list(placed(at, children(part, block)))))
            yield at, part, block

    def missing(self, cid: bytes, limit: int = 1024) -> list[bytes]:
        """Return the ids of up to `limit` blocks still needed for the file; none if it is whole.

        Ask again when these have come: what is below a missing node is not known before.

        Raises:
            VerificationFailed: the id names something, but not a file in the layout of this chain.
        """
        if not self.has_block(cid):
            return [cid]
        wanted: dict[bytes, None] = {}  # a dictionary keeps the order of the file
        seen: dict[Part, None] = {}  # equal parts are one part: a file of zeros is a few blocks
        todo = [self._root(cid)]
        while todo and len(wanted) < limit:
            part = todo.pop()
            if part in seen:
                continue
            seen[part] = None
            size = self._block_size(part.cid)
            if size is None:
                wanted[part.cid] = None
            elif part.depth == 0:
                check_part(part, size == part.size)
            else:
                todo.extend(reversed(children(part, self.get_block(part.cid))))
        return list(wanted)

    def has_block(self, cid: bytes) -> bool:
        """Tell whether one block is here."""
        return self._block_size(cid) is not None

    def get_block(self, cid: bytes) -> bytes:
        """Return one block.

        Raises:
            NotFound: it is not here.
            StoreCorrupted: it is not what was stored.
        """
        hint = "fetch this block again from a peer; check the disk"
        try:
            block = self._kv.get(b"b" + cid)
        except StoreCorrupted as error:
            raise StoreCorrupted(f"block {cid_text(cid)}: {error.message}", hint) from error
        if block is None:
            raise NotFound(f"no block {cid_text(cid)} here")
        if cid[:4] + sha256(block).digest() != cid:
            raise StoreCorrupted(f"block {cid_text(cid)} is damaged on disk", hint)
        return block

    def put_block(self, cid: bytes, block: bytes) -> None:
        """Store one block from a peer; it also replaces a damaged one.

        Raises:
            CodecError: not an id of this chain's files, or too large for one.
            VerificationFailed: the id is not that of these bytes.
        """
        limit = block_limit(cid)
        if len(block) > limit:
            raise CodecError(f"block {cid_text(cid)}: {len(block)} bytes, at most {limit}")
        if cid[4:] != sha256(block).digest():
            raise VerificationFailed(f"these bytes are not block {cid_text(cid)}")
        self._write(_rows(cid, block))

    def _block_size(self, cid: bytes) -> int | None:
        block_limit(cid)
        data = self._kv.get(b"i" + cid)
        return None if data is None else int.from_bytes(data, "big")

    def _root(self, cid: bytes) -> Part:
        """Return the part that is the whole file; its own block must be here."""
        if (size := self._block_size(cid)) is None:
            raise NotFound(f"no content {cid_text(cid)} here")
        return leaf_part(cid, size) if is_leaf(cid) else root_part(cid, self.get_block(cid))


def _rows(cid: bytes, block: bytes) -> dict[bytes, bytes]:
    return {b"i" + cid: len(block).to_bytes(4, "big"), b"b" + cid: block}
