"""Comparing and choosing: the larger, the nearest whole number, one value or another, the best.

What these give depends on order alone, so nothing is rounded but by `divide` and `square_root`.
Results of `compare` and `one_hot` are 0 and 1 on a grid: they enter exact sums as they are.
"""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.ml_runtime.builder import Builder, Emitted
from mlchain.ml_runtime.op import (
    Call,
    Op,
    Types,
    Values,
    integers,
    most_elements,
    register,
    repeats,
    require,
    require_real,
)
from mlchain.ml_runtime.ops.elementwise import Broadcast, require_split_with, require_suffix
from mlchain.ml_runtime.tensor import Type, finite, grid, labels

Grads = list[tuple[int, int]]

RELATIONS = ("less", "less or equal", "equal")
"""What the attribute of `compare` stands for, from 0 on."""
_RELATIONS = (np.less, np.less_equal, np.equal)
_BIT = 2  # 0 and 1 are multiples of 2^0 below 2^1


def _nothing(b: Builder, g: int) -> int:
    """Emit zeros shaped like g."""
    return b.emit("spread", b.emit("constant", value=0.0), g)


class _Unary(Op):
    """A real input gives a real output of its shape."""

    arity, in_place = 1, True
    source = "MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        return (finite(*ins[0].shape),)


@register
class Divide(Broadcast):
    """x / y; a zero divisor counts as +0."""

    name = "divide"

    def forward(self, c: Call) -> None:
        if c.ins[1].shape != c.ins[0].shape:
            np.divide(c.ins[0], c.ins[1] + 0.0, out=c.outs[0])
            return
        for (x, y), (out,), (w, *_) in c.blocks:
            np.add(y, 0.0, out=w)  # -0 and 0 are one value, so 1 / y has to be one as well
            np.divide(x, w, out=out)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        _, y = node.inputs
        part = b.emit("divide", g, y)
        fall = b.emit("scale", b.emit("multiply", part, node.outputs[0]), factor=-1.0)
        return [(node.inputs[0], part), (y, b.sum_to(fall, b.type(y).shape))]


@register
class SquareRoot(_Unary):
    """The square root, correctly rounded; NaN below 0."""

    name = "square_root"

    def forward(self, c: Call) -> None:
        np.sqrt(c.ins[0], out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("divide", b.emit("scale", g, factor=0.5), node.outputs[0]))]


@register
class Absolute(_Unary):
    """|x|."""

    name = "absolute"

    def forward(self, c: Call) -> None:
        np.absolute(c.ins[0], out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        x = node.inputs[0]
        falls = b.emit("compare", x, b.emit("constant", value=0.0), relation=0)
        turned = b.emit("select", falls, b.emit("scale", g, factor=-1.0), g)
        return [(x, turned)]


@register
class Floor(_Unary):
    """The largest integer not above x."""

    name = "floor"

    def forward(self, c: Call) -> None:
        np.floor(c.ins[0], out=c.outs[0])


@register
class Rint(_Unary):
    """The nearest integer, ties to even."""

    name = "rint"

    def forward(self, c: Call) -> None:
        np.rint(c.ins[0], out=c.outs[0])


def _to_chosen(b: Builder, node: Emitted, g: int, relation: int, chosen: int) -> Grads:
    """Emit the gradient of an extreme: it goes to input `chosen` where the relation holds."""
    zero = _nothing(b, g)
    holds = b.emit("compare", *node.inputs, relation=relation)
    there, elsewhere = b.emit("select", holds, g, zero), b.emit("select", holds, zero, g)
    to_x, to_y = (elsewhere, there) if chosen else (there, elsewhere)
    return [(node.inputs[0], to_x), (node.inputs[1], b.sum_to(to_y, b.type(node.inputs[1]).shape))]


@register
class Minimum(Broadcast):
    """The smaller of x and y; NaN if either is."""

    name = "minimum"

    def forward(self, c: Call) -> None:
        np.minimum(c.ins[0], c.ins[1], out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return _to_chosen(b, node, g, relation=1, chosen=0)  # x where both are equal


@register
class Maximum(Broadcast):
    """The larger of x and y; NaN if either is."""

    name = "maximum"

    def forward(self, c: Call) -> None:
        np.maximum(c.ins[0], c.ins[1], out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return _to_chosen(b, node, g, relation=0, chosen=1)


@register
class Compare(Broadcast):
    """1 where x < y (relation 0), x <= y (1) or x = y (2), else 0; labels count as numbers."""

    name, in_place = "compare", False
    attributes = integers("relation")
    source = "MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require(attrs[0] in (0, 1, 2), f"relation {attrs[0]}, not 0 to 2")
        x, y = ins
        require_real(*(t for t in ins if t.kind != "I"))
        require_suffix(y, x)
        return (grid(_BIT, *x.shape),)

    def forward(self, c: Call) -> None:
        _RELATIONS[int(c.attrs[0])](c.ins[0], c.ins[1], out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return []  # a step: flat where it is smooth


@register
class Select(Op):
    """a where the condition is above 0, else b; both may have the shape of the last axes of a."""

    name, arity = "select", 3
    source = "MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        require_suffix(ins[0], ins[1])
        require_suffix(ins[2], ins[1])
        return (finite(*ins[1].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        # A condition without a pattern misleads the processor's branch prediction.
        met = repeats(ins[0], ins[1]) + repeats(ins[2], ins[1])
        return 3000 + 6 * most_elements(ins, outs) + 8 * met

    def forward(self, c: Call) -> None:
        condition, a, other = c.ins
        np.copyto(c.outs[0], other)
        np.copyto(c.outs[0], a, where=np.greater(condition, 0.0))

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        condition, a, other = zip(ins, split, strict=True)
        require_split_with(*a, condition, other)
        return "rows"

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        condition, a, other = node.inputs
        zero = _nothing(b, g)
        to_other = b.emit("select", condition, zero, g)
        return [
            (a, b.emit("select", condition, g, zero)),
            (other, b.sum_to(to_other, b.type(other).shape)),
        ]


@register
class OneHot(Op):
    """1 in the column of every label, 0 elsewhere: labels -> labels x classes."""

    name, arity = "one_hot", 1
    attributes = integers("classes")
    source = "MLRT-1 rule 8"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require(ins[0].kind == "I", "takes labels")
        require(ins[0].bound <= attrs[0] < 2**31, "labels reach beyond the classes")
        return (grid(_BIT, *ins[0].shape, int(attrs[0])),)

    def forward(self, c: Call) -> None:
        out = c.outs[0]
        out.fill(0.0)
        flat = c.ins[0].reshape(-1)
        out.reshape(-1)[np.arange(0, out.size, out.shape[-1]) + flat] = 1.0

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return []


def _require_columns(kind: Type) -> None:
    require_real(kind)
    require(len(kind.shape) >= 2, "takes a matrix or a stack of matrices")


@register
class Argmax(Op):
    """The column of the largest number of every row, the lowest of equal ones; NaN is largest."""

    name, arity = "argmax", 1
    row_gas = 8
    source = "MLRT-1 rule 8"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_columns(ins[0])
        return (labels(ins[0].shape[-1], *ins[0].shape[:-1]),)

    def forward(self, c: Call) -> None:
        np.argmax(c.ins[0], axis=-1, out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return []


@register
class RowMaximum(Op):
    """The largest number of every row: n x m -> n; NaN if there is one."""

    name, arity = "row_maximum", 1
    row_gas = 32
    source = "MLRT-1 rule 8"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_columns(ins[0])
        return (finite(*ins[0].shape[:-1]),)

    def forward(self, c: Call) -> None:
        np.maximum.reduce(c.ins[0], axis=-1, out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        x = node.inputs[0]
        shape = b.type(x).shape
        place = b.emit("one_hot", b.emit("argmax", x), classes=shape[-1])
        along = b.emit("repeat", g, axis=len(shape) - 1, count=shape[-1])
        return [(x, b.emit("multiply", along, place))]


@register
class Positions(Op):
    """0, 1, ... count - 1."""

    name, arity = "positions", 0
    attributes = integers("count")
    source = "MLRT-1 rule 8"

    def infer(self, ins: Types, attrs: Values) -> Types:
        count = int(attrs[0])
        require(1 <= count < 2**31, f"{count} positions")
        return (grid(max(2, (count - 1).bit_length() + 1), count),)

    def forward(self, c: Call) -> None:
        c.outs[0][...] = np.arange(c.outs[0].size)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return []
