"""Twins of ops/elementwise.py: one operation on Python floats per element."""

from __future__ import annotations

import operator
from collections.abc import Callable

from mlchain.ml_runtime import functions
from mlchain.ml_runtime.oracle.arithmetic import (
    Numbers,
    Operands,
    divide,
    each,
    exp_scaled,
    log,
    maximum,
    sigmoid,
    tanh,
    twin,
)


@twin("constant")
def _constant(o: Operands) -> tuple[Numbers, ...]:
    return ([float(o.attrs[0])],)


@twin("widen")
def _widen(o: Operands) -> tuple[Numbers, ...]:
    return (list(o.ins[0]),)


def broadcast(name: str, function: Callable[[float, float], float]) -> None:
    """Enter the twin of an op whose y meets every part of x that has its shape."""

    def apply(o: Operands) -> tuple[Numbers, ...]:
        x, y = o.ins
        return (list(map(function, x, y * (len(x) // len(y)))),)

    twin(name)(apply)


def _relu(x: float) -> float:
    return maximum(x, 0.0)


def _relu_gradient(g: float, y: float) -> float:
    return g * float(y > 0)


@twin("scale")
def _scale(o: Operands) -> tuple[Numbers, ...]:
    return ([x * o.attrs[0] for x in o.ins[0]],)


broadcast("add", operator.add)
broadcast("subtract", operator.sub)
broadcast("multiply", operator.mul)
each("relu", _relu)
each("relu_gradient", _relu_gradient)
each("sigmoid", sigmoid)
each("tanh", tanh)
each("exp", lambda x: exp_scaled(x, functions.LOG2E))
each("log", log)


def _gelu(x: float) -> tuple[float, float]:
    w = x * x * functions.GELU_CUBE * x + x
    s = divide(1.0, exp_scaled(w, functions.GELU_FACTOR) + 1.0)
    return x * s, s


def _gelu_gradient(g: float, x: float, s: float) -> float:
    z = (x * x * functions.GELU_CUBE_SLOPE + functions.GELU_SLOPE) * x
    return g * ((z * (1.0 - s) + 1.0) * s)


@twin("gelu")
def _gelus(o: Operands) -> tuple[Numbers, ...]:
    pairs = [_gelu(x) for x in o.ins[0]]
    return [y for y, _ in pairs], [s for _, s in pairs]


each("gelu_gradient", _gelu_gradient)
