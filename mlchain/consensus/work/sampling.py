"""Who re-executes what: secret slices, and chunks dealt in public (protocol.md sections 7 and 12).

How many are enough is `assurance`.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

from mlchain import crypto

_WORD = 2**64


def draw_slice(ticket: bytes, leaf_root: bytes, total: int, size: int) -> tuple[int, ...]:
    """Return `size` distinct chunks out of `total`, sorted: the slice of whoever owns `ticket`.

    The first distinct values of PRF(ticket, leaf_root, counter) mod total; words that would make
    the remainder uneven are skipped. When more than half is wanted, the chunks left out are drawn.
    """
    size = min(size, total)
    if size * 2 > total:
        left_out = frozenset(draw_slice(ticket, leaf_root, total, total - size))
        return tuple(j for j in range(total) if j not in left_out)
    limit = _WORD - _WORD % max(total, 1)
    drawn: dict[int, None] = {}
    counter = 0
    while len(drawn) < size:
        block = crypto.digest("mlchain/slice", ticket, leaf_root, counter.to_bytes(8, "little"))
        counter += 1
        for i in range(0, 32, 8):
            word = int.from_bytes(block[i : i + 8], "little")
            if word < limit and len(drawn) < size:
                drawn[word % total] = None
    return tuple(sorted(drawn))


def miss_probability(total: int, rerun: int, forged: int) -> Fraction:
    """Return the chance that `rerun` of `total` chunks, drawn blindly, hold none of `forged`.

    Hypergeometric: C(total - forged, rerun) / C(total, rerun).
    """
    forged = min(forged, total)
    if rerun + forged > total:
        return Fraction(0)
    few, many = sorted((forged, rerun))
    return Fraction(
        prod(total - many - i for i in range(few)), prod(total - i for i in range(few)) or 1
    )


def draw_checkers(
    seed: bytes, chunk: int, validators: int, depth: int, absent: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Return the `depth` validators, by number, that a public `seed` deals one chunk to.

    The first distinct values of PRF(seed, chunk, counter) mod validators that are not `absent`.
    So when one turns out to be absent, somebody else takes its chunks and all others keep theirs.
    """
    limit = _WORD - _WORD % validators
    depth = min(depth, validators - len(absent))
    if depth == validators - len(absent):
        return tuple(number for number in range(validators) if number not in absent)
    dealt: dict[int, None] = {}
    place, counter = chunk.to_bytes(8, "little"), 0
    while len(dealt) < depth:
        block = crypto.digest("mlchain/cover", seed, place, counter.to_bytes(8, "little"))
        counter += 1
        for i in range(0, 32, 8):
            word = int.from_bytes(block[i : i + 8], "little")
            number = word % validators
            if word < limit and len(dealt) < depth and number not in absent:
                dealt[number] = None
    return tuple(sorted(dealt))
