"""Twins of ops/exact.py: onto grids, exact sums and products, by rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from math import prod
from operator import mul

from mlchain.errors import Trap
from mlchain.ml_runtime.oracle.arithmetic import (
    Numbers,
    Operands,
    binary_exponent,
    on_grid,
    peak,
    twin,
)


@twin("quantise")
def _quantise(o: Operands) -> tuple[Numbers, ...]:
    largest = peak(o.ins[0])
    if not largest < 2.0**500:
        raise Trap("quantise: a value is not finite or reaches 2^500")
    if largest < 2.0**-400:
        return ([0.0] * len(o.ins[0]),)
    exponent = 1 + binary_exponent(Fraction(largest)) - (int(o.attrs[0]) - 1)
    return ([float(on_grid(v, exponent)) for v in o.ins[0]],)


@twin("saturate")
def _saturate(o: Operands) -> tuple[Numbers, ...]:
    if not peak(o.ins[0]) < math.inf:
        raise Trap("saturate: a value is not finite")
    bits, top = int(o.attrs[0]), int(o.attrs[1])
    exponent = top - (bits - 1)
    limit = float(Fraction(2) ** top - Fraction(2) ** exponent)
    return ([float(on_grid(min(max(v, -limit), limit), exponent)) for v in o.ins[0]],)


def _integers(values: Numbers) -> tuple[list[int], int]:
    """Return integers m and a denominator d with values = m / d, exactly."""
    ratios = [v.as_integer_ratio() for v in values]
    denominator = max(d for _, d in ratios)
    return [n * (denominator // d) for n, d in ratios], denominator


@twin("matmul")
def _matmul(o: Operands) -> tuple[Numbers, ...]:
    rows, columns = o.out[-2:]
    (a, da), (b, db) = (_integers(v) for v in o.ins)
    ta, tb = o.attrs
    scale, out = da * db, []
    sizes = [prod(shape[-2:]) for shape in o.shapes]
    for at in range(prod(o.out[:-2])):
        p, q = (v[at * n : (at + 1) * n] for v, n in zip((a, b), sizes, strict=True))
        wa, wb = (shape[-1] for shape in o.shapes)
        left = [p[i::wa] if ta else p[i * wa : (i + 1) * wa] for i in range(rows)]
        right = [q[j * wb : (j + 1) * wb] if tb else q[j::wb] for j in range(columns)]
        out += [float(Fraction(sum(map(mul, x, y)), scale)) for x in left for y in right]
    return (out,)


@twin("sum_axis")
def _sum_axis(o: Operands) -> tuple[Numbers, ...]:
    values, denominator = _integers(o.ins[0])
    axis, shape = int(o.attrs[0]), o.shapes[0]
    inner = prod(shape[axis + 1 :])
    sums = [0] * prod(o.out)
    for place, value in enumerate(values):
        outer, rest = divmod(place, inner * shape[axis])
        sums[outer * inner + rest % inner] += value
    return ([float(Fraction(total, denominator)) for total in sums],)


@twin("repeat")
def _repeat(o: Operands) -> tuple[Numbers, ...]:
    axis, count = (int(v) for v in o.attrs)
    inner = prod(o.shapes[0][axis:])
    parts = [o.ins[0][at : at + inner] for at in range(0, len(o.ins[0]), inner)]
    return ([v for part in parts for _ in range(count) for v in part],)


@twin("sum_rows")
def _sum_rows(o: Operands) -> tuple[Numbers, ...]:
    values, denominator = _integers(o.ins[0])
    width = o.out[0]
    return ([float(Fraction(sum(values[j::width]), denominator)) for j in range(width)],)


@twin("sum_all")
def _sum_all(o: Operands) -> tuple[Numbers, ...]:
    values, denominator = _integers(o.ins[0])
    return ([float(Fraction(sum(values), denominator))],)


@twin("spread")
def _spread(o: Operands) -> tuple[Numbers, ...]:
    return (o.ins[0] * len(o.ins[1]),)
