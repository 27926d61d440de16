"""Twins of ops/attention.py and of softmax: row by row, sums as rational numbers."""

from __future__ import annotations

import math
from fractions import Fraction

from mlchain.errors import Trap
from mlchain.ml_runtime import functions
from mlchain.ml_runtime.oracle.arithmetic import (
    Numbers,
    Operands,
    binary_exponent,
    divide,
    exp_scaled,
    on_grid,
    peak,
    sqrt,
    twin,
)


def rows_of(values: Numbers, width: int) -> list[Numbers]:
    """Return values cut into rows."""
    return [values[i : i + width] for i in range(0, len(values), width)]


def _row_sum(row: Numbers) -> float:
    """Return the sum of a row rounded to its own grid of 32 bits."""
    largest = peak(row)
    if not largest < 2.0**500:
        raise Trap("quantise_rows: a value is not finite or reaches 2^500")
    if largest < 2.0**-400:
        return 0.0
    exponent = 1 + binary_exponent(Fraction(largest)) - 31
    return float(sum(on_grid(v, exponent) for v in row))


def _softmax_row(row: Numbers) -> Numbers:
    largest = math.nan if any(v != v for v in row) else max(row)
    terms = [exp_scaled(v - largest, functions.LOG2E) for v in row]
    if any(t != t for t in terms):
        return [math.nan] * len(row)
    total = float(sum(on_grid(t, -40) for t in terms))
    return [divide(t, total) for t in terms]


@twin("softmax")
def _softmax(o: Operands) -> tuple[Numbers, ...]:
    return ([p for row in rows_of(o.ins[0], o.out[-1]) for p in _softmax_row(row)],)


@twin("causal_softmax")
def _causal_softmax(o: Operands) -> tuple[Numbers, ...]:
    out: Numbers = []
    width = o.out[-1]
    for i, row in enumerate(rows_of(o.ins[0], width)):
        seen = i % width + 1
        p = _softmax_row(row[:seen])
        rest = math.nan if any(v != v for v in p) else 0.0
        out += p + [rest] * (width - seen)
    return (out,)


@twin("softmax_gradient")
def _softmax_gradient(o: Operands) -> tuple[Numbers, ...]:
    out: Numbers = []
    for g, p in zip(*(rows_of(v, o.out[-1]) for v in o.ins), strict=True):
        total = _row_sum([a * b for a, b in zip(g, p, strict=True)])
        out += [(a - total) * b for a, b in zip(g, p, strict=True)]
    return (out,)


@twin("layer_norm")
def _layer_norm(o: Operands) -> tuple[Numbers, ...]:
    normal: Numbers = []
    factors: Numbers = []
    n = float(o.out[-1])
    for row in rows_of(o.ins[0], o.out[-1]):
        mean = _row_sum(row) / n
        centred = [v - mean for v in row]
        r = divide(1.0, sqrt(_row_sum([v * v for v in centred]) / n + o.attrs[0]))
        normal += [v * r for v in centred]
        factors.append(r)
    return normal, factors


@twin("layer_norm_gradient")
def _layer_norm_gradient(o: Operands) -> tuple[Numbers, ...]:
    out: Numbers = []
    width = o.out[-1]
    for g, y, r in zip(rows_of(o.ins[0], width), rows_of(o.ins[1], width), o.ins[2], strict=True):
        mean = _row_sum(g) / float(width)
        slope = _row_sum([a * b for a, b in zip(g, y, strict=True)]) / float(width)
        out += [((a - mean) - b * slope) * r for a, b in zip(g, y, strict=True)]
    return (out,)
