"""Merkle trees: a sparse one over the state, and one over a list. Both give short proofs.

The sparse tree maps keys to values. A key's *path* is its 256-bit hash, read from the top bit
down; the tree is *compact*: a subtree that holds one key is that key's leaf, so 100,000 keys are
about 17 levels deep. A subtree's hash is

    empty    32 zero bytes
    leaf     BLAKE2s[person "mlc/leaf"](path || hash of the value)
    inner    BLAKE2s[person "mlc/node"](left || right)

Three personalisations keep leaves, inner nodes and values apart, so no value can pass for a node.
The shape follows from the keys alone: two histories that end in one mapping end in one root.

Nodes are plain tuples and never change, so every version of the tree shares what it has in common
with the others, and the garbage collector stops looking at them (CPython untracks tuples of
untracked things).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2s
from typing import Annotated, TypeAlias

from msgspec import Meta

from mlchain import crypto
from mlchain.codec import Hash, Record
from mlchain.errors import VerificationFailed

EMPTY = bytes(32)
"""Hash of the subtree that holds nothing."""

MAX_DEPTH = 256

CHUNK_BITS = 8
CHUNKS = 1 << CHUNK_BITS
"""A snapshot of the state is cut where paths differ in their first byte."""

Leaf: TypeAlias = tuple[bytes, bytes, bytes]
"""(hash, path, hash of the value)"""
Inner: TypeAlias = "tuple[bytes, Node | None, Node | None, None]"
"""(hash, left, right, None); the fourth place tells it from a leaf"""
Node: TypeAlias = "Leaf | Inner"
_Change: TypeAlias = tuple[bytes, bytes | None]


class OtherLeaf(Record, frozen=True):
    """The leaf that stands where an absent key would be."""

    path: Hash
    value_hash: Hash


class StateProof(Record, frozen=True):
    """Shows that a key has a value, or that it has none.

    `siblings` run from the root down, empty bytes for an empty subtree. For an absent key `other`
    is the leaf found at the end of its path, or None when nothing is there.
    """

    siblings: Annotated[
        tuple[Annotated[bytes, Meta(max_length=32)], ...], Meta(max_length=MAX_DEPTH)
    ]
    other: OtherLeaf | None


class SparseTree:
    """An immutable compact sparse Merkle tree; it holds hashes, not the values themselves."""

    __slots__ = ("_node", "root")

    def __init__(self, node: Node | None = None) -> None:
        self._node = node
        self.root = node[0] if node is not None else EMPTY

    def update(self, changes: Mapping[bytes, bytes | None]) -> SparseTree:
        """Return the tree with `changes` made; a value of None removes its key.

        One call for a whole block costs about 10 us a key: shared paths are hashed once.
        """
        rows: list[_Change] = [
            (_hash_path(key), None if value is None else _hash_value(value))
            for key, value in changes.items()
        ]
        rows.sort()
        return SparseTree(_update(self._node, rows, 0, len(rows), 0))

    def prove(self, key: bytes) -> StateProof:
        """Return the proof of `key`'s value, or of its absence."""
        path = _hash_path(key)
        siblings = []
        node = self._node
        depth = 0
        while node is not None and len(node) == 4:
            _, left, right, _ = node
            node, sibling = (right, left) if _bit(path, depth) else (left, right)
            siblings.append(b"" if sibling is None else sibling[0])
            depth += 1
        other = None
        if node is not None and node[1] != path:
            other = OtherLeaf(node[1], node[2])
        return StateProof(tuple(siblings), other)

    def prove_chunk(self, index: int) -> StateProof:
        """Return the proof of which keys have a path that begins with the byte `index`."""
        path = bytes([index])
        siblings: list[bytes] = []
        node = self._node
        while node is not None and len(node) == 4 and len(siblings) < CHUNK_BITS:
            _, left, right, _ = node
            node, sibling = (right, left) if _bit(path, len(siblings)) else (left, right)
            siblings.append(b"" if sibling is None else sibling[0])
        other = None
        if node is not None and len(node) == 3 and node[1][0] != index:
            other = OtherLeaf(node[1], node[2])
        return StateProof(tuple(siblings), other)


def chunk_of(key: bytes) -> int:
    """Return in which chunk of a snapshot a key stands: the first byte of its path."""
    return _hash_path(key)[0]


def verify_chunk(
    root: bytes, index: int, values: Mapping[bytes, bytes], proof: StateProof
) -> SparseTree:
    """Return if, under `root`, `values` is exactly what stands at paths beginning with `index`.

    Whoever has all 256 chunks has the whole state, and each is judged alone: a wrong one convicts
    whoever gave it. The subtree is returned.

    Raises:
        VerificationFailed: a key is missing, foreign or has another value.
    """
    rows: list[_Change] = sorted(
        (_hash_path(key), _hash_value(value)) for key, value in values.items()
    )
    if any(path[0] != index for path, _ in rows):
        raise VerificationFailed(f"chunk {index}: a key of another chunk")
    depth, other = len(proof.siblings), proof.other
    if depth > CHUNK_BITS:
        raise VerificationFailed(f"chunk {index}: the proof is too long")
    subtree = SparseTree(_update(None, rows, 0, len(rows), CHUNK_BITS))
    node = subtree.root
    if depth < CHUNK_BITS and len(rows) > 1:  # compact: a higher subtree that ends is one leaf
        raise VerificationFailed(f"chunk {index}: the proof is too short")
    if other is not None:
        if rows or other.path[0] == index or not _share_bits(other.path, _chunk_path(index), depth):
            raise VerificationFailed(f"chunk {index}: a leaf from another place proves nothing")
        node = _hash_leaf(other.path + other.value_hash)
    if _climb(node, _chunk_path(index), proof.siblings) != root:
        raise VerificationFailed(f"chunk {index}: leads to another root")
    return subtree


def verify_proof(root: bytes, key: bytes, value: bytes | None, proof: StateProof) -> None:
    """Return if `proof` shows that under `root` the key has `value` (None: no value).

    Raises:
        VerificationFailed: it does not show that.
    """
    path = _hash_path(key)
    if value is not None:
        if proof.other is not None:
            raise VerificationFailed("state proof: a foreign leaf in a proof of presence")
        node = _hash_leaf(path + _hash_value(value))
    elif proof.other is not None:
        if proof.other.path == path:
            raise VerificationFailed("state proof: the key is there, it is not absent")
        if not _share_bits(proof.other.path, path, len(proof.siblings)):
            raise VerificationFailed("state proof: a leaf from another place proves no absence")
        node = _hash_leaf(proof.other.path + proof.other.value_hash)
    else:
        node = EMPTY
    if _climb(node, path, proof.siblings) != root:
        raise VerificationFailed("state proof: leads to another root")


def _climb(node: bytes, path: bytes, siblings: Sequence[bytes]) -> bytes:
    """Return the root above `node`, which stands on `path` under `siblings`."""
    for depth in reversed(range(len(siblings))):
        sibling = siblings[depth] or EMPTY
        if len(sibling) != 32 or siblings[depth] == EMPTY:
            raise VerificationFailed("state proof: a sibling is a 32-byte hash, or empty")
        node = _hash_inner(sibling + node if _bit(path, depth) else node + sibling)
    return node


def _chunk_path(index: int) -> bytes:
    return bytes([index]) + bytes(31)


def _update(node: Node | None, rows: list[_Change], low: int, high: int, depth: int) -> Node | None:
    """Return `node`, a subtree at `depth`, with the sorted `rows[low:high]` applied."""
    if low == high:
        return node
    if node is not None and len(node) == 4:
        _, left, right, _ = node
    else:
        left = right = None
        if high - low == 1:
            path, value_hash = rows[low]
            if node is None or node[1] == path:
                return _make_leaf(path, value_hash)
            if value_hash is None:
                return node
        if node is not None:  # a second key in this place: the leaf becomes one more row
            path, value_hash = node[1], node[2]
            rows = rows[low:high]
            if all(row[0] != path for row in rows):
                rows.append((path, value_hash))
                rows.sort()
            low, high = 0, len(rows)
    middle = _split(rows, low, high, depth)
    if low < middle:
        left = _update(left, rows, low, middle, depth + 1)
    if middle < high:
        right = _update(right, rows, middle, high, depth + 1)
    if left is None:
        if right is None or len(right) == 3:
            return right  # compact: a lone leaf rises
        return _hash_inner(EMPTY + right[0]), None, right, None
    if right is None:
        if len(left) == 3:
            return left
        return _hash_inner(left[0] + EMPTY), left, None, None
    return _hash_inner(left[0] + right[0]), left, right, None


def _make_leaf(path: bytes, value_hash: bytes | None) -> Leaf | None:
    return None if value_hash is None else (_hash_leaf(path + value_hash), path, value_hash)


def _split(rows: list[_Change], low: int, high: int, depth: int) -> int:
    """Return the index of the first of the sorted `rows[low:high]` that goes right at `depth`."""
    byte, mask = depth >> 3, 128 >> (depth & 7)
    while low < high:
        middle = (low + high) // 2
        if rows[middle][0][byte] & mask:
            high = middle
        else:
            low = middle + 1
    return low


def _bit(path: bytes, depth: int) -> int:
    return path[depth >> 3] >> (7 - (depth & 7)) & 1


def _share_bits(a: bytes, b: bytes, count: int) -> bool:
    return int.from_bytes(a, "big") >> (256 - count) == int.from_bytes(b, "big") >> (256 - count)


def _hasher(person: bytes) -> Callable[[bytes], bytes]:
    start = blake2s(person=person)

    def hash_(data: bytes) -> bytes:
        state = start.copy()  # cheaper than naming the personalisation each time
        state.update(data)
        return state.digest()

    return hash_


_hash_path = lru_cache(maxsize=16_384)(_hasher(b"mlc/path"))  # accounts in use come every block
_hash_value = _hasher(b"mlc/valu")
_hash_leaf = _hasher(b"mlc/leaf")
_hash_inner = _hasher(b"mlc/node")


# A list of byte strings: transactions' receipts, the chunks of a segment.

ListProof = Annotated[tuple[Hash, ...], Meta(max_length=64)]
"""Siblings of one item, from the bottom up; levels where it has none are skipped."""

_hash_item = _hasher(b"mlc/item")
_hash_pair = _hasher(b"mlc/pair")


def list_root(items: Sequence[bytes]) -> bytes:
    """Return the root over `items` in order; their number is part of it."""
    level = [_hash_item(item) for item in items]
    while len(level) > 1:
        level = _parents(level)
    return _seal(len(items), level[0] if level else EMPTY)


def list_proof(items: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the proof that `items[index]` stands at `index`."""
    assert 0 <= index < len(items), "the item is one of the list"
    level = [_hash_item(item) for item in items]
    siblings = []
    while len(level) > 1:
        if index ^ 1 < len(level):
            siblings.append(level[index ^ 1])
        level = _parents(level)
        index //= 2
    return tuple(siblings)


def verify_list_proof(
    root: bytes, item: bytes, index: int, count: int, proof: Sequence[bytes]
) -> None:
    """Return if `proof` shows that the list of `count` items under `root` has `item` at `index`.

    Raises:
        VerificationFailed: it does not show that.
    """
    if not 0 <= index < count:
        raise VerificationFailed(f"list proof: index {index} of {count} items")
    node = _hash_item(item)
    siblings = iter(proof)
    width, place = count, index
    while width > 1:
        if place ^ 1 < width:  # the last item of an odd level has no sibling and rises as it is
            sibling = next(siblings, None)
            if sibling is None or len(sibling) != 32:
                raise VerificationFailed("list proof: too short")
            node = _hash_pair(sibling + node if place & 1 else node + sibling)
        width = (width + 1) // 2
        place //= 2
    if next(siblings, None) is not None:
        raise VerificationFailed("list proof: too long")
    if _seal(count, node) != root:
        raise VerificationFailed("list proof: leads to another root")


def _parents(level: list[bytes]) -> list[bytes]:
    pairs = [_hash_pair(level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return pairs + level[len(level) & ~1 :]


def _seal(count: int, top: bytes) -> bytes:
    return crypto.digest("mlchain/list", count.to_bytes(8, "big"), top)
