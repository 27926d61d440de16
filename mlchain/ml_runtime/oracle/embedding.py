"""Twins of ops/embedding.py."""

from __future__ import annotations

import math
from fractions import Fraction
from math import prod

from mlchain.errors import Trap
from mlchain.ml_runtime.oracle.arithmetic import Numbers, Operands, round_half_even, twin


@twin("index")
def _index(o: Operands) -> tuple[Numbers, ...]:
    count, exponent = (int(v) for v in o.attrs)
    out: Numbers = []
    for value in o.ins[0]:
        index = round_half_even(Fraction(value) * 2**exponent) if math.isfinite(value) else -1
        if not 0 <= index < count:
            raise Trap("index: a number is no index of the table")
        out.append(index)
    return (out,)


@twin("gather")
def _gather(o: Operands) -> tuple[Numbers, ...]:
    table, index = o.ins
    width = prod(o.shapes[0][1:])
    return ([v for i in index for v in table[int(i) * width : (int(i) + 1) * width]],)


@twin("scatter_add")
def _scatter_add(o: Operands) -> tuple[Numbers, ...]:
    g, index = o.ins
    width = prod(o.out[1:])
    sums = [Fraction(0)] * prod(o.out)
    for place, i in enumerate(index):
        for j in range(width):
            sums[int(i) * width + j] += Fraction(g[place * width + j])
    return ([float(total) for total in sums],)
