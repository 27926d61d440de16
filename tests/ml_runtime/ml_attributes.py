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


FITTING: dict[str, Callable[[random.Random, Type], Attributes]] = {
    "concatenate": lambda r, kind: {"axis": _axis(r, kind)},
    "pad": lambda r, kind: {
        "axis": _axis(r, kind),
        "before": r.randrange(3),
        "after": r.randrange(3),
    },
    "repeat": lambda r, kind: {"axis": r.randint(0, len(kind.shape)), "count": r.randint(1, 3)},
    "reshape": _reshape,
    "slice": _slice,
    "sum_axis": lambda r, kind: {"axis": _axis(r, kind)},
    "transpose": _transpose,
}
"""By op: attributes for a first input of some type."""
