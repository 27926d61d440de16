"""Who re-executes what: secret slices, and how large they must be (protocol.md sections 7 and 12).

All probabilities are exact rationals over whole chunks: the best cheat spoils whole chunks, so
chunks are what is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import prod

from mlchain import crypto

_WORD = 2**64

AUDITED_FORGED = Fraction(1, 100)
AUDITED_MISS = Fraction(1, 1000)


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


def _audited(total: int, validators: int) -> int:
    """Smallest slice by which 2f+1 honest validators miss a 1 % faker with chance <= 1/1000."""
    forged = max(1, -(-total * AUDITED_FORGED.numerator // AUDITED_FORGED.denominator))
    honest = 2 * ((validators - 1) // 3) + 1

    def suffices(size: int) -> bool:
        return miss_probability(total, size, forged) ** honest <= AUDITED_MISS

    high = 1
    while not suffices(high):  # up from below: at most ~700 are needed, and few factors are cheap
        high = min(2 * high, total)
    low = high // 2 + 1
    while low < high:
        middle = (low + high) // 2
        if suffices(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _replicated(total: int, validators: int) -> int:
    return total


TIERS: dict[str, Callable[[int, int], int]] = {"audited": _audited, "replicated": _replicated}
"""Tier -> slice of a whole job of `total` chunks per validator. `economic` and `covered:r` of
protocol.md section 12 are two more rows of this table."""


def slice_size(tier: str, total: int, segment: int, validators: int) -> int:
    """Return how many of a segment's chunks each of `validators` re-executes.

    A segment bears its share, rounded up, of the slice of the whole job of `total` chunks.
    """
    return min(segment, -(-TIERS[tier](total, validators) * segment // total))
