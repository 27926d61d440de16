"""The numba backend: the numpy backend with its chains of ufuncs compiled into single loops.

A loop does for one element what the numpy forward does for an array: the same operations in the
same order, with memory read once in place of six times. Nothing here may change a bit: `fastmath`
is off, so that LLVM neither contracts a product and a sum nor reorders, and of functions only the
square root is used, one correctly rounded instruction. Ops without a loop here run as in numpy,
products on BLAS. Where a loop finds what traps, the numpy forward says so.

Needs the extra `mlchain[numba]`; use it by `backends.get_backend`, which tests it first. Code is
compiled when this module is imported (seconds, once; kept beside this file or where
NUMBA_CACHE_DIR says), never in the middle of a step.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from numba import boolean, float32, float64, int32, int64, types, void

from mlchain.ml_runtime import functions, grid
from mlchain.ml_runtime.machine import NumpyBackend, Run
from mlchain.ml_runtime.op import Call
from mlchain.ml_runtime.program import Step
from mlchain.ml_runtime.tensor import Array

VERSION: str = numba.__version__

_njit: Any = partial(numba.njit, fastmath=False, error_model="numpy", nogil=True)


def _read(kind: Any, rank: int = 1) -> Any:
    """The type of an array that is only read; parameters of models come read-only."""
    return types.Array(kind, rank, "C", readonly=True)


_F, _S, _I, _I32 = map(_read, (float64, float32, int64, int32))
_F_OUT, _S_OUT = float64[::1], float32[::1]


def _compiled(*signatures: Any) -> Callable[[Any], Any]:
    """Compile a loop now, or take it from the cache."""

    def compile(function: Any) -> Any:
        try:
            return _njit(list(signatures), cache=True)(function)
        except RuntimeError:  # no folder in which a cache could be kept
            return _njit(list(signatures))(function)

    return compile


_inline = _njit()

# Onto grids. Patterns of numbers without their sign are ordered like the numbers, NaN above all.

_SIGN_64, _SIGN_32 = np.int64(0x7FFFFFFFFFFFFFFF), np.int32(0x7FFFFFFF)
_TRAP = int(np.float64(grid.PEAK_TRAP).view(np.int64))
_ZERO = int(np.float64(grid.PEAK_ZERO).view(np.int64))
_INFINITY = int(np.float64(np.inf).view(np.int64))


@_inline
def _peak(bits):
    top = np.int64(0)
    for i in range(bits.size):
        size = bits[i] & _SIGN_64
        top = size if size > top else top
    return top


@_inline
def _magic(peak, width):
    """1.5 * 2^52 units of the grid of `width` bits that a largest pattern asks for."""
    return np.int64((((peak >> 52) + 54 - width) << 52) | (1 << 51)).view(np.float64)


@_compiled(boolean(_F, _I, int64, _F_OUT))
def _quantise(x, bits, width, out):
    top = _peak(bits)
    if top >= _TRAP:
        return False
    if top < _ZERO:
        out[:] = 0.0
        return True
    magic = _magic(top, width)
    for i in range(x.size):
        out[i] = (x[i] + magic) - magic
    return True


@_compiled(boolean(_F_OUT, _I, int64))
def _quantise_in_place(x, bits, width):
    top = _peak(bits)
    if top >= _TRAP:
        return False
    if top < _ZERO:
        x[:] = 0.0
        return True
    magic = _magic(top, width)
    for i in range(x.size):
        x[i] = (x[i] + magic) - magic
    return True


@_compiled(boolean(_S, _I32, int64, _F_OUT))
def _quantise_state(x, bits, width, out):
    top32 = np.int32(0)
    for i in range(bits.size):
        size = bits[i] & _SIGN_32
        top32 = size if size > top32 else top32
    top = np.float64(np.int32(top32).view(np.float32)).view(np.int64) & _SIGN_64
    if top >= _TRAP:
        return False
    if top < _ZERO:
        out[:] = 0.0
        return True
    magic = _magic(top, width)
    for i in range(x.size):
        out[i] = (np.float64(x[i]) + magic) - magic
    return True


@_compiled(boolean(_F, _I, int64, int64, _F_OUT))
def _quantise_rows(x, bits, width, columns, out):
    for start in range(0, x.size, columns):
        stop = start + columns
        if not _quantise(x[start:stop], bits[start:stop], width, out[start:stop]):
            return False
    return True


@_compiled(boolean(_F, _I, float64, float64, _F_OUT))
def _saturate(x, bits, limit, magic, out):
    if _peak(bits) >= _INFINITY:
        return False
    for i in range(x.size):
        y = x[i]
        y = -limit if y < -limit else y
        y = limit if y > limit else y
        out[i] = (y + magic) - magic
    return True


# Functions, by the tables of functions.py; a change there has to change this file, too, or the
# cache would keep the old ones (and the self-test refuse them).

_EXP2 = functions.EXP2.view(np.int64)
_LOG_INVERSE, _LOG_VALUE = functions.LOG_INVERSE, functions.LOG_VALUE
_E1, _E2, _E3, _LN2 = functions.E1, functions.E2, functions.E3, functions.LN2
_LOG2E, _SMALLEST, _THIRD = functions.LOG2E, functions.SMALLEST_LOG, 1 / 3
_ROUNDER = 1.5 * 2.0 ** (52 - functions.EXP_BITS)


@_inline
def _exp_scaled(x, factor):
    y = x * factor
    y = -100.0 if y < -100.0 else y
    y = 100.0 if y > 100.0 else y
    z = y + _ROUNDER
    r = y - (z - _ROUNDER)
    p = r * _E3
    p = p + _E2
    p = p * r
    p = p + _E1
    p = p * r
    p = p + 1.0
    bits = np.float64(z).view(np.int64)
    raised = _EXP2[bits & 2047] + (((bits << 13) >> 24) << 52)
    return np.int64(raised).view(np.float64) * p


@_inline
def _log_one(x):
    bits = np.float64(_SMALLEST if x < _SMALLEST else x).view(np.int64)
    exponent = np.float64((bits >> 52) - 1023)
    fraction = bits & 0xFFFFFFFFFFFFF
    j = fraction >> 42
    s = np.int64(fraction | (1023 << 52)).view(np.float64) * _LOG_INVERSE[j] - 1.0
    t = _LOG_VALUE[j] + exponent * _LN2
    p = s * -0.25
    p = p + _THIRD
    p = p * s
    p = p + -0.5
    p = p * s
    p = p + 1.0
    p = p * s
    p = p + t
    return p + (x - x)


@_compiled(void(_F, _F_OUT))
def _exp(x, out):
    for i in range(x.size):
        out[i] = _exp_scaled(x[i], _LOG2E)


@_compiled(void(_F, _F_OUT))
def _log(x, out):
    for i in range(x.size):
        out[i] = _log_one(x[i])


@_compiled(void(_F, _F_OUT))
def _sigmoid(x, out):
    for i in range(x.size):
        out[i] = 1.0 / (_exp_scaled(x[i], -_LOG2E) + 1.0)


@_compiled(void(_F, _F_OUT))
def _tanh(x, out):
    for i in range(x.size):
        out[i] = 1.0 - 2.0 / (_exp_scaled(x[i], 2 * _LOG2E) + 1.0)


@_compiled(void(_F, _F_OUT))
def _relu(x, out):
    for i in range(x.size):
        out[i] = 0.0 if x[i] <= 0.0 else x[i]


@_compiled(void(_F, _F, _F_OUT))
def _relu_gradient(g, y, out):
    for i in range(g.size):
        out[i] = g[i] * (1.0 if y[i] > 0.0 else 0.0)


_TERMS = 1.5 * 2.0**12  # rounds a term of a softmax to multiples of 2^-40


@_compiled(void(_F, int64, _F_OUT))
def _softmax(z, columns, out):
    for start in range(0, z.size, columns):
        largest = z[start]
        for i in range(start + 1, start + columns):
            largest = z[i] if z[i] > largest else largest
        total = 0.0
        for i in range(start, start + columns):
            e = _exp_scaled(z[i] - largest, _LOG2E)
            out[i] = e
            total += (e + _TERMS) - _TERMS
        for i in range(start, start + columns):
            out[i] = out[i] / total


# Trees

_F2, _F2_OUT = _read(float64, 2), float64[:, ::1]


@_compiled(void(_F2, _I, _F, _I, _F2, int64, int64, int64, _F2_OUT))
def _trees(x, feature, threshold, child, value, trees, depth, groups, out):
    width = value.shape[1]
    for tree in range(trees):  # the nodes of one tree stay in the cache
        at = tree % groups * width
        for row in range(x.shape[0]):
            node = np.int64(tree)
            for _ in range(depth):
                follow = child[node] + (x[row, feature[node]] > threshold[node])
                if follow == node:  # a leaf: what follows is itself
                    break
                node = follow
            for i in range(width):
                v = value[node, i]
                out[row, at + i] = v if tree < groups else out[row, at + i] + v


# Updates

_TINY = 2.0**-60


@_inline
def _rounded(x):
    return np.float32((x + _TINY) - _TINY)


@_compiled(void(_S, _F, float64, float64, _S_OUT))
def _sgd(p, g, rate, decay, new_p):
    for i in range(p.size):
        slope = g[i] + np.float64(p[i]) * decay if decay != 0.0 else g[i]
        new_p[i] = _rounded(np.float64(p[i]) - slope * rate)


@_compiled(void(_S, _S, _F, float64, float64, float64, _S_OUT, _S_OUT))
def _momentum(p, v, g, rate, mu, decay, new_p, new_v):
    for i in range(p.size):
        slope = g[i] + np.float64(p[i]) * decay if decay != 0.0 else g[i]
        w = np.float64(v[i]) * mu + slope
        new_p[i] = _rounded(np.float64(p[i]) - w * rate)
        new_v[i] = _rounded(w)


@_compiled(void(_S, _S, _S, _F, _F, boolean, _S_OUT, _S_OUT, _S_OUT))
def _adam(p, m, v, g, numbers, decoupled, new_p, new_m, new_v):
    beta1, beta2, epsilon, decay = numbers[0], numbers[1], numbers[2], numbers[3]
    rest1, rest2, step, unbias, shrink = numbers[4:9]
    decay = 0.0 if decoupled else decay
    for i in range(p.size):
        slope = g[i] + np.float64(p[i]) * decay if decay != 0.0 else g[i]
        w = np.float64(v[i]) * beta2 + (slope * slope) * rest2
        u = np.float64(m[i]) * beta1 + slope * rest1
        change = (u / (np.sqrt(w * unbias) + epsilon)) * step
        new_v[i] = _rounded(w)
        new_m[i] = _rounded(u)
        weight = np.float64(p[i])
        if decoupled:
            weight = weight - weight * shrink
        new_p[i] = _rounded(weight - change)


# From ops to loops: each binder takes what an op works on, once, and returns what to call. A loop
# that returns False has met what traps.

Loop = Callable[[], Any]


def _flat(arrays: Any) -> list[Array]:
    return [a.reshape(-1) for a in arrays]


def _bind_quantise(c: Call) -> Loop:
    (x,), (out,), width = _flat(c.ins), _flat(c.outs), int(c.attrs[0])
    if x.dtype == np.float32:
        bits32 = x.view(np.int32)
        return lambda: _quantise_state(x, bits32, width, out)
    bits = x.view(np.int64)
    if np.shares_memory(x, out):
        return lambda: _quantise_in_place(out, bits, width)
    return lambda: _quantise(x, bits, width, out)


def _bind_quantise_rows(c: Call) -> Loop:
    (x,), (out,), width = _flat(c.ins), _flat(c.outs), int(c.attrs[0])
    bits, columns = x.view(np.int64), c.ins[0].shape[-1]
    return lambda: _quantise_rows(x, bits, width, columns, out)


def _bind_trees(c: Call) -> Loop:
    return partial(_trees, *c.ins, *map(int, c.attrs), c.outs[0])


def _bind_saturate(c: Call) -> Loop | None:
    (x,), (out,) = _flat(c.ins), _flat(c.outs)
    if x.dtype == np.float32:
        return None
    limit, magic = grid.fixed_grid(int(c.attrs[0]), int(c.attrs[1]))
    bits = x.view(np.int64)
    return lambda: _saturate(x, bits, limit, magic, out)


def _bind_plain(loop: Any) -> Callable[[Call], Loop]:
    def bind(c: Call) -> Loop:
        arrays = *_flat(c.ins), *_flat(c.outs)
        return lambda: loop(*arrays)

    return bind


def _bind_softmax(c: Call) -> Loop:
    (z,), (out,), columns = _flat(c.ins), _flat(c.outs), c.ins[0].shape[-1]
    return lambda: _softmax(z, columns, out)


def _bind_sgd(op: Any, c: Call) -> Loop:
    (p, g, *_), (new_p,), decay = _flat(c.ins), _flat(c.outs), float(c.attrs[1])
    return lambda: _sgd(p, g, op.rate(c), decay, new_p)


def _bind_momentum(op: Any, c: Call) -> Loop:
    (p, v, g, *_), outs, (_, mu, decay) = _flat(c.ins), _flat(c.outs), map(float, c.attrs)
    return lambda: _momentum(p, v, g, op.rate(c), mu, decay, *outs)


def _bind_adam(op: Any, c: Call) -> Loop:
    p, m, v, g, powers, *_ = _flat(c.ins)
    outs, (_, *numbers) = _flat(c.outs), map(float, c.attrs)
    beta1, beta2, _, decay = numbers
    constants = np.array([*numbers, 1 - beta1, 1 - beta2, 0.0, 0.0, 0.0])

    def run() -> bool:
        power1, power2 = powers.tolist()
        if not (0 <= power1 < 1 and 0 <= power2 < 1):
            return False
        rate = op.rate(c)
        constants[6:] = rate / (1 - power1), 1 / (1 - power2), rate * decay
        _adam(p, m, v, g, constants, op.decoupled, *outs)
        return True

    return run


BINDERS: dict[str, Callable[[Call], Loop | None]] = {
    "quantise": _bind_quantise,
    "quantise_rows": _bind_quantise_rows,
    "trees": _bind_trees,
    "saturate": _bind_saturate,
    "sigmoid": _bind_plain(_sigmoid),
    "tanh": _bind_plain(_tanh),
    "exp": _bind_plain(_exp),
    "log": _bind_plain(_log),
    "relu": _bind_plain(_relu),
    "relu_gradient": _bind_plain(_relu_gradient),
    "softmax": _bind_softmax,
}
"""Ops that have a loop, by name."""

UPDATES: dict[str, Callable[[Any, Call], Loop]] = {
    f"{prefix}{name}": binder
    for prefix in ("", "scheduled_")
    for name, binder in (
        ("sgd", _bind_sgd),
        ("momentum", _bind_momentum),
        ("adam", _bind_adam),
        ("adamw", _bind_adam),
    )
}
"""The same for updates, whose op knows the rate of the step."""


class NumbaBackend(NumpyBackend):
    """The numpy backend with compiled loops where there is one; the same workspace rules."""

    name = "numba"

    def bind_op(self, step: Step, call: Call) -> Run:
        """Return the loop of an op, or its numpy forward."""
        forward = super().bind_op(step, call)
        arrays = (*call.ins, *call.outs)
        if not all(a.flags.aligned and a.flags.c_contiguous for a in arrays):
            return forward
        name, loop = step.op.name, None
        if name in BINDERS:
            loop = BINDERS[name](call)
        elif name in UPDATES:
            loop = UPDATES[name](step.op, call)
        if loop is None:
            return forward

        def run() -> None:
            if loop() is False:
                forward()  # raises the trap

        return run
