"""The part of `second_runtime` that moves elements and sums along axes, from the page alone."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

Numbers = list[Any]
Shape = list[int]


def tensor(x: Numbers, shape: Shape) -> dict[tuple[int, ...], Any]:
    """Return elements by their index."""
    return dict(zip(product(*map(range, shape)), x, strict=True))


def elements(shape: Shape, element: Any) -> list[Numbers]:
    """Return the one result of an op whose element at an index is `element(index)`."""
    return [[element(list(index)) for index in product(*map(range, shape))]]


def total(x: Numbers) -> float:
    return float(sum(map(Fraction, x)))


def replaced(shape: Shape, axis: int, *size: int) -> Shape:
    return [*shape[:axis], *size, *shape[axis + 1 :]]


def dimensions(attrs: list[int]) -> Shape:
    return attrs[: (*attrs, 0).index(0)]


def transpose(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    t, rank = tensor(x[0], s[0]), len(s[0])

    def element(i: list[int]) -> Any:
        source = [0] * rank
        for axis, d in enumerate(a[:rank]):
            source[d] = i[axis]
        return t[tuple(source)]

    return elements([s[0][d] for d in a[:rank]], element)


def slice_(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    t, (axis, start, stop) = tensor(x[0], s[0]), a
    return elements(
        replaced(s[0], axis, stop - start), lambda i: t[tuple(replaced(i, axis, i[axis] + start))]
    )


def pad(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    t, (axis, before, after) = tensor(x[0], s[0]), a
    return elements(
        replaced(s[0], axis, before + s[0][axis] + after),
        lambda i: t.get(tuple(replaced(i, axis, i[axis] - before)), 0),
    )


def concatenate(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    (axis,), size = a, s[0][a[0]]
    t, u = (tensor(v, shape) for v, shape in zip(x, s, strict=True))
    return elements(
        replaced(s[0], axis, size + s[1][axis]),
        lambda i: t[tuple(i)] if i[axis] < size else u[tuple(replaced(i, axis, i[axis] - size))],
    )


def sum_axis(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    t, (axis,) = tensor(x[0], s[0]), a
    return elements(
        replaced(s[0], axis),
        lambda i: total([t[(*i[:axis], j, *i[axis:])] for j in range(s[0][axis])]),
    )


def repeat(x: list[Numbers], s: list[Shape], a: list[int]) -> list[Numbers]:
    t, (axis, count) = tensor(x[0], s[0]), a
    return elements(
        [*s[0][:axis], count, *s[0][axis:]], lambda i: t[tuple(i[:axis] + i[axis + 1 :])]
    )


OPS: dict[str, Any] = {
    "concatenate": concatenate,
    "pad": pad,
    "repeat": repeat,
    "reshape": lambda x, s, a: x,
    "slice": slice_,
    "sum_axis": sum_axis,
    "transpose": transpose,
}


def keeps(shape: Any) -> Any:
    """The kind of the first input in another shape; F for R."""
    return lambda k, a: [(*(("F", 0) if k[0][0] == "R" else k[0][:2]), shape(k[0][2], a))]


def joined(k: list[Any], a: list[int]) -> list[Any]:
    shape = replaced(k[0][2], a[0], k[0][2][a[0]] + k[1][2][a[0]])
    real = k[0][0] in "FGR"
    return [("F", 0, shape) if real else (k[0][0], k[0][1], shape)]


KINDS: dict[str, Any] = {
    "concatenate": joined,
    "pad": keeps(lambda s, a: replaced(s, a[0], a[1] + s[a[0]] + a[2])),
    "repeat": keeps(lambda s, a: [*s[: a[0]], a[1], *s[a[0] :]]),
    "reshape": keeps(lambda s, a: dimensions(a)),
    "slice": keeps(lambda s, a: replaced(s, a[0], a[2] - a[1])),
    "sum_axis": lambda k, a: [("F", 0, replaced(k[0][2], a[0]))],
    "transpose": keeps(lambda s, a: [s[d] for d in a[: len(s)]]),
}
