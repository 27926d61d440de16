"""Operators that move elements, look at shapes, or rename: nothing is rounded here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod

import numpy as np

from mlchain.ml_runtime.importers.onnx.fold import FOLDS
from mlchain.ml_runtime.importers.onnx.rules import Result, rule
from mlchain.ml_runtime.importers.onnx.trace import Trace, packed
from mlchain.ml_runtime.importers.onnx.values import (
    Call,
    Labels,
    Tensor,
    broadcast,
    flattened,
    require_size,
    reshaped,
    slices,
    split_sizes,
    squeezed,
    unsqueezed,
)
from mlchain.ml_runtime.tensor import MAX_RANK

MAX_RUNS = 512
"""Most pieces that a choice of places along an axis may fall into."""


@rule("Identity", "Dropout")
def _identity(t: Trace, c: Call) -> Result:
    return c.value(0)


@rule("Shape", "Size")
def _shape(t: Trace, c: Call) -> Result:
    return FOLDS[c.node.op](c)


@rule("Cast", "CastLike")
def _cast(t: Trace, c: Call) -> Result:
    x, to = c.value(0), c.attribute("to", 1)
    if isinstance(x, Labels) or to in (1, 10, 11):
        return x  # a real stays binary64; labels keep their names
    x = c.tensor(0)
    if to == 9:
        is_zero = Tensor(t.builder.emit("compare", x.register, t.zero(), relation=2), x.shape)
        return t.meet("add", t.emit("scale", is_zero, factor=-1.0), np.array(1.0), x.shape)
    if x.register in t.whole:
        return x
    down = t.emit("floor", x)
    up = t.emit("scale", t.emit("floor", t.emit("scale", x, factor=-1.0)), factor=-1.0)
    return t.emit("select", x, down.register, up.register)  # towards zero


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(t: Trace, c: Call) -> Result:
    x = c.value(0)
    if isinstance(x, Labels):
        return x
    x, op = c.tensor(0), c.node.op
    if op == "Reshape":
        return t.reshape(x, reshaped(c, x.shape, list(c.option(1, "shape") or ())))
    rules = {"Flatten": flattened, "Squeeze": squeezed, "Unsqueeze": unsqueezed}
    return t.reshape(x, rules[op](c, x.shape))


@rule("Transpose")
def _transpose(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    order = c.integers("perm", range(len(x.shape))[::-1])
    if sorted(order) != list(range(len(x.shape))):
        raise c.refuse(f"perm {list(order)} of {list(x.shape)}")
    return t.transpose(x, order)


@rule("Expand")
def _expand(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    return t.expand(x, broadcast(c, x.shape, c.option(1, "shape") or ()))


@rule("Tile")
def _tile(t: Trace, c: Call) -> Result:
    x, counts = c.tensor(0), c.option(1, "repeats") or ()
    if len(counts) != len(x.shape) or min(counts, default=1) < 1:
        raise c.refuse(f"repeats {list(counts)} of {list(x.shape)}")
    require_size((*x.shape, *counts), c.where)
    for axis, count in enumerate(counts):
        before, after = x.shape[:axis], x.shape[axis:]
        parts, size = prod(before), prod(after)
        more = t.expand(t.reshape(x, (parts, 1, size)), (parts, count, size))
        x = t.reshape(more, (*before, count * after[0], *after[1:]))
    return x


@rule("Concat")
def _concat(t: Trace, c: Call) -> Result:
    parts = [
        t.lift(v) if isinstance(v, np.ndarray) else c.tensor(i) for i, v in enumerate(c.values)
    ]
    axis = c.axis(1, len(parts[0].shape))
    return concatenated(t, c, parts, axis)


def concatenated(t: Trace, c: Call, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Emit one tensor of several, one after the other along an axis."""
    shapes = [(*p.shape[:axis], *p.shape[axis + 1 :]) for p in parts]
    if any(s != shapes[0] for s in shapes):
        raise c.refuse(f"shapes {', '.join(str(p.shape) for p in parts)} beside axis {axis} differ")
    if len(parts) == 1:
        return parts[0]
    views = [along(t, p, axis) for p in parts]
    registers, at = [r for r, _ in views], views[0][1]
    joined = reduce(lambda x, y: t.builder.emit("concatenate", x, y, axis=at), registers)
    size = sum(p.shape[axis] for p in parts)
    return t.place(joined, (*parts[0].shape[:axis], size, *parts[0].shape[axis + 1 :]))


def along(t: Trace, x: Tensor, axis: int) -> tuple[int, int]:
    """Return a register in which an axis of x is one of its own, even of size 1, and which."""
    before, after = packed(x.shape[:axis]), packed(x.shape[axis + 1 :])
    if 2 + len(before) + len(after) > MAX_RANK:
        return t.rows(x, prod(before), x.shape[axis], prod(after)), 1
    return t.rows(x, 1, *before, x.shape[axis], *after), 1 + len(before)


@rule("Split")
def _split(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    axis, at, parts = c.axis(0, len(x.shape)), 0, []
    for size in split_sizes(c, x.shape[axis]):
        parts.append(piece(t, x, axis, at, at + size))
        at += size
    return tuple(parts)


@rule("Slice")
def _slice(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    for axis, cut in enumerate(slices(c, x.shape)):
        places = range(x.shape[axis])[cut]
        if not places:
            raise c.refuse(f"nothing is left of axis {axis} of {list(x.shape)}")
        if places.step == 1:
            x = piece(t, x, axis, places.start, places.stop)
        elif len(places) > MAX_RUNS:
            raise c.refuse(f"a choice in more than {MAX_RUNS} pieces")
        else:
            x = taken(t, c, x, axis, list(places))
    return x


def piece(t: Trace, x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Emit places start to stop of an axis."""
    shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
    if x.shape == shape:
        return x
    at = 1 + len(packed(x.shape[:axis]))
    return t.place(t.builder.emit("slice", x.register, axis=at, start=start, stop=stop), shape)


def taken(t: Trace, c: Call, x: Tensor, axis: int, places: Sequence[int]) -> Tensor:
    """Emit chosen places of an axis, run by run of neighbours."""
    chosen = np.asarray(places, np.int64)
    ends = np.flatnonzero(np.diff(chosen) != 1)
    if len(ends) >= MAX_RUNS:
        raise c.refuse(f"a choice in more than {MAX_RUNS} pieces")
    firsts, lasts = chosen[[0, *(ends + 1)]].tolist(), chosen[[*ends, -1]].tolist()
    parts = [piece(t, x, axis, i, j + 1) for i, j in zip(firsts, lasts, strict=True)]
    return concatenated(t, c, parts, axis)


@rule("Gather")
def _gather(t: Trace, c: Call) -> Result:
    x, places = c.value(0), c.value(1)
    axis = c.axis(0, len(c.shape(0)))
    if isinstance(places, Labels):
        return renamed(c, places)
    if isinstance(places, Tensor):
        table = c.array(0)
        if axis or not table.ndim:
            raise c.refuse("places that depend on the row, along an axis that is not the first")
        index = t.builder.emit("index", places.register, count=len(table), exponent=0)
        rest = packed(table.shape[1:])
        out = t.builder.emit("gather", t.parameter(table.reshape(len(table), *rest)), index)
        return t.place(out, (*places.shape, *table.shape[1:]))
    x, size = c.tensor(0), c.shape(0)[axis]
    if places.size == 0 or not -size <= places.min() <= places.max() < size:
        raise c.refuse(f"places outside an axis of {size}")
    chosen = taken(t, c, x, axis, (places.reshape(-1) % size).tolist())
    return t.reshape(chosen, (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


def renamed(c: Call, labels: Labels) -> Labels:
    """Return labels whose numbers are places in a list of names, input 0."""
    names = c.array(0).reshape(-1)
    numbers = [v for v in labels.classes if isinstance(v, int) and 0 <= v < len(names)]
    if len(numbers) < len(labels.classes):
        raise c.refuse("labels that are no places in the list of names")
    chosen = names[numbers].tolist()
    return Labels(labels.scores, tuple(n if isinstance(n, str) else int(n) for n in chosen))


@rule("Pad")
def _pad(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    pads = c.option(1, "pads") or ()
    axes = c.option(3, "axes") or tuple(range(len(x.shape)))
    value = t.number(c.array(2)) if c.has(2) else c.attribute("value", 0.0)
    if c.attribute("mode", "constant") != "constant" or value or len(pads) != 2 * len(axes):
        raise c.refuse("only padding by zeros is supported")
    c.axes(axes, len(x.shape))
    for i, axis in enumerate(axes):
        x = padded(t, c, x, axis % len(x.shape), pads[i], pads[len(axes) + i])
    return x


def padded(t: Trace, c: Call, x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Emit x with zeros before and after it along an axis."""
    if not before and not after:
        return x
    size = before + x.shape[axis] + after
    if min(before, after) < 0 or (axis == 0 and len(x.shape) > 1):
        raise c.refuse(f"padding of axis {axis} by {before} and {after}")
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    require_size(shape, c.where)
    rows, at = along(t, x, axis)
    return t.place(t.builder.emit("pad", rows, axis=at, before=before, after=after), shape)
