"""The part of `second_runtime` for neural nets, from the page alone."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

Numbers = list[Any]
Shape = list[int]


class Trapped(Exception):
    """Rule 8."""


def cut(x: Numbers, size: int) -> list[Numbers]:
    return [x[i : i + size] for i in range(0, len(x), size)]


def row_sum(row: Numbers) -> float:
    """Rule 3: a row on its own grid of 32 bits, then the exact sum."""
    largest = math.nan if any(v != v for v in row) else max(map(abs, row))
    if not largest < 2.0**500:
        raise Trapped
    if largest < 2.0**-400:
        return 0.0
    unit = Fraction(2) ** (math.frexp(largest)[1] - 31)
    return float(sum(round(Fraction(v) / unit) for v in row) * unit)


def softmax_gradient(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    out: Numbers = []
    for g, p in zip(*(cut(v, s[0][-1]) for v in x), strict=True):
        total = row_sum([v * w for v, w in zip(g, p, strict=True)])
        out += [w * (v - total) for v, w in zip(g, p, strict=True)]
    return [out]


def layer_norm(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    n, (epsilon,) = s[0][-1], struct.unpack("<d", struct.pack("<q", a[0]))
    ys: Numbers = []
    rs: Numbers = []
    for row in cut(x[0], n):
        mean = row_sum(row) / n
        d = [v - mean for v in row]
        rs.append(1 / math.sqrt(row_sum([v * v for v in d]) / n + epsilon))
        ys += [v * rs[-1] for v in d]
    return [ys, rs]


def layer_norm_gradient(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    n, out = s[0][-1], []
    for g, y, r in zip(cut(x[0], n), cut(x[1], n), x[2], strict=True):
        m = row_sum(g) / n
        k = row_sum([v * w for v, w in zip(g, y, strict=True)]) / n
        out += [((v - m) - (w * k)) * r for v, w in zip(g, y, strict=True)]
    return [out]


def index(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    if not all(math.isfinite(v) for v in x[0]):
        raise Trapped
    out = [round(Fraction(v) * 2 ** a[1]) for v in x[0]]
    if not all(0 <= k < a[0] for k in out):
        raise Trapped
    return [out]


def gather(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    rows = cut(x[0], math.prod(s[0][1:]))
    return [[v for k in x[1] for v in rows[k]]]


def scatter_add(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    size = math.prod(s[0][len(s[1]) :])
    sums = [Fraction(0)] * (a[0] * size)
    for k, part in zip(x[1], cut(x[0], size), strict=True):
        for j, v in enumerate(part):
            sums[k * size + j] += Fraction(v)
    return [[float(v) for v in sums]]


_WORD = 2**64 - 1


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Rule 9."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(b >> 64) ^ c[1] ^ k[0], b & _WORD, (a >> 64) ^ c[3] ^ k[1], a & _WORD]
        k = [(k[0] + 0x9E3779B97F4A7C15) & _WORD, (k[1] + 0xBB67AE8584CAA73B) & _WORD]
    return c


def dropout(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    values, key, clock = x
    if not all(math.isfinite(v) for v in (*key, *clock)):
        raise Trapped
    words = struct.unpack("<2Q", struct.pack("<4f", *key))
    step = struct.unpack("<I", struct.pack("<f", clock[0]))[0]
    out = []
    for e, v in enumerate(values):
        raw = struct.pack("<4Q", *philox((e // 16, step, a[0], 0), words))
        lane = struct.unpack("<16H", raw)[e % 16]
        out.append(v * (65536 / a[1] if lane < a[1] else 0.0))
    return [out]


# ---- windows: pixels of place (i, j) of window (r, c) are at r stride + i, c stride + j ----------


def count(size: int, kernel: int, stride: int) -> int:
    return (size - kernel) // stride + 1


def pixels(shape: Shape, window: list[int]) -> list[list[list[int]]]:
    """Return by place of a window, then by window: where its channels are, in C order."""
    n, height, width, channels = shape
    kh, kw, stride = window
    rows, columns = range(count(height, kh, stride)), range(count(width, kw, stride))
    firsts = [
        [
            ((m * height + r * stride + i) * width + c * stride + j) * channels
            for m, r, c in product(range(n), rows, columns)
        ]
        for i, j in product(range(kh), range(kw))
    ]
    return [[list(range(first, first + channels)) for first in place] for place in firsts]


def im2col(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    rows = zip(*pixels(s[0], a), strict=True)
    return [[x[0][k] for row in rows for place in row for k in place]]


def added(shape: Shape, window: list[int], parts: list[list[Numbers]]) -> list[Numbers]:
    """Add, place after place, what each window has for its channels there."""
    out = [0.0] * math.prod(shape)
    for places, values in zip(pixels(shape, window), parts, strict=True):
        for at, part in zip(places, values, strict=True):
            for k, v in zip(at, part, strict=True):
                out[k] = out[k] + v
    return [out]


def col2im(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    shape = images("col2im", s[0], a)
    rows = [cut(row, shape[3]) for row in cut(x[0], s[0][1])]
    return added(shape, a[2:], [list(part) for part in zip(*rows, strict=True)])


def images(op: str, shape: Shape, a: list[int]) -> Shape:
    height, width, kh, kw, stride = a
    if op == "average_pool_gradient":
        return [shape[0], height, width, shape[3]]
    windows = count(height, kh, stride) * count(width, kw, stride)
    return [shape[0] // windows, height, width, shape[1] // (kh * kw)]


def max_pool(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    flat = [[x[0][k] for at in places for k in at] for places in pixels(s[0], a)]
    columns = zip(*flat, strict=True)
    return [[math.nan if any(v != v for v in c) else max(c) for c in columns]]


def max_pool_gradient(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    (g, v, y), channels = x, s[1][3]
    free, parts = [True] * len(g), []
    for places in pixels(s[1], a):
        here = [v[k] for at in places for k in at]
        part = []
        for n, value in enumerate(here):
            won = free[n] and value == y[n]
            free[n] = free[n] and not won
            part.append(g[n] * (1.0 if won else 0.0))
        parts.append(cut(part, channels))
    return added(s[1], a, parts)


def average_pool(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    flat = [[x[0][k] for at in places for k in at] for places in pixels(s[0], a)]
    out = flat[0]
    for part in flat[1:]:
        out = [v + w for v, w in zip(out, part, strict=True)]
    return [[v * (1 / (a[0] * a[1])) for v in out]]


def average_pool_gradient(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    part = cut([v * (1 / (a[2] * a[3])) for v in x[0]], s[0][3])
    return added(images("average_pool_gradient", s[0], a), a[2:], [part] * (a[2] * a[3]))


OPS: dict[str, Any] = {
    "average_pool": average_pool,
    "average_pool_gradient": average_pool_gradient,
    "col2im": col2im,
    "dropout": dropout,
    "gather": gather,
    "im2col": im2col,
    "index": index,
    "layer_norm": layer_norm,
    "layer_norm_gradient": layer_norm_gradient,
    "max_pool": max_pool,
    "max_pool_gradient": max_pool_gradient,
    "scatter_add": scatter_add,
    "softmax_gradient": softmax_gradient,
}


def moved(kind: Any, shape: Shape) -> Any:
    """Moved elements keep kind and bound; R becomes F."""
    return ("F", 0, shape) if kind[0] == "R" else (kind[0], kind[1], shape)


def pooled(k: list[Any], a: list[int]) -> list[Any]:
    n, height, width, channels = k[0][2]
    return [("F", 0, [n, count(height, a[0], a[2]), count(width, a[1], a[2]), channels])]


def rows_of_windows(k: list[Any], a: list[int]) -> list[Any]:
    n, rows, columns, channels = pooled(k, a)[0][2]
    return [moved(k[0], [n * rows * columns, a[0] * a[1] * channels])]


KINDS: dict[str, Any] = {
    "average_pool": pooled,
    "average_pool_gradient": lambda k, a: [("F", 0, images("average_pool_gradient", k[0][2], a))],
    "col2im": lambda k, a: [("F", 0, images("col2im", k[0][2], a))],
    "gather": lambda k, a: [moved(k[0], [*k[1][2], *k[0][2][1:]])],
    "gelu": lambda k, a: [("F", 0, k[0][2])] * 2,
    "im2col": rows_of_windows,
    "index": lambda k, a: [("I", a[0], k[0][2])],
    "layer_norm": lambda k, a: [("F", 0, k[0][2]), ("F", 0, k[0][2][:-1])],
    "max_pool": pooled,
    "max_pool_gradient": lambda k, a: [("F", 0, k[1][2])],
    "scatter_add": lambda k, a: [("F", 0, [a[0], *k[0][2][len(k[1][2]) :]])],
}
