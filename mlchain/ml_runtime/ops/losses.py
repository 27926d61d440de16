"""Softmax and the logarithmic loss, whose derivatives are taken together."""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from mlchain.ml_runtime import functions
from mlchain.ml_runtime.builder import Builder, Emitted
from mlchain.ml_runtime.op import (
    Call,
    Op,
    Types,
    Values,
    most_elements,
    register,
    require,
    require_exact,
    require_real,
)
from mlchain.ml_runtime.tensor import Array, finite

Grads = list[tuple[int, int]]

FRACTION_BITS = 40
"""Terms of a softmax denominator, all at most 1, are summed as multiples of 2^-40."""
_MAGIC = functions.constant(1.5 * 2.0 ** (52 - FRACTION_BITS))


def _require_labels(p: Types) -> None:
    scores, targets = p[0], p[1]
    require_real(scores)
    require(targets.kind == "I", "takes labels")
    require(len(scores.shape) == 2 and scores.shape[:1] == targets.shape, "one label per row")
    require(targets.bound <= scores.shape[1], "labels reach beyond the columns")


def _at_labels(p: Array, y: Array) -> Array:
    """Return the flat index of column y[i] in every row i of p."""
    return np.arange(0, p.size, p.shape[1]) + y


def normalise(e: Array, terms: Array) -> None:
    """Divide every row of e, numbers from 0 to 1, by the sum of its terms on the 2^-40 grid."""
    np.add(e, _MAGIC, terms)
    np.subtract(terms, _MAGIC, terms)
    np.divide(e, sum_rows(terms), e)


def sum_rows(x: Array) -> Array:
    """Return the exact sum of every row, rows x 1; BLAS adds short rows the quickest."""
    sums: Array = np.matmul(x, _ones(x.shape[1]))
    return sums


@lru_cache(maxsize=64)
def _ones(size: int) -> Array:
    return np.ones((size, 1))


class SoftmaxBase(Op):
    """What the two softmaxes share."""

    arity = 1
    source = "MLRT-1 rules 2, 5 and 6"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        require(len(ins[0].shape) >= 1, "takes rows")
        require_exact(FRACTION_BITS, ins[0].shape[-1])
        return (finite(*ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 30000 + 10 * most_elements(ins, outs)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("softmax_gradient", g, node.outputs[0]))]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(len(ins[0].shape) > 1, "a softmax over the rows cannot be split by rows")
        return "rows"


@register
class Softmax(SoftmaxBase):
    """exp(z - max z) / sum along the last axis; the terms of the sum are rounded to 2^-40."""

    name = "softmax"
    row_gas = 50

    def forward(self, c: Call) -> None:
        for (z,), (out,), (terms, *_) in c.rows:
            np.subtract(z, np.maximum.reduce(z, axis=1, keepdims=True), out)
            functions.exp(out, out, c.scratch)
            normalise(out, terms)


@register
class LogLoss(Op):
    """-log p[i, y_i] for every row i of a softmax p."""

    name, arity = "log_loss", 2
    source = "cross entropy; its gradient by the logits is p - onehot(y), free of 1/p"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_labels(ins)
        return (finite(ins[0].shape[0]),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 24000 + 10 * outs[0].elements

    def forward(self, c: Call) -> None:
        (p, y), out = c.ins, c.outs[0]
        functions.log(p.reshape(-1)[_at_labels(p, y)], out, c.scratch)
        np.negative(out, out=out)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        p, y = node.inputs
        producer = b.producer(p)
        if producer is None or producer.op != "softmax":
            require(False, "log_loss: has a gradient only after softmax")
            return []
        return [(producer.inputs[0], b.emit("softmax_residual", p, y, g))]


@register
class SoftmaxResidual(Op):
    """(p - onehot(y)) * g, g one number per row."""

    name, arity = "softmax_residual", 3
    source = "adjoint of softmax then log_loss"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_labels(ins)
        require_real(ins[2])
        require(ins[2].shape == ins[1].shape, "one factor per row")
        return (finite(*ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 9000 + most_elements(ins, outs) + 5 * ins[1].elements

    def forward(self, c: Call) -> None:
        (p, y, g), out = c.ins, c.outs[0]
        np.copyto(out, p)
        out.reshape(-1)[_at_labels(p, y)] -= 1.0
        np.multiply(out, g[:, None], out=out)


@register
class LogisticLoss(Op):
    """(max(s, 0) - s t) + log(1 + exp(-|s|)) for scores s and targets t of 0 or 1."""

    name, arity = "logistic_loss", 2
    source = "MLRT-1 rule 5; its gradient by the scores is sigmoid(s) - t"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        require(ins[0].shape == ins[1].shape, "scores and targets differ in shape")
        return (finite(*ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 36000 + 20 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        (s, t), out = c.ins, c.outs[0]
        tail = np.absolute(s, out=np.empty_like(s))
        np.negative(tail, out=tail)
        functions.exp(tail, tail, c.scratch)
        np.add(tail, 1.0, out=tail)
        functions.log(tail, tail, c.scratch)
        np.multiply(s, t, out=out)
        np.subtract(np.maximum(s, 0.0), out, out=out)
        np.add(out, tail, out=out)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        s, t = node.inputs
        excess = b.emit("subtract", b.emit("sigmoid", s), t)
        return [(s, b.emit("multiply", excess, g))]
