"""The part of `second_runtime` for trees, from the page alone."""

from __future__ import annotations

import math
import struct
from typing import Any

Numbers = list[Any]


def single(v: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", v))[0]
    except OverflowError:
        return math.copysign(math.inf, v)


def trees(x: list[Numbers], s: list[list[int]], a: list[int]) -> list[Numbers]:
    numbers, feature, threshold, child, value = x
    (rows, columns), width, (count, depth, groups) = s[0], s[4][1], a
    sums = [0.0] * (rows * groups * width)
    for row in range(rows):
        for tree in range(count):
            node = tree
            for _ in range(depth):
                above = numbers[row * columns + feature[node]] > threshold[node]
                node = child[node] + (1 if above else 0)
            for j in range(width):
                place = (row * groups + tree % groups) * width + j
                v = value[node * width + j]
                sums[place] = v if tree < groups else sums[place] + v
    return [sums]


OPS: dict[str, Any] = {
    "round_single": lambda x, s, a: [[single(v) for v in x[0]]],
    "trees": trees,
}
KINDS: dict[str, Any] = {"trees": lambda k, a: [("F", 0, [k[0][2][0], a[2] * k[4][2][1]])]}
