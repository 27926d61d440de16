"""Ops that move elements and compute nothing: reshape, transpose, slice, pad, concatenate.

They keep the type of what they move, so what is on a grid stays on it and is not rounded again.
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
    require,
)
from mlchain.ml_runtime.tensor import MAX_DIMENSION, MAX_RANK, Shape, Type, finite

Grads = list[tuple[int, int]]
AXES = ("d0", "d1", "d2", "d3")
"""Names of attributes that hold one number per axis, MAX_RANK of them."""


def moved(kind: Type, shape: Shape) -> Types:
    """Return the type of the same kind of elements in another shape; rows may not stay rows."""
    if kind.kind == "R":
        return (finite(*shape),)
    return (Type(kind.kind, kind.bound, shape),)


def require_axis(kind: Type, axis: float) -> int:
    """Return the axis, an integer that the type has."""
    require(0 <= axis < len(kind.shape), f"no axis {axis} in {kind}")
    return int(axis)


def _along(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, slice(start, stop))


@register
class Reshape(Op):
    """The same elements in the same order in another shape: d0, d1, … up to the first 0."""

    name, arity, in_place = "reshape", 1, True
    attributes = integers(*AXES)
    source = "MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        rank = next((i for i, d in enumerate(attrs) if not d), MAX_RANK)
        shape = tuple(int(d) for d in attrs[:rank])
        require(not any(attrs[rank:]), "a dimension after a 0")
        require(all(1 <= d <= MAX_DIMENSION for d in shape), f"dimensions {shape}")
        result = moved(ins[0], shape)
        require(result[0].elements == ins[0].elements, f"{ins[0]} does not fill {shape}")
        return result

    def forward(self, c: Call) -> None:
        if c.outs[0].ctypes.data != c.ins[0].ctypes.data:  # else it took the place of its input
            np.copyto(c.outs[0].reshape(-1), c.ins[0].reshape(-1))

    def share_attributes(self, attrs: Values, outs: Types) -> Values:
        return (*outs[0].shape, *[0] * (MAX_RANK - len(outs[0].shape)))

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.reshape(g, b.type(node.inputs[0]).shape))]


@register
class Transpose(Op):
    """Axis i of the result is axis d_i of x; d_i = i beyond the rank."""

    name, arity = "transpose", 1
    attributes = integers(*AXES)
    source = "MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        shape, rank = ins[0].shape, len(ins[0].shape)
        require(sorted(attrs) == list(range(MAX_RANK)), "is no permutation of the axes")
        require(all(attrs[i] == i for i in range(rank, MAX_RANK)), "permutes axes x has not")
        return moved(ins[0], tuple(shape[int(d)] for d in attrs[:rank]))

    def gas(self, ins: Types, outs: Types) -> int:
        return 3000 + 3 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        axes = [int(d) for d in c.attrs[: c.ins[0].ndim]]
        np.copyto(c.outs[0], c.ins[0].transpose(axes))

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        rank = len(b.type(node.inputs[0]).shape)
        return [(node.inputs[0], b.transpose(g, *np.argsort(node.attrs[:rank]).tolist()))]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(attrs[0] == 0, "a transpose that moves the rows cannot be split by rows")
        return "rows"


@register
class Slice(Op):
    """Places start to stop (excluded) along an axis."""

    name, arity = "slice", 1
    attributes = integers("axis", "start", "stop")
    source = "MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        axis, (start, stop) = require_axis(ins[0], attrs[0]), attrs[1:]
        shape = ins[0].shape
        require(0 <= start < stop <= shape[axis], f"places {start} to {stop} of {shape[axis]}")
        return moved(ins[0], (*shape[:axis], int(stop - start), *shape[axis + 1 :]))

    def forward(self, c: Call) -> None:
        axis, start, stop = (int(v) for v in c.attrs)
        np.copyto(c.outs[0], c.ins[0][_along(axis, start, stop)])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        axis, start, stop = (int(v) for v in node.attrs)
        after = b.type(node.inputs[0]).shape[axis] - stop
        padded = b.emit("pad", g, axis=axis, before=start, after=after)
        return [(node.inputs[0], padded)]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(attrs[0] > 0, "a slice of the rows cannot be split by rows")
        return "rows"


@register
class Pad(Op):
    """x with zeros before and after it along an axis."""

    name, arity = "pad", 1
    row_gas = 8
    attributes = integers("axis", "before", "after")
    source = "MLRT-1 rule 4; adjoint of slice"

    def infer(self, ins: Types, attrs: Values) -> Types:
        axis, (before, after) = require_axis(ins[0], attrs[0]), attrs[1:]
        require(0 <= before <= MAX_DIMENSION and 0 <= after <= MAX_DIMENSION, "pads by below 0")
        size = int(before + ins[0].shape[axis] + after)
        require(size <= MAX_DIMENSION, f"a dimension of {size}")
        shape = ins[0].shape
        return moved(ins[0], (*shape[:axis], size, *shape[axis + 1 :]))

    def forward(self, c: Call) -> None:
        axis, before, after = (int(v) for v in c.attrs)
        size = c.outs[0].shape[axis]
        c.outs[0][_along(axis, 0, before)] = 0
        c.outs[0][_along(axis, size - after, size)] = 0
        np.copyto(c.outs[0][_along(axis, before, size - after)], c.ins[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        axis, before, after = (int(v) for v in node.attrs)
        stop = b.type(g).shape[axis] - after
        return [(node.inputs[0], b.emit("slice", g, axis=axis, start=before, stop=stop))]

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(attrs[0] > 0, "padding of the rows cannot be split by rows")
        return "rows"


@register
class Concatenate(Op):
    """x, then y, along an axis; both F, S or labels of one bound, or F for two grids."""

    name, arity = "concatenate", 2
    row_gas = 8
    attributes = integers("axis")
    source = "MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        x, y = ins
        axis = require_axis(x, attrs[0])
        require(len(x.shape) == len(y.shape), "ranks differ")
        rest = [t.shape[:axis] + t.shape[axis + 1 :] for t in ins]
        require(rest[0] == rest[1], "shapes differ beside the axis")
        shape = (*x.shape[:axis], x.shape[axis] + y.shape[axis], *x.shape[axis + 1 :])
        if x.kind in "FGR" and y.kind in "FGR":
            return (Type("F", 0, shape),)  # two grids have two exponents
        require((x.kind, x.bound) == (y.kind, y.bound), "kinds of elements differ")
        return moved(x, shape)

    def forward(self, c: Call) -> None:
        np.concatenate(c.ins, axis=int(c.attrs[0]), out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        axis, at, grads = int(node.attrs[0]), 0, []
        for register_ in node.inputs:
            stop = at + b.type(register_).shape[axis]
            grads.append((register_, b.emit("slice", g, axis=axis, start=at, stop=stop)))
            at = stop
        return grads

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(all(split) and attrs[0] > 0, "this concatenation cannot be split by rows")
        return "rows"
