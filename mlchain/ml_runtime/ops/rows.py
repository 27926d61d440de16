"""Ops for which every row stands for itself: its grid, its sums.

A row on a grid of its own gives the same bits alone as in any batch, without scales that somebody
has to choose beforehand.
"""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from mlchain.ml_runtime import grid
from mlchain.ml_runtime.op import (
    MAX_BITS,
    MIN_BITS,
    Call,
    Op,
    Types,
    Values,
    integers,
    most_elements,
    register,
    require,
)
from mlchain.ml_runtime.tensor import row_grid


@register
class QuantiseRows(Op):
    """Round every row along the last axis to the grid of `bits` bits below its largest element."""

    name, arity = "quantise_rows", 1
    row_gas = 90
    attributes = integers("bits")
    source = "MLRT-1 rule 2, an exponent for each row"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require(MIN_BITS <= attrs[0] <= MAX_BITS, f"{attrs[0]} bits, not 2 to 48")
        require(ins[0].kind in "FGR", "takes F, G or R")
        require(len(ins[0].shape) >= 2, "takes rows: a tensor of two axes or more")
        return (row_grid(int(attrs[0]), *ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 10000 + 2 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        grid.quantise_rows(c.ins[0], int(c.attrs[0]), c.outs[0])
