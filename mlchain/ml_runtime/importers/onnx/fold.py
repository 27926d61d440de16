"""Operators over constants, computed once while the file is read.

Exporters write much of a model's structure as arithmetic on shapes, which are constants here. What
a size depends on is looked at before an array of that size is made. Results are data in the model
file, so they need not be the same on every machine, as those of the program must.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from mlchain.ml_runtime.importers.onnx.values import (
    Call,
    broadcast,
    flattened,
    require_size,
    reshaped,
    slices,
    split_sizes,
    squeezed,
    unsqueezed,
)
from mlchain.ml_runtime.tensor import Array

CAST = {
    1: "<f4",
    2: "<u1",
    3: "<i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    9: "|b1",
    10: "<f2",
    11: "<f8",
}
"""Numbers of the types that Cast makes."""

Fold = Callable[[Call], "Array | tuple[Array, ...]"]
FOLDS: dict[str, Fold] = {}


def fold(*names: str) -> Callable[[Fold], Fold]:
    """Decorator: enter a rule for constants into the table."""

    def enter(rule: Fold) -> Fold:
        FOLDS.update(dict.fromkeys(names, rule))
        return rule

    return enter


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    if not np.all(b):
        raise ValueError("a division by zero")
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))  # towards zero


def _modulo(a: Array, b: Array) -> Array:
    if a.dtype.kind != "f" and not np.all(b):
        raise ValueError("a division by zero")
    return np.mod(a, b)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "And": np.logical_and,
    "Ceil": np.ceil,
    "Div": _divide,
    "Equal": np.equal,
    "Exp": np.exp,
    "Floor": np.floor,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": np.log,
    "Mod": _modulo,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Where": np.where,
}
_REDUCE: dict[str, Callable[..., Any]] = {
    "ReduceMax": np.max,
    "ReduceMean": np.mean,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
}


def _arrays(call: Call) -> list[Array]:
    return [call.array(i) for i in range(len(call.values))]


@fold(*_ELEMENTWISE)
def _elementwise(call: Call) -> Array:
    arrays = _arrays(call)
    broadcast(call, *(a.shape for a in arrays))
    result = np.asarray(_ELEMENTWISE[call.node.op](*arrays))
    kind = arrays[1 if call.node.op == "Where" else 0].dtype
    return result if result.dtype == bool else result.astype(kind, copy=False)


@fold("Min", "Max", "Sum")
def _of_many(call: Call) -> Array:
    arrays = _arrays(call)
    broadcast(call, *(a.shape for a in arrays))
    step = {"Min": np.minimum, "Max": np.maximum, "Sum": np.add}[call.node.op]
    return np.asarray(reduce(step, arrays))


@fold(*_REDUCE)
def _reduce(call: Call) -> Array:
    x, axes = call.array(0), call.option(1, "axes")
    if axes is None or (not axes and not call.attribute("noop_with_empty_axes", 0)):
        axes = tuple(range(x.ndim))
    keep = bool(call.attribute("keepdims", 1))
    result = _REDUCE[call.node.op](x, axis=call.axes(axes, x.ndim), keepdims=keep)
    return np.asarray(result).astype(x.dtype, copy=False)


@fold("Constant")
def _constant(call: Call) -> Array:
    kinds = {"value_int": "<i8", "value_ints": "<i8", "value_float": "<f4", "value_floats": "<f4"}
    attributes = call.node.attributes
    if isinstance(attributes.get("value"), np.ndarray):
        array: Array = attributes["value"]
        return array
    for name, kind in kinds.items():
        if name in attributes:
            return np.array(attributes[name], kind)
    if "value_string" in attributes or "value_strings" in attributes:
        return np.array(attributes.get("value_string", attributes.get("value_strings")), object)
    raise call.refuse("a constant without a value that is supported")


@fold("ConstantOfShape")
def _constant_of_shape(call: Call) -> Array:
    shape = call.option(0, "") or ()
    require_size(shape, call.where)
    value = call.attribute("value", np.zeros(1, "<f4"))
    return np.full(shape, value.reshape(-1)[0], value.dtype)


@fold("Cast")
def _cast(call: Call) -> Array:
    x, to = call.array(0), CAST.get(call.attribute("to", 0))
    if to is None or x.dtype == object:
        raise call.refuse(f"a cast to type {call.attribute('to', 0)} is not supported")
    return x.astype(to)


@fold("Identity", "Dropout")
def _identity(call: Call) -> Array:
    return call.array(0)


@fold("Shape")
def _shape(call: Call) -> Array:
    shape = call.shape(0)
    start, end = call.attribute("start", 0), call.attribute("end", len(shape))
    return np.array(shape[start:end], np.int64)


@fold("Size")
def _size(call: Call) -> Array:
    return np.array(prod(call.shape(0)), np.int64)


@fold("Range")
def _range(call: Call) -> Array:
    start, stop, step = (call.array(i).reshape(-1)[0] for i in range(3))
    if not step:
        raise call.refuse("a step of 0")
    require_size((max(int(np.ceil((stop - start) / step)), 0),), call.where)
    places: Array = np.arange(float(start), float(stop), float(step))
    return places.astype(call.array(0).dtype)


@fold("Reshape")
def _reshape(call: Call) -> Array:
    x = call.array(0)
    return x.reshape(reshaped(call, x.shape, list(call.option(1, "shape") or ())))


@fold("Flatten")
def _flatten(call: Call) -> Array:
    return call.array(0).reshape(flattened(call, call.shape(0)))


@fold("Squeeze")
def _squeeze(call: Call) -> Array:
    return call.array(0).reshape(squeezed(call, call.shape(0)))


@fold("Unsqueeze")
def _unsqueeze(call: Call) -> Array:
    return call.array(0).reshape(unsqueezed(call, call.shape(0)))


@fold("Transpose")
def _transpose(call: Call) -> Array:
    x = call.array(0)
    return x.transpose(call.integers("perm", range(x.ndim)[::-1]))


@fold("Concat")
def _concat(call: Call) -> Array:
    arrays = _arrays(call)
    require_size((sum(a.size for a in arrays),), call.where)
    return np.concatenate(arrays, axis=call.axis(0, arrays[0].ndim))


@fold("Slice")
def _slice(call: Call) -> Array:
    return call.array(0)[tuple(slices(call, call.shape(0)))]


@fold("Split")
def _split(call: Call) -> tuple[Array, ...]:
    x = call.array(0)
    axis = call.axis(0, x.ndim)
    ends = np.cumsum(split_sizes(call, x.shape[axis]))[:-1]
    return tuple(np.split(x, ends, axis))


@fold("Gather")
def _gather(call: Call) -> Array:
    x, places = call.array(0), call.array(1)
    axis = call.axis(0, x.ndim)
    require_size((x.size // max(x.shape[axis], 1), places.size), call.where)
    if places.size and not -x.shape[axis] <= places.min() <= places.max() < x.shape[axis]:
        raise call.refuse(f"places outside an axis of {x.shape[axis]}")
    return np.asarray(np.take(x, places, axis))


@fold("Expand")
def _expand(call: Call) -> Array:
    x = call.array(0)
    return np.broadcast_to(x, broadcast(call, x.shape, call.option(1, "shape") or ()))


@fold("Tile")
def _tile(call: Call) -> Array:
    x, counts = call.array(0), call.option(1, "repeats") or ()
    if any(c < 0 for c in counts):
        raise call.refuse(f"repeats {counts}")
    require_size((x.size, *counts), call.where)
    return np.tile(x, counts)


@fold("Trilu")
def _trilu(call: Call) -> Array:
    offset = int(call.array(1)) if call.has(1) else 0
    return (np.triu if call.attribute("upper", 1) else np.tril)(call.array(0), offset)


@fold("MatMul")
def _matmul(call: Call) -> Array:
    x, y = call.array(0), call.array(1)
    if x.ndim > 2 or y.ndim > 2:
        raise call.refuse("a product of stacks of constants is not supported")
    return np.asarray(np.matmul(x, y))


def work(call: Call) -> int:
    """Return about how many operations a rule for constants takes."""
    sizes = [v.size for v in call.values if isinstance(v, np.ndarray)]
    if call.node.op != "MatMul" or len(sizes) < 2:
        return sum(sizes)
    return sizes[0] * (call.shape(1)[-1] if len(call.shape(1)) > 1 else 1)
