"""Operators that compute element by element, or along an axis: arithmetic, softmax, norms, sums."""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np

from mlchain.ml_runtime.importers.onnx.moving import piece
from mlchain.ml_runtime.importers.onnx.rules import Result, rule
from mlchain.ml_runtime.importers.onnx.trace import Trace
from mlchain.ml_runtime.importers.onnx.values import Call, Labels, Tensor, Value, broadcast

MAX_FACTORS = 64
"""Most numbers of one product along an axis."""

_UNARY = {
    "Abs": "absolute",
    "Exp": "exp",
    "Floor": "floor",
    "Log": "log",
    "Relu": "relu",
    "Round": "rint",
    "Sigmoid": "sigmoid",
    "Sqrt": "square_root",
    "Tanh": "tanh",
}


@rule(*_UNARY)
def _unary(t: Trace, c: Call) -> Result:
    result = t.emit(_UNARY[c.node.op], c.tensor(0))
    if c.node.op in ("Floor", "Round"):
        t.whole.add(result.register)
    return result


@rule("Neg")
def _negative(t: Trace, c: Call) -> Result:
    return t.emit("scale", c.tensor(0), factor=-1.0)


@rule("Reciprocal")
def _reciprocal(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    return t.emit("divide", t.filled(1.0, x), x.register)


@rule("Erf")
def _erf(t: Trace, c: Call) -> Result:
    return t.emit("erf", c.tensor(0))


@rule("Gelu")
def _gelu(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    if c.attribute("approximate", "none") == "tanh":
        return Tensor(t.builder.emit_all("gelu", x.register)[0], x.shape)
    half = t.emit("scale", t.emit("erf", t.emit("scale", x, factor=0.5**0.5)), factor=0.5)
    return t.emit("multiply", t.meet("add", half, np.array(0.5), half.shape), x.register)


@rule("LeakyRelu")
def _leaky_relu(t: Trace, c: Call) -> Result:
    x, slope = c.tensor(0), c.attribute("alpha", 0.01)
    low = t.emit("scale", x, factor=slope)
    return t.emit("select", Tensor(x.register, x.shape), x.register, low.register)


@rule("Elu")
def _elu(t: Trace, c: Call) -> Result:
    x, alpha = c.tensor(0), c.attribute("alpha", 1.0)
    grown = t.meet("subtract", t.emit("exp", x), np.array(1.0), x.shape)
    return t.emit("select", x, x.register, t.emit("scale", grown, factor=alpha).register)


@rule("HardSigmoid")
def _hard_sigmoid(t: Trace, c: Call) -> Result:
    x = t.emit("scale", c.tensor(0), factor=c.attribute("alpha", 0.2))
    x = t.meet("add", x, np.array(c.attribute("beta", 0.5)), x.shape)
    return t.meet("minimum", t.emit("relu", x), np.array(1.0), x.shape)


@rule("Clip")
def _clip(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    bounds = (("min", "maximum", -np.inf), ("max", "minimum", np.inf))
    for i, (name, op, nothing) in enumerate(bounds):
        bound = c.attribute(name, nothing)
        if c.has(i + 1):
            bound = c.array(i + 1).reshape(-1)[0]
        if bound != nothing:
            x = t.meet(op, x, np.array(bound), x.shape)
    return x


# Two inputs, stretched to one shape


_SYMMETRIC = {"Add": "add", "Mul": "multiply", "Max": "maximum", "Min": "minimum", "Sum": "add"}


@rule(*_SYMMETRIC, "Mean")
def _symmetric(t: Trace, c: Call) -> Result:
    op = _SYMMETRIC.get(c.node.op, "add")

    def meet(x: Value, y: Value) -> Value:
        if not isinstance(x, Tensor):
            x, y = y, x
        return two(t, c, op, x, y)

    tensors = [v for v in c.values if isinstance(v, Tensor)]
    others = [v for v in c.values if not isinstance(v, Tensor)]
    total = reduce(meet, [v for v in (*tensors, *others) if v is not None])
    if not isinstance(total, Tensor):
        raise c.refuse("arithmetic with labels is not supported")
    if c.node.op == "Mean":
        return t.emit("scale", total, factor=1 / len(c.values))
    return total


def two(t: Trace, c: Call, op: str, x: Value, y: Value) -> Tensor:
    """Emit x op y, either a constant."""
    if isinstance(x, Labels) or isinstance(y, Labels):
        raise c.refuse("arithmetic with labels is not supported")
    shape = broadcast(c, x.shape, y.shape)
    if isinstance(x, np.ndarray):
        assert isinstance(y, Tensor), "a rule is asked only if an input depends on the row"
        y = t.expand(y, shape)
        x = t.meet("add", t.filled(0.0, y), x, shape)
    if op == "multiply" and isinstance(y, np.ndarray) and y.size == 1:
        return t.emit("scale", t.expand(x, shape), factor=t.number(y))
    if op == "add" and isinstance(y, Tensor) and x.shape != shape:
        x, y = y, x  # the wider one first: the other may be met as it is
    return t.meet(op, x, y, shape)


@rule("Sub")
def _subtract(t: Trace, c: Call) -> Result:
    x, y = c.value(0), c.value(1)
    if isinstance(x, np.ndarray):
        return two(t, c, "add", t.emit("scale", c.tensor(1), factor=-1.0), x)
    return two(t, c, "subtract", x, y)


@rule("Div")
def _divide(t: Trace, c: Call) -> Result:
    return two(t, c, "divide", c.value(0), c.value(1))


@rule("PRelu")
def _prelu(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    low = two(t, c, "multiply", x, c.array(1))
    return t.emit("select", x, x.register, low.register)


@rule("Pow")
def _power(t: Trace, c: Call) -> Result:
    x, exponent = c.tensor(0), t.number(c.array(1))
    if exponent == 0.5:
        return t.emit("square_root", x)
    if exponent not in (1.0, 2.0, 3.0, 4.0):
        raise c.refuse(f"the power {exponent}; 0.5, 1, 2, 3 and 4 are supported")
    return reduce(lambda y, _: t.emit("multiply", y, x.register), range(int(exponent) - 1), x)


@rule("Where")
def _where(t: Trace, c: Call) -> Result:
    condition, yes, no = c.value(0), c.value(1), c.value(2)
    if isinstance(condition, Labels) or isinstance(yes, Labels) or isinstance(no, Labels):
        raise c.refuse("a choice by labels or between labels is not supported")
    shape = broadcast(c, condition.shape, yes.shape, no.shape)
    if isinstance(condition, np.ndarray):
        condition = condition.astype(np.float64)
        if isinstance(yes, np.ndarray):  # select keeps the shape of what it takes first
            condition, yes, no = np.asarray(1.0 - condition), no, yes
        flags = t.constant(condition, shape)
    else:
        condition = t.expand(condition, shape)
        if isinstance(yes, np.ndarray):
            yes = two(t, c, "add", t.filled(0.0, condition), yes)
        flags = condition.register
    assert isinstance(yes, Tensor), "a rule is asked only if an input depends on the row"
    yes = t.expand(yes, shape)
    other = t.constant(no, shape) if isinstance(no, np.ndarray) else t.expand(no, shape).register
    return Tensor(t.builder.emit("select", flags, yes.register, other), shape)


_RELATIONS = {
    "Less": (0, False),
    "LessOrEqual": (1, False),
    "Equal": (2, False),
    "Greater": (0, True),
    "GreaterOrEqual": (1, True),
}


@rule(*_RELATIONS)
def _compare(t: Trace, c: Call) -> Result:
    relation, turned = _RELATIONS[c.node.op]
    x, y = c.value(0), c.value(1)
    if turned:
        x, y = y, x
    if isinstance(x, Labels) or isinstance(y, Labels):
        raise c.refuse("arithmetic with labels is not supported")
    shape = broadcast(c, x.shape, y.shape)
    if isinstance(x, np.ndarray):
        assert isinstance(y, Tensor), "a rule is asked only if an input depends on the row"
        x = t.meet("add", t.filled(0.0, t.expand(y, shape)), x, shape)
    x = t.expand(x, shape)
    other = t.constant(y, shape) if isinstance(y, np.ndarray) else t.expand(y, shape).register
    return Tensor(t.builder.emit("compare", x.register, other, relation=relation), shape)


@rule("Not")
def _not(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    return t.meet("add", t.emit("scale", x, factor=-1.0), np.array(1.0), x.shape)


@rule("And")
def _and(t: Trace, c: Call) -> Result:
    x, y = c.value(0), c.value(1)
    return two(t, c, "multiply", *((x, y) if isinstance(x, Tensor) else (y, x)))


@rule("Or")
def _or(t: Trace, c: Call) -> Result:
    x, y = c.value(0), c.value(1)
    return two(t, c, "maximum", *((x, y) if isinstance(x, Tensor) else (y, x)))


# Along axes


@rule("Softmax", "LogSoftmax")
def _softmax(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    axis = c.axis(-1 if c.opset >= 13 else 1, len(x.shape))
    axes = [axis] if c.opset >= 13 else list(range(axis, len(x.shape)))  # once: all that follow
    moved = t.last(x, axes)
    rows = t.rows(moved, prod(moved.shape[:-1]), moved.shape[-1])
    chances = t.place(t.builder.emit("softmax", rows), moved.shape)
    if c.node.op == "LogSoftmax":
        chances = t.emit("log", chances)
    return t.back(chances, x.shape, axes)


@rule("LayerNormalization")
def _layer_norm(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    if len([name for name in c.node.outputs if name]) > 1:
        raise c.refuse("outputs beside the first are not supported")
    axis = c.axis(-1, len(x.shape))
    size = prod(x.shape[axis:])
    rows = t.rows(x, prod(x.shape[:axis]), size)
    epsilon = c.attribute("epsilon", 1e-5)
    out = t.place(t.builder.emit_all("layer_norm", rows, epsilon=epsilon)[0], x.shape)
    out = t.meet("multiply", out, c.array(1), x.shape)
    return t.meet("add", out, c.array(2), x.shape) if c.has(2) else out


@rule("BatchNormalization")
def _batch_norm(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    scale, bias, mean, variance = (c.array(i).astype(np.float64) for i in range(1, 5))
    factor = scale / np.sqrt(variance + c.attribute("epsilon", 1e-5))
    channels = (-1, *[1] * (len(x.shape) - 2))
    scaled = t.meet("multiply", x, factor.reshape(channels), x.shape)
    return t.meet("add", scaled, (bias - mean * factor).reshape(channels), x.shape)


@rule(
    *("ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL2"),
    *("ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp"),
)
def _reduce(t: Trace, c: Call) -> Result:
    x, axes = c.tensor(0), c.option(1, "axes")
    if axes is None or (not axes and not c.attribute("noop_with_empty_axes", 0)):
        axes = tuple(range(len(x.shape)))
    gone = c.axes(axes, len(x.shape))
    keeps = c.attribute("keepdims", 1)
    shape = tuple(1 if i in gone else d for i, d in enumerate(x.shape) if keeps or i not in gone)
    op = c.node.op
    if op in ("ReduceSumSquare", "ReduceL2"):
        x = t.emit("multiply", x, x.register)
    moved = t.last(x, gone)
    if op in ("ReduceMax", "ReduceMin"):
        sign = -1.0 if op == "ReduceMin" else 1.0
        rows = t.rows(moved, prod(moved.shape[:-1]), moved.shape[-1])
        if sign < 0:
            rows = t.builder.emit("scale", rows, factor=-1.0)
        found = t.place(t.builder.emit("row_maximum", rows), shape)
        return found if sign > 0 else t.emit("scale", found, factor=-1.0)
    if op == "ReduceProd":
        if moved.shape[-1] > MAX_FACTORS:
            raise c.refuse(f"a product of more than {MAX_FACTORS} numbers")
        last = len(moved.shape) - 1
        parts = [piece(t, moved, last, i, i + 1) for i in range(moved.shape[-1])]
        return t.reshape(reduce(lambda a, b: t.emit("multiply", a, b.register), parts), shape)
    if op == "ReduceLogSumExp":
        moved = t.emit("exp", moved)
    total = t.reshape(t.sum_last(moved), shape)
    if op == "ReduceMean":
        return t.emit("scale", total, factor=1 / moved.shape[-1])
    last_step = {"ReduceL2": "square_root", "ReduceLogSumExp": "log"}
    return t.emit(last_step[op], total) if op in last_step else total


@rule("ArgMax", "ArgMin")
def _arg_max(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    axis = c.axis(0, len(x.shape))
    if c.attribute("select_last_index", 0):
        raise c.refuse("select_last_index is not supported")
    if prod(x.shape) != x.shape[axis] or (axis == 0 and len(x.shape) > 1):
        raise c.refuse(f"the best of axis {axis} of {list(x.shape)}: only that of all of a row is")
    if c.node.op == "ArgMin":
        x = t.emit("scale", x, factor=-1.0)
    return Labels(x, tuple(range(x.shape[axis])))


def product(t: Trace, c: Call, x: Value, y: Value) -> Tensor:
    """Emit x @ y as ONNX's MatMul has it; x and y of two axes or more."""
    (n, k), (k2, m) = shape_of(x)[-2:], shape_of(y)[-2:]
    if k != k2:
        raise c.refuse(f"inner dimensions {k} and {k2} differ")
    lead = broadcast(c, shape_of(x)[:-2], shape_of(y)[:-2])
    if isinstance(y, np.ndarray) and isinstance(x, Tensor) and y.size == k * m:
        return t.product(t.expand(x, (*lead, n, k)), y.reshape(k, m).T)
    if isinstance(x, np.ndarray) and isinstance(y, Tensor) and x.size == n * k:
        turned = t.product(swapped(t, t.expand(y, (*lead, k, m))), x.reshape(n, k))
        return swapped(t, turned)
    left, right = (
        t.expand(v, (*lead, *shape_of(v)[-2:])) if isinstance(v, Tensor) else None for v in (x, y)
    )
    if left is None or right is None:
        raise c.refuse("a stack of constant matrices is not supported")
    return t.products(left, swapped(t, right))


def shape_of(value: Value) -> tuple[int, ...]:
    """Return the shape of a tensor or constant."""
    return () if isinstance(value, Labels) else tuple(value.shape)


def swapped(t: Trace, x: Tensor) -> Tensor:
    """Return x with its last two axes swapped."""
    rank = len(x.shape)
    return t.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


@rule("MatMul")
def _matmul(t: Trace, c: Call) -> Result:
    x, y = c.value(0), c.value(1)
    if not shape_of(x) or not shape_of(y):
        raise c.refuse("a product with a single number or with labels")
    one_x, one_y = len(shape_of(x)) == 1, len(shape_of(y)) == 1
    if one_x:
        x = _reshape(t, x, (1, *shape_of(x)))
    if one_y:
        y = _reshape(t, y, (*shape_of(y), 1))
    out = product(t, c, x, y)
    shape = out.shape[:-1] if one_y else out.shape
    return t.reshape(out, (*shape[:-2], shape[-1]) if one_x and not one_y else shape)


def _reshape(t: Trace, x: Value, shape: tuple[int, ...]) -> Value:
    return x.reshape(shape) if isinstance(x, np.ndarray) else t.reshape(as_tensor(x), shape)


def as_tensor(x: Value) -> Tensor:
    """Return a value that is a tensor."""
    assert isinstance(x, Tensor)
    return x


def _turned(t: Trace, x: Value) -> Value:
    return x.T if isinstance(x, np.ndarray) else swapped(t, as_tensor(x))


@rule("Gemm")
def _gemm(t: Trace, c: Call) -> Result:
    x, y = c.value(0), c.value(1)
    if len(shape_of(x)) != 2 or len(shape_of(y)) != 2:
        raise c.refuse("takes two matrices")
    alpha, beta = c.attribute("alpha", 1.0), c.attribute("beta", 1.0)
    x = _turned(t, x) if c.attribute("transA", 0) else x
    y = _turned(t, y) if c.attribute("transB", 0) else y
    out = product(t, c, x, y)
    if alpha != 1:
        out = t.emit("scale", out, factor=alpha)
    if not c.has(2):
        return out
    bias = c.value(2)
    if beta != 1:
        is_constant = isinstance(bias, np.ndarray)
        scaled = np.asarray(c.array(2) * beta) if is_constant else None
        bias = t.emit("scale", c.tensor(2), factor=beta) if scaled is None else scaled
    return two(t, c, "add", out, bias)
