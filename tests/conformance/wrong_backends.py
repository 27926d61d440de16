"""Backends that are wrong in the ways real ones are, each by as little as can be."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np

from mlchain.ml_runtime.machine import NumpyBackend, Run
from mlchain.ml_runtime.op import Call
from mlchain.ml_runtime.program import Step


class Spoilt(NumpyBackend):
    """The numpy backend, its results changed by `spoil(op, call)` after every op."""

    name = "spoilt"

    def __init__(self, spoil: Callable[[str, Call], None]) -> None:
        super().__init__()
        self._spoil = spoil

    def bind_op(self, step: Step, call: Call) -> Run:
        forward, spoil = super().bind_op(step, call), partial(self._spoil, step.op.name, call)

        def run() -> None:
            forward()
            spoil()

        return run


def one_ulp(op: str, c: Call) -> None:
    """The first element of a product is one unit in the last place too large."""
    if op == "matmul":
        first = c.outs[0].reshape(-1)[:1]
        first[...] = np.nextafter(first, np.inf)


def _multiply_add(x: np.ndarray, y: np.ndarray | float, z: np.ndarray) -> np.ndarray:
    """x y + z with one rounding."""
    every = np.broadcast_arrays(x, y, z)
    exact = [
        Fraction(a) * Fraction(b) + Fraction(c)
        for a, b, c in zip(*map(_floats, every), strict=True)
    ]
    return np.array([float(f) for f in exact]).reshape(every[0].shape)


def _floats(a: np.ndarray) -> list[float]:
    return a.astype(np.float64).reshape(-1).tolist()


def _state(x: np.ndarray) -> np.ndarray:
    return ((x + 2.0**-60) - 2.0**-60).astype(np.float32)


def fused_step(op: str, c: Call) -> None:
    """sgd as a compiler contracts it: p - g * rate with one rounding."""
    if op == "sgd" and not c.attrs[1]:
        p, g = c.ins
        c.outs[0][...] = _state(_multiply_add(g, -c.attrs[0], p))


def fused_decay(op: str, c: Call) -> None:
    """sgd with g + p * decay contracted."""
    if op == "sgd" and c.attrs[1]:
        (p, g), (rate, decay) = c.ins, c.attrs
        c.outs[0][...] = _state(p - _multiply_add(p, decay, g) * rate)


def fused_velocity(op: str, c: Call) -> None:
    """momentum with v * mu + g contracted."""
    if op == "momentum" and not c.attrs[2]:
        c.outs[1][...] = _state(_multiply_add(c.ins[1], c.attrs[1], c.ins[2]))


def fused_moments(op: str, c: Call) -> None:
    """adam with v * beta2 + (g * g) * rest contracted."""
    if op == "adam" and not c.attrs[4]:
        v, g, beta2 = c.ins[2], c.ins[3], c.attrs[2]
        c.outs[2][...] = _state(_multiply_add(v, beta2, (g * g) * (1 - beta2)))


def flushed(op: str, c: Call) -> None:
    """Subnormal results become zero, as on a device without gradual underflow."""
    for out in c.outs:
        if out.dtype == np.float64:
            out[np.abs(out) < 2.0**-1022] = 0.0


def reciprocal(op: str, c: Call) -> None:
    """A softmax that multiplies by 1 / sum, as GPU libraries divide by scalars."""
    if op == "softmax":
        z, out = c.ins[0], c.outs[0]
        e = np.exp(z - z.max(-1, keepdims=True))
        scaled = e * (1 / e.sum(-1, keepdims=True))
        out[...] = np.where(np.abs(out - scaled) < 1e-15, scaled, out)


def single_precision(op: str, c: Call) -> None:
    """Products in binary32, as a GPU does that was not told to use binary64."""
    if op == "matmul":
        c.outs[0][...] = c.outs[0].astype(np.float32)


def other_zeros(op: str, c: Call) -> None:
    """Every zero has the other sign: allowed, as the sign of zero is no part of a value."""
    for out in c.outs:
        if out.dtype == np.float64:
            out[out == 0] *= -1.0


WRONG = [
    one_ulp,
    fused_step,
    fused_decay,
    fused_velocity,
    fused_moments,
    flushed,
    reciprocal,
    single_precision,
]
