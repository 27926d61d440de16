"""A store of files by content id, block by block, so that peers can exchange the blocks.

Datasets, models and chunk states live here, their ids in the state. What the ids are is said in
`unixfs.py`; here is what is on disk and what is still missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import BinaryIO

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
    profile_of,
    root_part,
)

__all__ = ["ContentStore", "cid_of", "cid_text", "parse_cid"]

MAX_GET_BYTES = 1 << 30
"""Largest file `get` returns in one piece."""

_BATCH = 16  # blocks in one write while a file is added


class ContentStore:
    """Files by content id, kept as blocks in a key-value store of their own.

    Two keys for a block, so that asking for it does not read it: `i` id -> size in 4 bytes, and
    `b` id -> bytes. Every block is hashed again whenever it is read.
    """

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    def put(self, source: bytes | BinaryIO, profile: str = DEFAULT) -> bytes:
        """Add a file and return its content id; adding it again changes nothing.

        Raises:
            CodecError: larger than `MAX_CONTENT_BYTES`.
        """
        pending: dict[bytes, bytes] = {}

        def keep(cid: bytes, block: bytes) -> None:
            pending.update(_rows(cid, block))
            if len(pending) >= 2 * _BATCH:
                self._kv.write(pending)
                pending.clear()

        cid = add(source, keep, profile)
        self._kv.write(pending)
        return cid

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

    def read(self, cid: bytes) -> Iterator[bytes]:
        """Yield a file leaf by leaf, each verified; memory does not grow with the file.

        Raises: as `get`, for files of any size.
        """
        for part, block in self._walk(cid):
            if part.depth == 0:
                yield block

    def blocks(self, cid: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (id, block) of a file, a node before what is below it.

        Raises: as `get`, for files of any size.
        """
        for part, block in self._walk(cid):
            yield part.cid, block

    def _walk(self, cid: bytes) -> Iterator[tuple[Part, bytes]]:
        todo = [self._root(cid)]
        while todo:
            part = todo.pop()
            block = self.get_block(part.cid)
            if part.depth == 0:
                check_part(part, len(block) == part.size)
            else:
                todo.extend(reversed(children(part, block)))
            yield part, block

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
        self._kv.write(_rows(cid, block))

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
