"""Merkle trees over 32-byte hashes, with openings of several places at once, at any height.

Pairs are digest(node tag, left, right); the last of an odd level rises as it is; the root is
digest(seal tag, count in 8 bytes little-endian, top), so the count is part of it. A *level* is a
list of nodes; level 0 are the leaves. What is under a node of level h are 2^h leaves, fewer at the
right edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mlchain import crypto
from mlchain.errors import VerificationFailed


class Tags(NamedTuple):
    """Domains of pairs and of roots: what keeps two kinds of tree apart."""

    node: str
    seal: str


STATE = Tags("mlchain/state-node", "mlchain/state")
"""The tree whose root is a state's digest; its leaves are the digests of tensors."""

Levels = list[list[bytes]]


def seal(tags: Tags, count: int, top: bytes) -> bytes:
    """Return the root over `count` leaves whose topmost node is `top`."""
    return crypto.digest(tags.seal, count.to_bytes(8, "little"), top)


def grow(tags: Tags, leaves: Sequence[bytes]) -> Levels:
    """Return all levels over at least one leaf, the leaves first, the one top last."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        level = levels[-1]
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [crypto.digest(tags.node, a, b) for a, b in pairs]
        levels.append(above + level[len(level) & ~1 :])
    return levels


def root(tags: Tags, leaves: Sequence[bytes]) -> bytes:
    """Return the root over at least one leaf."""
    return seal(tags, len(leaves), grow(tags, leaves)[-1][0])


def height(count: int) -> int:
    """Return how many levels stand above `count` leaves."""
    return (count - 1).bit_length()


def width(count: int, level: int) -> int:
    """Return how many nodes a level has, over `count` leaves."""
    return -(-count >> level)


def opening(levels: Levels, places: Iterable[int], low: int = 0, high: int = -1) -> list[bytes]:
    """Return what `climb` needs to get from `places` of level `low` to level `high` (-1: the top).

    It is one list for all places, level by level, left to right; shared nodes stand in it once.
    """
    found, known = [], sorted(dict.fromkeys(places))
    for level in levels[low : len(levels) - 1 if high < 0 else high]:
        for place in known:
            if place ^ 1 not in known and place ^ 1 < len(level):
                found.append(level[place ^ 1])
        known = sorted(dict.fromkeys(place >> 1 for place in known))
    return found


def climb(
    tags: Tags,
    size: int,
    nodes: Mapping[int, bytes],
    siblings: Sequence[bytes],
    steps: int,
    seen: dict[tuple[int, int], bytes] | None = None,
    low: int = 0,
) -> dict[int, bytes]:
    """Return the nodes `steps` levels above `nodes`, which are places of a level of `size` nodes.

    Every node met is noted in `seen` as (level, place), counting levels from `low`.

    Raises:
        VerificationFailed: a place outside the level, or too few or too many siblings.
    """
    if not nodes or not all(0 <= place < size for place in nodes):
        raise VerificationFailed("opening: a place outside the tree")
    given, level = iter(siblings), dict(nodes)
    for rise in range(steps):
        for place in sorted(level):
            if place ^ 1 not in level and place ^ 1 < size:
                sibling = next(given, None)
                if sibling is None:
                    raise VerificationFailed("opening: too short")
                level[place ^ 1] = sibling
        if seen is not None:
            seen.update({(low + rise, place): node for place, node in level.items()})
        level = {
            place >> 1: crypto.digest(tags.node, level[place], level[place + 1])
            if place + 1 in level
            else level[place]
            for place in sorted(level)
            if not place & 1
        }
        size = -(-size // 2)
    if seen is not None:
        seen.update({(low + steps, place): node for place, node in level.items()})
    if next(given, None) is not None:
        raise VerificationFailed("opening: too long")
    return level


def climb_to_root(
    tags: Tags, count: int, leaves: Mapping[int, bytes], siblings: Sequence[bytes]
) -> bytes:
    """Return the root to which an opening leads from `leaves` of a tree of `count`.

    Raises:
        VerificationFailed: see `climb`.
    """
    return seal(tags, count, climb(tags, count, leaves, siblings, height(count))[0])
