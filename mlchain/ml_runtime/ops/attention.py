"""Along the last axis: layer norm, the causal softmax, and their gradients.

Their sums round every row to a grid of its own, so a row's result depends on that row alone: in
training no exponent has to be agreed on, in inference no scale has to be fixed.
"""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from mlchain.ml_runtime import functions, grid
from mlchain.ml_runtime.builder import Builder, Emitted
from mlchain.ml_runtime.op import (
    Call,
    Op,
    Types,
    Values,
    most_elements,
    reals,
    register,
    require,
    require_exact,
    require_real,
)
from mlchain.ml_runtime.ops.losses import SoftmaxBase, normalise, sum_rows
from mlchain.ml_runtime.tensor import Array, finite

Grads = list[tuple[int, int]]

MAX_ROW = 8192
"""Longest row: at most functions.BLOCK, so that whole rows fit the workspace."""


def _require_rows(*ins: Types) -> None:
    """Reject what has no last axis, or one too long to sum exactly and to keep in the cache."""
    for (kind,) in ins:
        require_real(kind)
        require(len(kind.shape) >= 2, "takes rows: a tensor of two axes or more")
        require(kind.shape[-1] <= MAX_ROW, f"rows longer than {MAX_ROW}")
        require_exact(grid.SUM_BITS - 1, kind.shape[-1])


def _row_sums(x: Array, rounded: Array) -> Array:
    """Return the sum of every row, each first rounded to its own grid of 32 bits; rows x 1."""
    grid.quantise_rows(x, grid.SUM_BITS, rounded)
    return sum_rows(rounded)


@lru_cache(maxsize=8)
def _seen(first: int, rows: int, size: int) -> tuple[Array, Array]:
    """Return for some rows, the first being number `first`, what their places are bounded by.

    That is infinity where a row sees a place, else minus infinity; then the same as 1 and 0.
    """
    numbers = np.arange(first, first + rows) % size
    seen = np.less_equal(np.arange(size), numbers[:, None])
    return np.where(seen, np.inf, -np.inf), seen.astype(np.float64)


@register
class CausalSoftmax(SoftmaxBase):
    """softmax of the places 0 to i of row i of every square matrix; 0 in the places after it."""

    name = "causal_softmax"
    row_gas = 70

    def infer(self, ins: Types, attrs: Values) -> Types:
        shape = ins[0].shape
        require(len(shape) >= 2 and shape[-1] == shape[-2], "takes square matrices")
        return super().infer(ins, attrs)

    def forward(self, c: Call) -> None:
        at, size = 0, c.ins[0].shape[-1]
        for (z,), (out,), (terms, *_) in c.rows:
            bound, seen = _seen(at % size, len(z), size)
            at += len(z)
            np.fmin(z, bound, out)  # fmin passes over NaN
            np.subtract(out, np.maximum.reduce(out, axis=1, keepdims=True), out)
            functions.exp(out, out, c.scratch)
            np.multiply(out, seen, out)
            normalise(out, terms)

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(len(ins[0].shape) > 2, "one causal softmax cannot be split by rows")
        return "rows"


@register
class SoftmaxGradient(Op):
    """p (g - sum of g p): the gradient by the logits of either softmax, from (g, p)."""

    name, arity = "softmax_gradient", 2
    row_gas = 100
    source = "adjoint of softmax; the sum as in MLRT-1 rule 3 on a grid of 32 bits for each row"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_rows(*((t,) for t in ins))
        require(ins[0].shape == ins[1].shape, "shapes differ")
        return (finite(*ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 24000 + 8 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        for (g, p), (out,), (terms, *_) in c.rows:
            np.multiply(g, p, out)
            np.subtract(g, _row_sums(out, terms), out)
            np.multiply(out, p, out)


@register
class LayerNorm(Op):
    """y = (x - mean) r along the last axis, and r = 1 / sqrt(variance + epsilon) of every row.

    mean = sum of x / n; d = x - mean; variance = sum of d^2 / n.
    """

    name, arity = "layer_norm", 1
    row_gas = 130
    attributes = reals("epsilon")
    source = "Ba, Kiros, Hinton, arXiv:1607.06450, without gain and bias; sums as in MLRT-1 rule 3"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_rows(ins)
        require(2.0**-100 <= attrs[0] <= 1, "epsilon is not 2^-100 to 1")
        return finite(*ins[0].shape), finite(*ins[0].shape[:-1])

    def gas(self, ins: Types, outs: Types) -> int:
        return 36000 + 8 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        epsilon, n = c.attrs[0], float(c.ins[0].shape[-1])
        for (x,), (y, r), (square, rounded, *_) in c.rows:
            np.subtract(x, _row_sums(x, rounded) / n, y)
            np.multiply(y, y, square)
            np.divide(1.0, np.sqrt(_row_sums(square, rounded) / n + epsilon), r)
            np.multiply(y, r, y)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("layer_norm_gradient", g, *node.outputs))]


@register
class LayerNormGradient(Op):
    """((g - sum of g / n) - y (sum of g y / n)) r, from (g, y, r) of layer_norm."""

    name, arity = "layer_norm_gradient", 3
    row_gas = 180
    source = "adjoint of layer_norm"

    def infer(self, ins: Types, attrs: Values) -> Types:
        g, y, r = ins
        _require_rows((g,), (y,))
        require_real(r)
        require(
            g.shape == y.shape and r.shape == y.shape[:-1], "shapes are not those of layer_norm"
        )
        return (finite(*g.shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 36000 + 8 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        n = float(c.ins[0].shape[-1])
        for (g, y, r), (out,), (product, rounded, *_) in c.rows:
            mean = _row_sums(g, rounded) / n
            np.multiply(g, y, product)
            np.multiply(y, _row_sums(product, rounded) / n, product)
            np.subtract(g, mean, out)
            np.subtract(out, product, out)
            np.multiply(out, r, out)
