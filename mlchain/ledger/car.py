"""CAR files (CARv1): a file's blocks in one stream, as IPFS tools write and read them.

    varint(n) header(n bytes)            DAG-CBOR {"roots": [cid, ...], "version": 1}
    varint(n) cid(36 bytes) block        once or more, in any order

Source: https://ipld.io/specs/transport/car/carv1/. Every block is compared with its id when it is
read, so it does not matter where a file came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import BinaryIO

from mlchain.errors import CodecError, VerificationFailed
from mlchain.ledger.unixfs import CID_BYTES, MAX_LEAF_BYTES, block_limit, cid_text

MAX_ROOTS = 64
_HEAD = b"\xa2\x65roots"  # a map of two, its first key
_TAIL = b"\x67version\x01"
_LINK = b"\xd8\x2a\x58\x25\x00"  # tag 42, 37 bytes, the multibase prefix of a binary id
_MAX_HEADER_BYTES = len(_HEAD) + 2 + MAX_ROOTS * (len(_LINK) + CID_BYTES) + len(_TAIL)


def car_header(root: bytes) -> bytes:
    """Return how a CAR file with one root starts."""
    return _frame(_HEAD + b"\x81" + _LINK + root + _TAIL)


def car_block(cid: bytes, block: bytes) -> bytes:
    """Return one block as it stands in a CAR file."""
    return _frame(cid + block)


def read_roots(source: BinaryIO) -> list[bytes]:
    """Read the header of a CAR file and return the ids of its roots.

    Raises:
        CodecError: no CARv1 header, or roots that are no files of this chain's kinds.
    """
    size = _read_varint(source)
    if size is None or size > _MAX_HEADER_BYTES:
        raise CodecError("not a CAR file: its header is missing or too large")
    header = _read(source, size)
    if header == b"\xa1\x67version\x02":
        raise CodecError("this is a CAR file of version 2", "ipfs dag export writes version 1")
    body = header.removeprefix(_HEAD).removesuffix(_TAIL)
    head = 1 if body[:1] < b"\x98" else 2
    count = body[0] - 0x80 if head == 1 and body else int.from_bytes(body[1:2], "big")
    links = body[head:]
    step = len(_LINK) + CID_BYTES
    roots = [links[i + len(_LINK) : i + step] for i in range(0, len(links), step)]
    made = _HEAD + body[:head] + b"".join(_LINK + root for root in roots) + _TAIL
    if made != header or not 1 <= count == len(roots) <= MAX_ROOTS:
        raise CodecError("not a CAR file of version 1 with roots of sha2-256")
    for root in roots:
        block_limit(root)
    return roots


def read_blocks(source: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield (id, block) of all that follows the header, each compared with its id.

    Raises:
        CodecError: cut off, or a block that no file of this chain's kinds has.
        VerificationFailed: a block is not what its id says; names it.
    """
    while (size := _read_varint(source)) is not None:
        if not CID_BYTES <= size <= CID_BYTES + MAX_LEAF_BYTES:
            raise CodecError(f"CAR file: a section of {size} bytes")
        section = _read(source, size)
        cid, block = section[:CID_BYTES], section[CID_BYTES:]
        if len(block) > block_limit(cid):
            raise CodecError(f"CAR file: block {cid_text(cid)} has {len(block)} bytes")
        if cid[4:] != sha256(block).digest():
            raise VerificationFailed(f"CAR file: these bytes are not block {cid_text(cid)}")
        yield cid, block


def _frame(data: bytes) -> bytes:
    size, head = len(data), bytearray()
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes((*head, size)) + data


def _read_varint(source: BinaryIO) -> int | None:
    """Return the next length, None at the end of the file."""
    number = 0
    for shift in range(0, 35, 7):
        byte = source.read(1)
        if not byte:
            if shift:
                break
            return None
        number |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return number
    raise CodecError("CAR file: a length is cut off or too long")


def _read(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise CodecError("CAR file: cut off")
    return data
