"""Integers as inputs: numbers read as indices, rows of a table, and their gradient."""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.errors import Trap
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.builder import Builder, Emitted
from mlchain.ml_runtime.op import (
    Call,
    Op,
    Types,
    Values,
    integers,
    most_elements,
    register,
    require,
    require_exact,
    require_real,
)
from mlchain.ml_runtime.ops.layout import moved
from mlchain.ml_runtime.tensor import MAX_DIMENSION, MAX_RANK, finite, labels

Grads = list[tuple[int, int]]


@register
class Index(Op):
    """x 2^exponent to the nearest integer, ties to even, as an index below `count`; else a trap."""

    name, arity = "index", 1
    attributes = integers("count", "exponent")
    source = "MLRT-1 rule 11: a feature that is an integer m is the number m 2^-15"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        require(1 <= attrs[0] <= MAX_DIMENSION, f"indices below {attrs[0]}")
        require(0 <= attrs[1] <= 32, f"exponent {attrs[1]}, not 0 to 32")
        return (labels(int(attrs[0]), *ins[0].shape),)

    def forward(self, c: Call) -> None:
        scale = 2.0 ** c.attrs[1]
        for (x,), (out,), (y, *_) in c.blocks:
            np.rint(np.multiply(x, scale, y), y)
            if not (np.minimum.reduce(y) >= 0 and np.maximum.reduce(y) < c.attrs[0]):
                raise Trap("index: a number is no index of the table")
            out[...] = y

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return []


@register
class Gather(Op):
    """Rows of a table at indices: table and indices to a tensor of both shapes; keeps the kind."""

    name, arity = "gather", 2
    source = "MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        table, index = ins
        require(index.kind == "I", "takes indices")
        require(len(table.shape) >= 1, "takes a table")
        require(index.bound <= table.shape[0], "indices reach beyond the table")
        shape = (*index.shape, *table.shape[1:])
        require(len(shape) <= MAX_RANK, f"a result of {len(shape)} axes")
        return moved(table, shape)

    def gas(self, ins: Types, outs: Types) -> int:
        return 3000 + most_elements(ins, outs) + 40 * ins[1].elements  # wherever in memory

    def forward(self, c: Call) -> None:
        np.take(c.ins[0], c.ins[1], axis=0, out=c.outs[0], mode="clip")

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        table, index = node.inputs
        rows = b.type(table).shape[0]
        added = b.emit("scatter_add", b.on_grid(g, grid.SUM_BITS), index, rows=rows)
        return [(table, added)]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(not split[0], "a table cannot be split by rows")
        return "rows"


@register
class ScatterAdd(Op):
    """A table of `rows` rows: each the exact sum of the parts of g that its index points to."""

    name, arity = "scatter_add", 2
    attributes = integers("rows")
    source = "MLRT-1 rule 3; adjoint of gather"

    def infer(self, ins: Types, attrs: Values) -> Types:
        g, index = ins
        require(g.kind == "G", "takes a grid")
        require(index.kind == "I", "takes indices")
        axes = len(index.shape)
        require(g.shape[:axes] == index.shape, "no index for each part of g")
        require(index.bound <= attrs[0] <= MAX_DIMENSION, "indices reach beyond the table")
        require_exact(g.bound - 1, index.elements)
        return (finite(int(attrs[0]), *g.shape[axes:]),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 6000 + 8 * ins[0].elements + outs[0].elements + 40 * ins[1].elements

    def forward(self, c: Call) -> None:
        index, out = c.ins[1].reshape(-1), c.outs[0].reshape(-1)
        width = out.size // len(c.outs[0])
        places = (index[:, None] * width + np.arange(width)).reshape(-1) if width > 1 else index
        out[...] = np.bincount(places, c.ins[0].reshape(-1), out.size)  # exact in any order

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("gather", g, node.inputs[1]))]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(all(split), "g and indices are split together")
        return "sum"
