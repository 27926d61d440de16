"""Attributes that fit a tensor: random choices alone would hardly ever be accepted."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import prod

from mlchain.ml_runtime.tensor import Type

Attributes = dict[str, int | float]


def _dims(values: list[int], fill: list[int]) -> Attributes:
    return dict(zip(("d0", "d1", "d2", "d3"), (*values, *fill[len(values) :]), strict=True))


def _reshape(r: random.Random, kind: Type) -> Attributes:
    shape = list(kind.shape) or [1]
    if len(shape) > 1 and r.random() < 0.5:  # two neighbours become one
        at = r.randrange(len(shape) - 1)
        shape[at : at + 2] = [prod(shape[at : at + 2])]
    elif len(shape) < 4:  # one becomes two
        at = r.randrange(len(shape))
        divisor = r.choice([d for d in range(1, shape[at] + 1) if shape[at] % d == 0])
        shape[at : at + 1] = [divisor, shape[at] // divisor]
    return _dims(shape, [0] * 4)


def _transpose(r: random.Random, kind: Type) -> Attributes:
    return _dims(r.sample(range(len(kind.shape)), len(kind.shape)), [0, 1, 2, 3])


def _axis(r: random.Random, kind: Type) -> int:
    return r.randrange(max(1, len(kind.shape)))


def _slice(r: random.Random, kind: Type) -> Attributes:
    axis = _axis(r, kind)
    size = (kind.shape or (1,))[axis]
    start = r.randrange(size)
    return {"axis": axis, "start": start, "stop": r.randint(start + 1, size)}


def _window(r: random.Random, kind: Type) -> Attributes:
    _, height, width, _ = (*kind.shape, 1, 1, 1, 1)[:4]
    return {
        "kernel_height": r.randint(1, min(3, height)),
        "kernel_width": r.randint(1, min(3, width)),
        "stride": r.randint(1, 3),
    }


def _divisor(r: random.Random, value: int) -> int:
    return r.choice([d for d in range(1, value + 1) if value % d == 0])


def _around(r: random.Random, rows: int, columns: int, kh: int, kw: int) -> Attributes:
    """Images of which so many windows are taken, perhaps with pixels left over."""
    stride = r.randint(1, 3)
    return {
        "height": (rows - 1) * stride + kh + r.randrange(stride),
        "width": (columns - 1) * stride + kw + r.randrange(stride),
        "kernel_height": kh,
        "kernel_width": kw,
        "stride": stride,
    }


def _col2im(r: random.Random, kind: Type) -> Attributes:
    count, width = (*kind.shape, 1, 1)[:2]
    rows = _divisor(r, count)
    kh = _divisor(r, width)
    return _around(r, rows, _divisor(r, count // rows), kh, _divisor(r, width // kh))


def _average_pool_gradient(r: random.Random, kind: Type) -> Attributes:
    _, rows, columns, _ = (*kind.shape, 1, 1, 1, 1)[:4]
    return _around(r, rows, columns, r.randint(1, 3), r.randint(1, 3))


FITTING: dict[str, Callable[[random.Random, Type], Attributes]] = {
    "average_pool": _window,
    "average_pool_gradient": _average_pool_gradient,
    "col2im": _col2im,
    "concatenate": lambda r, kind: {"axis": _axis(r, kind)},
    "dropout": lambda r, kind: {"index": r.randrange(3), "keep": r.choice([1, 40000, 65536])},
    "im2col": _window,
    "index": lambda r, kind: {"count": r.choice([3, 100]), "exponent": r.choice([0, 4])},
    "max_pool": _window,
    "pad": lambda r, kind: {
        "axis": _axis(r, kind),
        "before": r.randrange(3),
        "after": r.randrange(3),
    },
    "repeat": lambda r, kind: {"axis": r.randint(0, len(kind.shape)), "count": r.randint(1, 3)},
    "reshape": _reshape,
    "scatter_add": lambda r, kind: {"rows": r.randint(4, 9)},
    "slice": _slice,
    "sum_axis": lambda r, kind: {"axis": _axis(r, kind)},
    "transpose": _transpose,
}
"""By op: attributes for a first input of some type."""
