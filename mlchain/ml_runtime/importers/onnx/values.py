"""What stands for a value of an ONNX graph while it is read, and one operator's view of its inputs.

A graph is read for one row: a batch of one. Every shape is then a list of numbers, whatever the
file does to its batch dimension on the way, and the answer for a row cannot depend on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from mlchain.ml_runtime.importers.onnx.graph import Node, Refused
from mlchain.ml_runtime.tensor import MAX_ELEMENTS, Array

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """What depends on the row: a register of the program, and the shape ONNX sees with one row.

    In the register stand the batch and then the dimensions of `shape` that are not 1.
    """

    register: int
    shape: Shape


@dataclass(frozen=True, slots=True)
class Labels:
    """The class of a row: the label whose column of `scores` is largest, the first of equal ones.

    One column of scores and two labels: the second where the score is above 0.
    """

    scores: Tensor
    classes: tuple[int | str, ...]


Value = Tensor | Labels | Array
"""A tensor of the program, labels, or a constant."""


def require_size(shape: Sequence[int], where: str) -> None:
    """Refuse an array that would be larger than a tensor may be, before it is made."""
    if any(d < 0 for d in shape) or prod(shape) > MAX_ELEMENTS:
        raise Refused(f"onnx: {where} makes a tensor of {list(shape)[:8]}")


@dataclass(frozen=True, slots=True)
class Call:
    """One operator with the values it reads; None where an input is left out."""

    node: Node
    where: str
    values: tuple[Value | None, ...]
    opset: int

    def refuse(self, reason: str, hint: str = "") -> Refused:
        """Return the error that names this node."""
        return Refused(f"onnx: {self.where}: {reason}", hint)

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute, or the default if it is left out.

        Raises:
            Refused: it is of another kind than the default.
        """
        value = self.node.attributes.get(name, default)
        wanted = (int, float) if isinstance(default, float) else type(default)
        if default is not None and not isinstance(value, wanted):
            raise self.refuse(f"attribute {name} is a {type(value).__name__}")
        return value

    def integers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Return an attribute that is a list of integers."""
        value = self.attribute(name, tuple(default))
        if not all(isinstance(v, int) for v in value):
            raise self.refuse(f"attribute {name} is no list of integers")
        return tuple(value)

    def has(self, i: int) -> bool:
        """Tell whether input i is there."""
        return i < len(self.values) and self.values[i] is not None

    def value(self, i: int) -> Value:
        """Return input i. Raises Refused if it is left out."""
        found = self.values[i] if i < len(self.values) else None
        if found is None:
            raise self.refuse(f"input {i} is missing")
        return found

    def shape(self, i: int) -> Shape:
        """Return the shape of input i."""
        found = self.value(i)
        return (1,) if isinstance(found, Labels) else tuple(found.shape)

    def tensor(self, i: int) -> Tensor:
        """Return input i, which depends on the row. Raises Refused for anything else."""
        found = self.value(i)
        if not isinstance(found, Tensor):
            what = "labels" if isinstance(found, Labels) else "a constant"
            raise self.refuse(f"input {i} is {what}, which is not supported here")
        return found

    def array(self, i: int) -> Array:
        """Return input i, which is a constant. Raises Refused if it depends on the row."""
        found = self.value(i)
        if not isinstance(found, np.ndarray):
            raise self.refuse(f"input {i} depends on the row; it has to be a constant")
        return found

    def option(self, i: int, name: str) -> tuple[int, ...] | None:
        """Return integers that older opsets give as an attribute, newer ones as input i."""
        if name in self.node.attributes:
            return self.integers(name)
        if not self.has(i):
            return None
        array = self.array(i)
        if array.dtype.kind not in "iu" or array.ndim > 1:
            raise self.refuse(f"input {i} ({name}) is no list of integers")
        return tuple(int(v) for v in array.reshape(-1))

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Return axes counted from the front, in order, each once."""
        if any(not -rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
            raise self.refuse(f"axes {list(axes)} of a tensor of {rank}")
        return tuple(sorted(a % rank for a in axes))

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """Return the attribute that names one axis, counted from the front."""
        return self.axes([self.attribute(name, default)], rank)[0]


def broadcast(call: Call, *shapes: Shape) -> Shape:
    """Return the shape that these are stretched to together."""
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise call.refuse(f"shapes {', '.join(map(str, shapes))} do not fit") from error
    require_size(shape, call.where)
    return shape


def reshaped(call: Call, shape: Shape, wanted: Sequence[int]) -> Shape:
    """Return what Reshape makes of `shape`: -1 is what is left, 0 is copied."""
    copies = not call.attribute("allowzero", 0)
    if len(wanted) > 16 or wanted.count(-1) > 1 or any(d < -1 for d in wanted):
        raise call.refuse(f"reshape to {list(wanted)[:16]}")
    if copies and any(d == 0 and i >= len(shape) for i, d in enumerate(wanted)):
        raise call.refuse(f"reshape of {list(shape)} to {list(wanted)}")
    dims = [shape[i] if d == 0 and copies else d for i, d in enumerate(wanted)]
    if -1 in dims:
        known = prod(d for d in dims if d != -1)
        if not known or prod(shape) % known:
            raise call.refuse(f"reshape of {list(shape)} to {list(wanted)}")
        dims[dims.index(-1)] = prod(shape) // known
    if prod(dims) != prod(shape):
        raise call.refuse(
            f"reshape of {list(shape)} to {list(wanted)}",
            "a number of rows may be written into the graph; export it with a dynamic batch",
        )
    return tuple(dims)


def squeezed(call: Call, shape: Shape) -> Shape:
    """Return what Squeeze makes of `shape`."""
    axes = call.option(1, "axes")
    gone = call.axes(axes, len(shape)) if axes is not None else range(len(shape))
    if axes is not None and any(shape[a] != 1 for a in gone):
        raise call.refuse(f"axes {axes} of {list(shape)} are not all 1")
    return tuple(d for i, d in enumerate(shape) if not (i in gone and d == 1))


def unsqueezed(call: Call, shape: Shape) -> Shape:
    """Return what Unsqueeze makes of `shape`."""
    axes = call.option(1, "axes") or ()
    rank = len(shape) + len(axes)
    new, rest = call.axes(axes, rank), iter(shape)
    return tuple(1 if i in new else next(rest) for i in range(rank))


def flattened(call: Call, shape: Shape) -> Shape:
    """Return what Flatten makes of `shape`."""
    axis: int = call.attribute("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise call.refuse(f"axis {axis} of a tensor of {len(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    return prod(shape[:axis]), prod(shape[axis:])


def split_sizes(call: Call, size: int) -> tuple[int, ...]:
    """Return the sizes of the parts that Split makes of an axis of `size`."""
    sizes = call.option(1, "split")
    if sizes is None:
        parts = call.attribute("num_outputs", len(call.node.outputs))
        if not 1 <= parts <= size:
            raise call.refuse(f"{parts} parts of {size}")
        each = -(-size // parts)
        sizes = tuple(max(min(each, size - each * i), 0) for i in range(parts))
    if sum(sizes) != size or min(sizes) < 1 or len(sizes) != len(call.node.outputs):
        raise call.refuse(f"parts of {list(sizes)} of an axis of {size}")
    return sizes


def slices(call: Call, shape: Shape) -> list[slice]:
    """Return what Slice takes of every axis."""
    starts, ends = call.option(1, "starts"), call.option(2, "ends")
    if starts is None or ends is None:
        raise call.refuse("starts or ends are missing")
    axes = call.option(3, "axes") or tuple(range(len(starts)))
    steps = call.option(4, "steps") or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise call.refuse("starts, ends, axes and steps do not fit together")
    call.axes(axes, len(shape))
    result = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis % len(shape)]
        first = max(start + size, 0 if step > 0 else -1) if start < 0 else start
        last = max(end + size, -1 if step < 0 else 0) if end < 0 else end
        stop = None if step < 0 and last < 0 else min(last, size)
        result[axis % len(shape)] = slice(min(first, size if step > 0 else size - 1), stop, step)
    return result
