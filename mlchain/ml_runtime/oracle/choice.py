"""Twins of ops/choice.py."""

from __future__ import annotations

import math
import operator

from mlchain.ml_runtime.oracle.arithmetic import (
    Numbers,
    Operands,
    divide,
    each,
    maximum,
    minimum,
    sqrt,
    twin,
)
from mlchain.ml_runtime.oracle.elementwise import broadcast


def _divide(x: float, y: float) -> float:
    return divide(x, y + 0.0)


def _smaller(x: float, y: float) -> float:
    return y if y != y else minimum(x, y)


def _larger(x: float, y: float) -> float:
    return y if y != y else maximum(x, y)


def _floor(x: float) -> float:
    return float(math.floor(x)) if math.isfinite(x) else x


def _rint(x: float) -> float:
    return float(round(x)) if math.isfinite(x) else x


@twin("compare")
def _compare(o: Operands) -> tuple[Numbers, ...]:
    holds = (operator.lt, operator.le, operator.eq)[int(o.attrs[0])]
    x, y = o.ins
    return ([float(holds(a, b)) for a, b in zip(x, y * (len(x) // len(y)), strict=True)],)


@twin("select")
def _select(o: Operands) -> tuple[Numbers, ...]:
    size = len(o.ins[1])
    condition, a, b = (values * (size // len(values)) for values in o.ins)
    return ([x if c > 0 else y for c, x, y in zip(condition, a, b, strict=True)],)


@twin("one_hot")
def _one_hot(o: Operands) -> tuple[Numbers, ...]:
    return ([float(y == c) for y in o.ins[0] for c in range(o.out[-1])],)


def _rows(o: Operands) -> list[Numbers]:
    width = o.shapes[0][-1]
    return [o.ins[0][i : i + width] for i in range(0, len(o.ins[0]), width)]


def _largest(row: Numbers) -> float:
    return next((v for v in row if v != v), max(row))


@twin("argmax")
def _argmax(o: Operands) -> tuple[Numbers, ...]:
    places: Numbers = []
    for row in _rows(o):
        best = _largest(row)
        places.append(next(i for i, v in enumerate(row) if v == best or v != v))
    return (places,)


@twin("row_maximum")
def _row_maximum(o: Operands) -> tuple[Numbers, ...]:
    return ([_largest(row) for row in _rows(o)],)


@twin("positions")
def _positions(o: Operands) -> tuple[Numbers, ...]:
    return ([float(i) for i in range(o.out[0])],)


broadcast("divide", _divide)
broadcast("minimum", _smaller)
broadcast("maximum", _larger)
each("square_root", sqrt)
each("absolute", abs)
each("floor", _floor)
each("rint", _rint)
