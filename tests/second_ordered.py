"""The part of `second_runtime` whose sums have an order, from the page alone."""

from __future__ import annotations

import math
from typing import Any

from second_nets import Trapped

Numbers = list[Any]


def ratio(v: float, w: float) -> float:
    if w != 0:
        return v / w
    return math.nan if v == 0 or v != v else math.copysign(math.inf, v)


def rows(x: Numbers, columns: int) -> list[Numbers]:
    return [list(x[i : i + columns]) for i in range(0, len(x), columns)]


def weighted_distances(x: list[Numbers], s: list[list[int]], a: list[int]) -> list[Numbers]:
    out = []
    parts = [rows(t, s[0][1]) for t in x]
    for row in parts[0]:
        for centre, weights in zip(parts[1], parts[2], strict=True):
            total = 0.0
            for v, c, w in zip(row, centre, weights, strict=True):
                total = total + ((v - c) * (v - c)) * w
            out.append(total)
    return [out]


def cholesky(x: list[Numbers], s: list[list[int]], a: list[int]) -> list[Numbers]:
    m, n = rows(x[0], s[0][0]), s[0][0]
    for k in range(n):
        if not 0 < m[k][k] < math.inf:
            raise Trapped
        m[k][k] = math.sqrt(m[k][k])
        m[k][k + 1 :] = [0.0] * (n - k - 1)
        for i in range(k + 1, n):
            m[i][k] = m[i][k] / m[k][k]
        for j in range(k + 1, n):
            for i in range(j, n):
                m[i][j] = m[i][j] - m[i][k] * m[j][k]
    return [[v for row in m for v in row]]


def cholesky_solve(x: list[Numbers], s: list[list[int]], a: list[int]) -> list[Numbers]:
    n, columns = s[1]
    lower, right = rows(x[0], n), rows(x[1], columns)
    for c in range(columns):
        for k in range(n):
            right[k][c] = ratio(right[k][c], lower[k][k])
            for i in range(k + 1, n):
                right[i][c] = right[i][c] - lower[i][k] * right[k][c]
        for k in reversed(range(n)):
            right[k][c] = ratio(right[k][c], lower[k][k])
            for i in range(k):
                right[i][c] = right[i][c] - lower[k][i] * right[k][c]
    return [[v for row in right for v in row]]


OPS: dict[str, Any] = {
    "cholesky": cholesky,
    "cholesky_solve": cholesky_solve,
    "weighted_distances": weighted_distances,
}

KINDS: dict[str, Any] = {
    "cholesky_solve": lambda k, a: [("F", 0, k[1][2])],
    "weighted_distances": lambda k, a: [("F", 0, [k[0][2][0], k[1][2][0]])],
}
