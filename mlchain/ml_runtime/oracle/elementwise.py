"""Twins of ops/elementwise.py: one operation on Python floats per element."""

from __future__ import annotations

import operator
from collections.abc import Callable

from mlchain.ml_runtime.oracle.arithmetic import (
    Numbers,
    Operands,
    each,
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
