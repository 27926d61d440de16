"""Onto grids, and the exact sums and products over grids.

What a sum or product returns is the exact number, so any algorithm that gives it conforms, in any
order, on any number of threads.
"""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.ml_runtime import grid
from mlchain.ml_runtime.builder import Builder, Emitted
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
    require_exact,
    require_real,
)
from mlchain.ml_runtime.ops.layout import moved, require_axis
from mlchain.ml_runtime.tensor import MAX_DIMENSION, MAX_RANK, finite
from mlchain.ml_runtime.tensor import grid as grid_type

Grads = list[tuple[int, int]]

_ONES = np.ones(1 << 15)


@register
class Quantise(Op):
    """Round to the grid of `bits` bits below the largest element; its gradient passes through."""

    name, arity, in_place = "quantise", 1, True
    attributes = integers("bits")
    source = "MLRT-1 rule 2; straight-through gradient: Bengio et al., arXiv:1308.3432"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require(MIN_BITS <= attrs[0] <= MAX_BITS, f"{attrs[0]} bits, not 2 to 48")
        require(ins[0].kind in "FGRS", "takes F, G, R or S")
        return (grid_type(int(attrs[0]), *ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 6000 + most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        x = c.ins[0]
        grid.quantise(x, int(c.attrs[0]), grid.peak(x), c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], g)]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        return "peak"  # shards agree on the largest element first


@register
class Saturate(Op):
    """Round to the fixed grid of `bits` bits below 2^exponent, clipping: for inference."""

    name, arity, in_place = "saturate", 1, True
    attributes = integers("bits", "exponent")
    source = "MLRT-1 rule 2, static exponents"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require(MIN_BITS <= attrs[0] <= MAX_BITS, f"{attrs[0]} bits, not 2 to 48")
        require(-400 <= attrs[1] <= 500, f"exponent {attrs[1]}, not -400 to 500")
        require(ins[0].kind in "FGRS", "takes F, G, R or S")
        return (grid_type(int(attrs[0]), *ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 8000 + 3 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        grid.saturate(c.ins[0], int(c.attrs[0]), int(c.attrs[1]), c.outs[0])


@register
class Matmul(Op):
    """Exact product of two grids: of matrices, or of each pair in two equal stacks of them.

    A flag of 1 swaps the last two axes of its operand first. The left may be R if its flag is 0,
    the right if its flag is 1: each sum lies along one row of either, of one exponent.
    """

    name, arity = "matmul", 2
    accumulates = True
    attributes = integers("transpose_a", "transpose_b")
    source = "MLRT-1 rule 3"

    def infer(self, ins: Types, attrs: Values) -> Types:
        a, c = ins
        require(all(v in (0, 1) for v in attrs), "flags are 0 or 1")
        left = a.kind == "G" or (a.kind == "R" and not attrs[0])
        right = c.kind == "G" or (c.kind == "R" and attrs[1] == 1)
        require(left and right, "takes two grids")
        require(len(a.shape) >= 2 and len(c.shape) >= 2, "takes matrices")
        require(a.shape[:-2] == c.shape[:-2], "leading dimensions differ")
        n, k = a.shape[:-3:-1] if attrs[0] else a.shape[-2:]
        k2, m = c.shape[:-3:-1] if attrs[1] else c.shape[-2:]
        require(k == k2, f"inner dimensions {k} and {k2} differ")
        require_exact(a.bound - 1 + c.bound - 1, k)
        return (finite(*a.shape[:-2], n, m),)

    def gas(self, ins: Types, outs: Types) -> int:
        filled, (n, m) = outs[0].elements, outs[0].shape[-2:]
        multiply_adds = filled * (ins[0].elements // (filled // m))
        read = ins[0].elements + ins[1].elements
        return 4000 + multiply_adds // 32 + read // 2 + filled + 80 * (filled // (n * m) - 1)

    def forward(self, c: Call) -> None:
        a, b = c.ins
        a, b = a.swapaxes(-1, -2) if c.attrs[0] else a, b.swapaxes(-1, -2) if c.attrs[1] else b
        np.matmul(a, b, out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        x, y = node.inputs
        tx, ty = (bool(v) for v in node.attrs)
        gx = b.matmul(y, g, ty, True) if tx else b.matmul(g, y, False, not ty)
        gy = b.matmul(g, x, True, tx) if ty else b.matmul(x, g, not tx, False)
        return [(x, gx), (y, gy)]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        if len(ins[0].shape) > 2:
            require(all(split), "a stack of products is split by rows in both operands")
            return "rows"
        if all(split) and attrs[0] and not attrs[1]:
            return "sum"  # the batch is the inner dimension
        require(split[0] and not split[1] and not attrs[0], "this product cannot be split by rows")
        return "rows"


@register
class SumRows(Op):
    """Exact sum of a grid over its first axis: n x m -> m."""

    name, arity = "sum_rows", 1
    accumulates = True
    row_gas = 16
    source = "MLRT-1 rule 3"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require(ins[0].kind == "G" and len(ins[0].shape) == 2, "takes a grid matrix")
        require_exact(ins[0].bound - 1, ins[0].shape[0])
        return (finite(ins[0].shape[1]),)

    def forward(self, c: Call) -> None:
        x = c.ins[0]  # exact in any order, and BLAS is the quickest
        for at in range(0, len(x), _ONES.size):
            part = x[at : at + _ONES.size]
            total = np.matmul(_ONES[: len(part)], part, out=None if at else c.outs[0])
            if at:
                np.add(c.outs[0], total, out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        rows = b.type(node.inputs[0]).shape[0]
        return [(node.inputs[0], b.emit("repeat", g, axis=0, count=rows))]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        return "sum"


@register
class SumAxis(Op):
    """Exact sum of a grid over one axis, which goes; of R over the last."""

    name, arity = "sum_axis", 1
    accumulates = True
    row_gas = 16
    attributes = integers("axis")
    source = "MLRT-1 rule 3"

    def infer(self, ins: Types, attrs: Values) -> Types:
        axis, shape = require_axis(ins[0], attrs[0]), ins[0].shape
        by_rows = ins[0].kind == "R" and axis == len(shape) - 1
        require(ins[0].kind == "G" or by_rows, "takes a grid")
        require_exact(ins[0].bound - 1, shape[axis])
        return (finite(*shape[:axis], *shape[axis + 1 :]),)

    def forward(self, c: Call) -> None:
        np.add.reduce(c.ins[0], axis=int(c.attrs[0]), out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        axis = int(node.attrs[0])
        count = b.type(node.inputs[0]).shape[axis]
        return [(node.inputs[0], b.emit("repeat", g, axis=axis, count=count))]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        return "rows" if attrs[0] else "sum"


@register
class Repeat(Op):
    """x in each of `count` places of a new axis; keeps the type."""

    name, arity = "repeat", 1
    attributes = integers("axis", "count")
    source = "adjoint of sum_axis"

    def infer(self, ins: Types, attrs: Values) -> Types:
        axis, count = (int(v) for v in attrs)
        shape = ins[0].shape
        require(0 <= axis <= len(shape) < MAX_RANK, f"no new axis {axis} in {ins[0]}")
        require(1 <= count <= MAX_DIMENSION, f"{count} places")
        return moved(ins[0], (*shape[:axis], count, *shape[axis:]))

    def gas(self, ins: Types, outs: Types) -> int:
        return 3000 + 3 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        np.copyto(c.outs[0], np.expand_dims(c.ins[0], int(c.attrs[0])))

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        total = b.emit("sum_axis", b.on_grid(g, grid.SUM_BITS), axis=int(node.attrs[0]))
        return [(node.inputs[0], total)]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(attrs[0] > 0, "a new first axis cannot be split by rows")
        return "rows"


@register
class SumAll(Op):
    """Exact sum of all elements of a grid."""

    name, arity = "sum_all", 1
    accumulates = True
    source = "MLRT-1 rule 3"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require(ins[0].kind == "G", "takes a grid")
        require_exact(ins[0].bound - 1, ins[0].elements)
        return (finite(),)

    def forward(self, c: Call) -> None:
        np.add.reduce(c.ins[0], axis=None, out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("spread", g, node.inputs[0]))]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        return "sum"


@register
class Spread(Op):
    """A scalar in every place of a tensor shaped like the second input."""

    name, arity = "spread", 2
    shape_only = (1,)
    source = "adjoint of sum_all"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        require(ins[0].shape == (), "spreads a scalar")
        return (finite(*ins[1].shape),)

    def forward(self, c: Call) -> None:
        np.copyto(c.outs[0], c.ins[0])
