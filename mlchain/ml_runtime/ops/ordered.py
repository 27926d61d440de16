"""Ops whose sums are rounded at every term, in an order that is part of the definition.

They are for what no grid can hold: terms of very different size, and sums that feed on themselves.
Each row of a result comes from one row of the input, or nothing is split at all.
"""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.errors import Trap
from mlchain.ml_runtime.functions import BLOCK, Scratch
from mlchain.ml_runtime.op import Call, Op, Types, Values, register, require, require_real
from mlchain.ml_runtime.tensor import Array, finite

TILE = 8192
"""Most centres, and most rows of a system: what is worked on at a time fits the scratch."""
assert TILE <= BLOCK


def _tiles(scratch: Scratch, rows: int, columns: int) -> list[Array]:
    """Return work space of a shape, four times, whose longer side is contiguous."""
    flat = [row[: rows * columns] for row in scratch.rows(BLOCK)[0]]
    if rows > columns:
        return [row.reshape(columns, rows).T for row in flat]
    return [row.reshape(rows, columns) for row in flat]


@register
class WeightedDistances(Op):
    """Sum over j of ((x[i, j] - c[k, j]) squared) w[k, j], from j = 0 on: rows x centres."""

    name, arity = "weighted_distances", 3
    source = "MLRT-1 rule 5; the exponent of a normal distribution with independent features"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        x, centres, weights = (t.shape for t in ins)
        require(len(x) == len(centres) == 2 and x[1] == centres[1], "rows and centres do not fit")
        require(weights == centres, "one weight for each number of a centre")
        require(centres[0] <= TILE, f"{centres[0]} centres, at most {TILE}")
        return (finite(x[0], centres[0]),)

    def gas(self, ins: Types, outs: Types) -> int:
        rows, features = ins[0].shape
        centres = ins[1].shape[0]
        passes = -(-rows // (TILE // centres))
        return 4000 + 6000 * features * passes + 3 * rows * features * centres

    def forward(self, c: Call) -> None:
        (x, centres, weights), out = c.ins, c.outs[0]
        columns, factors = centres.T.copy(), weights.T.copy()
        rows = TILE // len(centres)
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            total, term, *_ = _tiles(c.scratch, len(part), len(centres))
            total.fill(0.0)
            for j, (centre, factor) in enumerate(zip(columns, factors, strict=True)):
                np.subtract(part[:, j : j + 1], centre, out=term)
                np.multiply(term, term, out=term)
                np.multiply(term, factor, out=term)
                np.add(total, term, out=total)
            np.copyto(out[start : start + rows], total)

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(split[0] and not split[1] and not split[2], "only the rows of x can be split")
        return "rows"


class _Whole(Op):
    """An op on the matrices of a system of equations, which no shard has a part of."""

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(False, "a system of equations cannot be split by rows")
        return ""


@register
class Cholesky(_Whole):
    """L with L times its transpose = A, for a symmetric A of which the upper part is not read."""

    name, arity = "cholesky", 1
    source = "MLRT-1 rule 5; Golub, Van Loan, Matrix Computations, algorithm 4.2.2 (outer product)"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        require(len(ins[0].shape) == 2, "takes a matrix")
        size, width = ins[0].shape
        require(size == width <= TILE, f"takes a square matrix of at most {TILE} rows")
        return (finite(size, size),)

    def gas(self, ins: Types, outs: Types) -> int:
        size = ins[0].shape[0]
        return 4000 + 16000 * size + size**3

    def forward(self, c: Call) -> None:
        lower = c.outs[0]
        np.copyto(lower, c.ins[0])
        size = len(lower)
        for k in range(size):
            pivot = lower[k, k]
            if not 0 < pivot < np.inf:
                raise Trap("cholesky: the matrix is not positive definite")
            root = np.sqrt(pivot)
            lower[k, k] = root
            lower[k, k + 1 :] = 0.0
            column = np.divide(lower[k + 1 :, k], root)
            lower[k + 1 :, k] = column
            step = TILE // max(1, len(column))
            for start in range(0, len(column), step):
                part = column[start : start + step]
                stop = start + len(part)
                rest = lower[k + 1 + start : k + 1 + stop, k + 1 : k + 1 + stop]
                spent = _tiles(c.scratch, *rest.shape)[0]
                np.multiply(part[:, None], column[:stop], out=spent)
                np.subtract(rest, spent, out=rest)


@register
class CholeskySolve(_Whole):
    """X with L times its transpose times X = B, forward and then backward."""

    name, arity, in_place = "cholesky_solve", 2, False
    source = "MLRT-1 rule 5; Golub, Van Loan, Matrix Computations, section 3.1 (column-oriented)"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        lower, right = (t.shape for t in ins)
        require(len(lower) == len(right) == 2, "takes two matrices")
        require(lower[0] == lower[1] == right[0] <= TILE, "the factor does not fit the right side")
        return (finite(*right),)

    def gas(self, ins: Types, outs: Types) -> int:
        size, columns = outs[0].shape
        return 4000 + 16000 * size + 4 * size * size * columns

    def forward(self, c: Call) -> None:
        lower, x = c.ins[0], c.outs[0]
        np.copyto(x, c.ins[1])
        for k in range(len(x)):
            _eliminate(x, k, lower[k, k], slice(k + 1, None), lower[k + 1 :, k])
        for k in reversed(range(len(x))):
            _eliminate(x, k, lower[k, k], slice(0, k), lower[k, :k])


def _eliminate(x: Array, k: int, pivot: float, others: slice, column: Array) -> None:
    np.divide(x[k], pivot + 0.0, out=x[k])
    np.subtract(x[others], column[:, None] * x[k], out=x[others])
