"""The part of `second_runtime` that compares and chooses, from the page alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Numbers = list[Any]


def each(f: Callable[[float], float]) -> Any:
    return lambda x, s, a: [[f(v) for v in x[0]]]


def suffix(f: Callable[[float, float], float]) -> Any:
    """y has the shape of x or of its last axes."""
    return lambda x, s, a: [[f(v, x[1][i % len(x[1])]) for i, v in enumerate(x[0])]]


def whole(f: Callable[[float], float]) -> Any:
    return each(lambda v: float(f(v)) if math.isfinite(v) else v)


def divide(v: float, w: float) -> float:
    if w != 0:
        return v / w
    return math.nan if v == 0 or v != v else math.copysign(math.inf, v)


def compare(x: list[Numbers], shapes: list[list[int]], attrs: list[int]) -> list[Numbers]:
    holds = (lambda v, w: v < w, lambda v, w: v <= w, lambda v, w: v == w)[attrs[0]]
    return suffix(lambda v, w: 1.0 if holds(v, w) else 0.0)(x, shapes, attrs)


def select(x: list[Numbers], shapes: list[list[int]], attrs: list[int]) -> list[Numbers]:
    condition, a, b = x
    picks = (condition[i % len(condition)] > 0 for i in range(len(a)))
    return [[a[i] if pick else b[i % len(b)] for i, pick in enumerate(picks)]]


def best(row: Numbers) -> int:
    """Rule 8; a NaN counts as the largest."""
    return next((i for i, v in enumerate(row) if v != v), row.index(max(row)))


def of_rows(f: Callable[[Numbers], Any]) -> Any:
    def apply(x: list[Numbers], s: list[list[int]], a: list[int]) -> list[Numbers]:
        columns = s[0][-1]
        return [[f(x[0][i : i + columns]) for i in range(0, len(x[0]), columns)]]

    return apply


OPS: dict[str, Any] = {
    "absolute": each(abs),
    "argmax": of_rows(best),
    "compare": compare,
    "divide": suffix(divide),
    "floor": whole(math.floor),
    "maximum": suffix(lambda v, w: v if v != v or v > w else w),
    "minimum": suffix(lambda v, w: v if v != v or v < w else w),
    "one_hot": lambda x, s, a: [[float(y == c) for y in x[0] for c in range(a[0])]],
    "positions": lambda x, s, a: [[float(i) for i in range(a[0])]],
    "rint": whole(round),
    "row_maximum": of_rows(lambda row: row[best(row)]),
    "select": select,
    "square_root": each(lambda v: math.sqrt(v) if v >= 0 else math.nan),
}

KINDS: dict[str, Any] = {
    "argmax": lambda k, a: [("I", k[0][2][-1], k[0][2][:-1])],
    "compare": lambda k, a: [("G", 2, k[0][2])],
    "one_hot": lambda k, a: [("G", 2, [*k[0][2], a[0]])],
    "positions": lambda k, a: [("G", max(2, (a[0] - 1).bit_length() + 1), [a[0]])],
    "row_maximum": lambda k, a: [("F", 0, k[0][2][:-1])],
    "select": lambda k, a: [("F", 0, k[1][2])],
}
