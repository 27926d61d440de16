"""Content ids: how a file is cut, named, and checked.

A content id (CID) is the one `ipfs add --cid-version 1 --raw-leaves` prints: the file is cut into
leaves, up to so many children hang under a node, all leaves at one depth (UnixFS, dag-pb,
sha2-256). So a dataset or a model has one name here and on any IPFS gateway, and a large file is
fetched and verified block by block. How large leaves and nodes are is a profile (IPIP-499): what
the chain writes itself is in `DEFAULT`, what people add may be in any of `LAYOUTS`, and a node
shows which it is by its sizes.

Everything in a node but the ids of its children follows from two numbers, the bytes of file below
it and its depth. So a node from a stranger is checked by building what it must be and comparing:
content that is read back always hashes to its name.
"""

from __future__ import annotations

from base64 import b32decode, b32encode
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from typing import BinaryIO, NamedTuple

from mlchain.errors import CodecError, VerificationFailed


class Layout(NamedTuple):
    """How a file is cut: file bytes in a leaf (the last may have fewer), most children of a node.

    `command` is the line that gives the same ids with Kubo.
    """

    chunk_bytes: int
    links: int
    command: str


DEFAULT = "kubo-cli"
LAYOUTS = {
    "kubo-cli": Layout(262_144, 174, "ipfs add --cid-version 1 --raw-leaves"),
    "unixfs-v1-2025": Layout(
        1 << 20,
        1024,
        "ipfs add --cid-version 1 --raw-leaves --chunker size-1048576 --max-file-links 1024",
    ),
}
"""Profiles by name."""
CHUNK_BYTES = LAYOUTS[DEFAULT].chunk_bytes
MAX_LEAF_BYTES = 1 << 20
MAX_NODE_BYTES = 64 << 10
MAX_CONTENT_BYTES = 1 << 34
"""Largest file, 16 GiB; three levels of nodes."""
CID_BYTES = 36

_RAW = b"\x01\x55\x12\x20"  # CID version 1, codec, sha2-256, 32 bytes
_NODE = b"\x01\x70\x12\x20"


def cid_of(source: bytes | BinaryIO, profile: str = DEFAULT) -> bytes:
    """Return the 36-byte content id of `source`, in memory that does not grow with it.

    Raises:
        CodecError: larger than `MAX_CONTENT_BYTES`.
    """
    return add(source, lambda cid, block: None, profile)


def find_profile(cid: bytes, source: bytes | BinaryIO) -> str:
    """Return the first profile in which `cid` names the bytes of `source`, "" if it names others.

    A stream is read from its start, once for each profile tried.
    """
    for profile in LAYOUTS:
        if not isinstance(source, bytes):
            source.seek(0)
        if cid_of(source, profile) == cid:
            return profile
    return ""


def cid_text(cid: bytes) -> str:
    """Return the text form of a content id, `b` and 58 characters of base32."""
    return "b" + b32encode(cid).decode().lower().rstrip("=")


def parse_cid(text: str) -> bytes:
    """Return the content id behind its text form.

    Raises:
        CodecError: not one, or of a kind this chain does not use.
    """
    try:
        cid = b32decode(text[1:60].upper() + "======") if len(text) == 59 else b""
    except ValueError:
        cid = b""
    if cid[:4] not in (_RAW, _NODE) or cid_text(cid) != text:
        raise CodecError(
            f"not a content id: {text[:80]!r}", "they look like bafkrei… or bafybei…, 59 characters"
        )
    return cid


def is_leaf(cid: bytes) -> bool:
    """Tell whether the id names file bytes; otherwise it names a node."""
    return cid[:4] == _RAW


def block_limit(cid: bytes) -> int:
    """Return the most bytes the block of this id may have.

    Raises:
        CodecError: not the id of a leaf or a node.
    """
    if len(cid) == CID_BYTES and cid[:4] in (_RAW, _NODE):
        return MAX_LEAF_BYTES if is_leaf(cid) else MAX_NODE_BYTES
    raise CodecError(f"not a content id: {cid[:CID_BYTES].hex()}")


class Part(NamedTuple):
    """A subtree of a file: `size` file bytes, `depth` levels of nodes above its leaves."""

    cid: bytes
    size: int
    depth: int
    layout: Layout


def leaf_part(cid: bytes, size: int) -> Part:
    """Return the part that is a whole file of one leaf."""
    return Part(cid, size, 0, LAYOUTS[DEFAULT])


def root_part(cid: bytes, block: bytes) -> Part:
    """Return the part that is a whole file of more than one leaf, named by its first block.

    Raises:
        VerificationFailed: the block is no node, or of a size no such file has.
    """
    cids, size = _read_node(cid, block)
    for layout in LAYOUTS.values():
        part = Part(cid, size, _depth(size, layout), layout)
        is_many = layout.chunk_bytes < size <= MAX_CONTENT_BYTES
        if is_many and _is_node(part, cids, block):
            return part
    raise _misfit(cid)


def profile_of(part: Part) -> str:
    """Return the name of the profile that a whole file is in; of one leaf, the first it fits."""
    for name, layout in LAYOUTS.items():
        if part.layout == layout if part.depth else part.size <= layout.chunk_bytes:
            return name
    raise _misfit(part.cid)


def children(part: Part, block: bytes) -> list[Part]:
    """Return the parts under a node.

    Raises:
        VerificationFailed: its block is not exactly the one its place demands.
    """
    cids, _ = _read_node(part.cid, block)
    check_part(part, _is_node(part, cids, block))
    kind = _RAW if part.depth == 1 else _NODE
    check_part(part, all(cid[:4] == kind for cid in cids))
    sizes = _child_sizes(part.size, part.depth, part.layout)
    return [Part(cid, n, part.depth - 1, part.layout) for cid, n in zip(cids, sizes, strict=True)]


def placed(at: int, parts: Iterable[Part]) -> Iterator[tuple[int, Part]]:
    """Yield (first byte, part) of parts that follow one another in a file from byte `at`."""
    for part in parts:
        yield at, part
        at += part.size


def leaves(root: Part, get: Callable[[bytes], bytes]) -> Iterator[tuple[int, Part]]:
    """Yield (first byte, leaf) of a file in its order; `get` gives the blocks of nodes by id.

    Memory holds the children of one node of each level.

    Raises:
        VerificationFailed: a node is not exactly the one that its place demands.
    """
    todo = [(0, root)]
    while todo:
        at, part = todo.pop()
        if part.depth:
            todo.extend(reversed(list(placed(at, children(part, get(part.cid))))))
        else:
            yield at, part


def check_part(part: Part, holds: bool) -> None:
    """Return if `holds`.

    Raises:
        VerificationFailed: it does not, so `part` is not what its place in a file demands.
    """
    if not holds:
        raise _misfit(part.cid)


def add(
    source: bytes | BinaryIO, keep: Callable[[bytes, bytes], None], profile: str = DEFAULT
) -> bytes:
    """Cut, name and `keep(cid, block)` the blocks of a file; return its id.

    Memory holds one leaf, and of each level the children of one node.

    Raises:
        CodecError: larger than `MAX_CONTENT_BYTES`.
    """
    layout = LAYOUTS[profile]
    levels: list[list[Part]] = [[]]
    total = 0

    def place(part: Part) -> None:
        if part.depth == len(levels):
            levels.append([])
        if len(levels[part.depth]) == layout.links:
            place(close(part.depth))
        levels[part.depth].append(part)

    def close(depth: int) -> Part:
        parts, levels[depth] = levels[depth], []
        size = sum(part.size for part in parts)
        block = _make_node(size, depth + 1, layout, [part.cid for part in parts])
        cid = _NODE + sha256(block).digest()
        keep(cid, block)
        return Part(cid, size, depth + 1, layout)

    for chunk in _chunks(source, layout.chunk_bytes):
        total += len(chunk)
        if total > MAX_CONTENT_BYTES:
            raise CodecError(f"content is larger than {MAX_CONTENT_BYTES} bytes")
        cid = _RAW + sha256(chunk).digest()
        keep(cid, chunk)
        place(Part(cid, len(chunk), 0, layout))
    depth = 0
    while depth < len(levels) - 1 or len(levels[depth]) > 1:  # fold the right edge upwards
        if levels[depth]:
            place(close(depth))
        depth += 1
    return levels[depth][0].cid


def _chunks(source: bytes | BinaryIO, most: int) -> Iterator[bytes]:
    """Yield leaves of `most` bytes; an empty file is one empty leaf."""
    if isinstance(source, bytes):
        yield source[:most]
        for start in range(most, len(source), most):
            yield source[start : start + most]
        return
    first = True
    while True:
        chunk = source.read(most)
        if len(chunk) < most:  # a pipe gives what it has, not what was asked for
            pieces = bytearray(chunk)
            while len(pieces) < most and (more := source.read(most - len(pieces))):
                pieces += more
            chunk = bytes(pieces)
        if chunk or first:
            yield chunk
        if len(chunk) < most:
            return
        first = False


def _misfit(cid: bytes) -> VerificationFailed:
    return VerificationFailed(f"{cid_text(cid)} is not a file of this chain's layout")


def _depth(size: int, layout: Layout) -> int:
    depth, reach = 0, layout.chunk_bytes
    while reach < size:
        depth, reach = depth + 1, reach * layout.links
    return depth


def _child_sizes(size: int, depth: int, layout: Layout) -> list[int]:
    full = layout.chunk_bytes * layout.links ** (depth - 1)
    return [full] * (size // full) + ([size % full] if size % full else [])


@lru_cache(maxsize=256)
def _dag_bytes(size: int, depth: int, layout: Layout) -> int:
    """Bytes of all blocks of a subtree together, what a link calls Tsize."""
    if depth == 0:
        return size
    sizes = _child_sizes(size, depth, layout)
    node = _make_node(size, depth, layout, [bytes(CID_BYTES)] * len(sizes))
    return len(node) + sum(_dag_bytes(child, depth - 1, layout) for child in sizes)


def _is_node(part: Part, cids: list[bytes], block: bytes) -> bool:
    """Tell whether `block`, which names these children, is the one that its place demands."""
    size, depth, layout = part.size, part.depth, part.layout
    is_full = len(cids) == len(_child_sizes(size, depth, layout))
    return is_full and _make_node(size, depth, layout, cids) == block


def _make_node(size: int, depth: int, layout: Layout, cids: list[bytes]) -> bytes:
    """Return the dag-pb block over children `cids`: PBNode{Links}, then Data, a UnixFS file."""
    sizes = _child_sizes(size, depth, layout)
    empty = _field(2, b"")
    tails = {
        n: empty + b"\x18" + _varint(_dag_bytes(n, depth - 1, layout)) for n in dict.fromkeys(sizes)
    }
    links = [
        _field(2, _field(1, cid) + tails[child]) for cid, child in zip(cids, sizes, strict=True)
    ]
    file = b"\x08\x02\x18" + _varint(size) + b"".join(b"\x20" + _varint(n) for n in sizes)
    return b"".join(links) + _field(1, file)


def _read_node(cid: bytes, block: bytes) -> tuple[list[bytes], int]:
    """Return the ids and the file size written in a node. The caller compares the rest."""
    cids = []
    try:
        place = 0
        while block[place] == 0x12:
            length, place = _read_varint(block, place + 1)
            cids.append(block[place + 2 : place + 2 + CID_BYTES])
            place += length
        _, place = _read_varint(block, place + 1)
        size, _ = _read_varint(block, place + 3)
    except IndexError as error:
        raise _misfit(cid) from error
    return cids, size


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Return (number, place after it); more than 9 bytes are no number of ours."""
    number = 0
    for shift in range(0, 63, 7):
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise IndexError("varint of more than 63 bits")
