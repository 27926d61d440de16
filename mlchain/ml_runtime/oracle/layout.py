"""Twins of ops/layout.py: where every element of the result comes from, index by index."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from mlchain.ml_runtime.oracle.arithmetic import Numbers, Operands, twin

Index = tuple[int, ...]


def places(shape: Index) -> Iterator[Index]:
    """Yield every index of a shape, in C order."""
    return product(*(range(d) for d in shape))


def flat(index: Index, shape: Index) -> int:
    """Return the place of an index in C order."""
    return sum(i * prod(shape[axis + 1 :]) for axis, i in enumerate(index))


def moved(index: Index, axis: int, by: int) -> Index:
    """Return an index with one coordinate changed by `by`."""
    return (*index[:axis], index[axis] + by, *index[axis + 1 :])


@twin("reshape")
def _reshape(o: Operands) -> tuple[Numbers, ...]:
    return (list(o.ins[0]),)


@twin("transpose")
def _transpose(o: Operands) -> tuple[Numbers, ...]:
    (x,), (shape,) = o.ins, o.shapes
    axes = [o.attrs.index(axis) for axis in range(len(shape))]
    return ([x[flat(tuple(i[a] for a in axes), shape)] for i in places(o.out)],)


@twin("slice")
def _slice(o: Operands) -> tuple[Numbers, ...]:
    axis, start, _ = (int(v) for v in o.attrs)
    return ([o.ins[0][flat(moved(i, axis, start), o.shapes[0])] for i in places(o.out)],)


@twin("pad")
def _pad(o: Operands) -> tuple[Numbers, ...]:
    axis, before, _ = (int(v) for v in o.attrs)
    (x,), (shape,) = o.ins, o.shapes
    out = []
    for index in places(o.out):
        source = moved(index, axis, -before)
        out.append(x[flat(source, shape)] if 0 <= source[axis] < shape[axis] else 0.0)
    return (out,)


@twin("concatenate")
def _concatenate(o: Operands) -> tuple[Numbers, ...]:
    axis = int(o.attrs[0])
    (x, y), (left, right) = o.ins, o.shapes
    out = []
    for index in places(o.out):
        if index[axis] < left[axis]:
            out.append(x[flat(index, left)])
        else:
            out.append(y[flat(moved(index, axis, -left[axis]), right)])
    return (out,)
