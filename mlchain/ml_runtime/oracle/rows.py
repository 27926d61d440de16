"""Twins of ops/rows.py: every row by itself, by rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

from mlchain.errors import Trap
from mlchain.ml_runtime.oracle.arithmetic import (
    Numbers,
    Operands,
    binary_exponent,
    on_grid,
    peak,
    twin,
)


def rows_of(values: Numbers, width: int) -> list[Numbers]:
    """Return the rows of a tensor, a row being `width` numbers along the last axis."""
    return [values[i : i + width] for i in range(0, len(values), width)]


@twin("quantise_rows")
def _quantise_rows(o: Operands) -> tuple[Numbers, ...]:
    rows = rows_of(o.ins[0], o.shapes[0][-1])
    peaks = [peak(row) for row in rows]
    if not all(largest < 2.0**500 for largest in peaks):
        raise Trap("quantise_rows: a value is not finite or reaches 2^500")
    out: Numbers = []
    for row, largest in zip(rows, peaks, strict=True):
        if largest < 2.0**-400:
            out += [0.0] * len(row)
            continue
        exponent = 1 + binary_exponent(Fraction(largest)) - (int(o.attrs[0]) - 1)
        out += [float(on_grid(v, exponent)) for v in row]
    return (out,)
