"""The oracle: a second, slow implementation of every op, to hold the fast ones against.

It shares no arithmetic with the numpy backend. Sums and products are rational arithmetic on
Python integers; elementwise ops are single operations on Python floats; square roots, rounding
onto grids and into binary32 are integer arithmetic. A tensor is a flat list of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import add, mul, sub

import numpy as np

from mlchain.errors import Trap
from mlchain.ml_runtime import functions
from mlchain.ml_runtime.machine import Run, Trace
from mlchain.ml_runtime.op import Values
from mlchain.ml_runtime.program import Checked, Program, check
from mlchain.ml_runtime.tensor import Array, Type, digest, storage

Numbers = list[float]


@dataclass(frozen=True, slots=True)
class Operands:
    """Inputs of an op with their shapes, its attributes, the shape of its first output."""

    ins: Sequence[Numbers]
    shapes: Sequence[tuple[int, ...]]
    attrs: Values
    out: tuple[int, ...]


Twin = Callable[[Operands], tuple[Numbers, ...]]


class Oracle:
    """A backend of plain Python; see `machine.Backend`."""

    name = "oracle"

    def bind(
        self,
        program: Program,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        trace: Trace | None = None,
    ) -> Run:
        """Bind a program; see `machine.Backend`."""
        checked = check(program)

        def run() -> None:
            registers = [array.reshape(-1).tolist() for array in inputs]
            _interpret(checked, registers, trace)
            for register, array in zip(program.outputs, outputs, strict=True):
                array.reshape(-1)[:] = registers[register]

        return run


def _interpret(checked: Checked, registers: list[Numbers], trace: Trace | None) -> None:
    types = checked.types
    for step in checked.steps:
        operands = Operands(
            [registers[r] for r in step.inputs],
            [types[r].shape for r in step.inputs],
            step.attrs,
            types[step.outputs[0]].shape,
        )
        results = TWINS[step.op.name](operands)
        registers.extend(results)
        if trace is not None:
            for register, values in zip(step.outputs, results, strict=True):
                trace.append(_digest(types[register], values))


def _digest(kind: Type, values: Numbers) -> bytes:
    with np.errstate(over="ignore"):
        return digest(kind, np.array(values, storage(kind)).reshape(kind.shape))


# Rounding, by integers.


def _round_half_even(value: Fraction) -> int:
    whole, rest = divmod(value.numerator, value.denominator)
    return whole + (2 * rest > value.denominator or (2 * rest == value.denominator and whole & 1))


def _binary_exponent(value: Fraction) -> int:
    """Return floor(log2 value) for value > 0."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if value >= Fraction(2) ** exponent else exponent - 1


def _peak(values: Numbers) -> float:
    return math.nan if any(v != v for v in values) else max(map(abs, values))


def _on_grid(value: float, exponent: int) -> Fraction:
    return _round_half_even(Fraction(value) / Fraction(2) ** exponent) * Fraction(2) ** exponent


def _state(value: float) -> float:
    """Return binary32((x + 2^-60) - 2^-60); infinite beyond the largest binary32."""
    value = (value + 2.0**-60) - 2.0**-60
    if not math.isfinite(value) or value == 0:
        return value
    exponent = max(_binary_exponent(abs(Fraction(value))), -126) - 23
    rounded = _on_grid(value, exponent)
    return math.copysign(math.inf, value) if abs(rounded) >= 2**128 else float(rounded)


def _sqrt(value: float) -> float:
    """Return the correctly rounded square root, by an integer one with 64 bits to spare."""
    if not value > 0 or value == math.inf:
        return value if not value < 0 else math.nan
    exact = Fraction(value)
    shift = max(0, 64 - _binary_exponent(exact) // 2)
    scaled = int(exact * 4**shift)
    root = math.isqrt(scaled)
    sticky = root * root != scaled  # an inexact root lies above `root`: never exactly half way
    return float(Fraction(2 * root + sticky, 2 << shift))


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _maximum(a: float, b: float) -> float:
    return a if a != a or a > b else b


def _minimum(a: float, b: float) -> float:
    return a if a != a or a < b else b


# Functions, from the same tables.


def _exp_scaled(x: float, factor: float) -> float:
    y = _minimum(_maximum(x * factor, -functions.CLAMP), functions.CLAMP)
    if y != y:
        return y
    k = _round_half_even(Fraction(y) * 2048)
    r = y - k / 2048
    p = ((r * functions.E3 + functions.E2) * r + functions.E1) * r + 1.0
    return math.ldexp(float(functions.EXP2[k % 2048]), k // 2048) * p


def _log(x: float) -> float:
    if not math.isfinite(x):
        return math.nan
    mantissa, exponent = math.frexp(max(x, functions.SMALLEST_LOG))
    m, e = 2 * mantissa, exponent - 1
    j = int((m - 1) * 1024)
    s = m * float(functions.LOG_INVERSE[j]) - 1.0
    t = float(functions.LOG_VALUE[j]) + e * functions.LN2
    return (((s * -0.25 + 1 / 3) * s + -0.5) * s + 1.0) * s + t


def _sigmoid(x: float) -> float:
    return _divide(1.0, _exp_scaled(x, -functions.LOG2E) + 1.0)


def _tanh(x: float) -> float:
    return 1.0 - _divide(2.0, _exp_scaled(x, 2 * functions.LOG2E) + 1.0)


# Exact ops.


def _quantise(o: Operands) -> tuple[Numbers, ...]:
    largest = _peak(o.ins[0])
    if not largest < 2.0**500:
        raise Trap("quantise: a value is not finite or reaches 2^500")
    if largest < 2.0**-400:
        return ([0.0] * len(o.ins[0]),)
    exponent = 1 + _binary_exponent(Fraction(largest)) - (int(o.attrs[0]) - 1)
    return ([float(_on_grid(v, exponent)) for v in o.ins[0]],)


def _saturate(o: Operands) -> tuple[Numbers, ...]:
    if not _peak(o.ins[0]) < math.inf:
        raise Trap("saturate: a value is not finite")
    bits, top = int(o.attrs[0]), int(o.attrs[1])
    exponent = top - (bits - 1)
    limit = float(Fraction(2) ** top - Fraction(2) ** exponent)
    return ([float(_on_grid(min(max(v, -limit), limit), exponent)) for v in o.ins[0]],)


def _integers(values: Numbers) -> tuple[list[int], int]:
    """Return integers m and a denominator d with values = m / d, exactly."""
    ratios = [v.as_integer_ratio() for v in values]
    denominator = max(d for _, d in ratios)
    return [n * (denominator // d) for n, d in ratios], denominator


def _matmul(o: Operands) -> tuple[Numbers, ...]:
    rows, columns = o.out
    (a, da), (b, db) = (_integers(v) for v in o.ins)
    (_, wa), (_, wb) = o.shapes
    ta, tb = o.attrs
    left = [a[i::wa] if ta else a[i * wa : (i + 1) * wa] for i in range(rows)]
    right = [b[j * wb : (j + 1) * wb] if tb else b[j::wb] for j in range(columns)]
    scale = da * db
    return ([float(Fraction(sum(map(mul, x, y)), scale)) for x in left for y in right],)


def _sum_rows(o: Operands) -> tuple[Numbers, ...]:
    values, denominator = _integers(o.ins[0])
    width = o.out[0]
    return ([float(Fraction(sum(values[j::width]), denominator)) for j in range(width)],)


def _sum_all(o: Operands) -> tuple[Numbers, ...]:
    values, denominator = _integers(o.ins[0])
    return ([float(Fraction(sum(values), denominator))],)


# Softmax and its loss.


def _rows(o: Operands) -> list[Numbers]:
    width = o.shapes[0][1]
    return [o.ins[0][i : i + width] for i in range(0, len(o.ins[0]), width)]


def _softmax(o: Operands) -> tuple[Numbers, ...]:
    out: Numbers = []
    for row in _rows(o):
        largest = math.nan if any(v != v for v in row) else max(row)
        terms = [_exp_scaled(v - largest, functions.LOG2E) for v in row]
        if any(t != t for t in terms):
            total = math.nan
        else:
            total = float(sum(_on_grid(t, -40) for t in terms))
        out += [_divide(t, total) for t in terms]
    return (out,)


def _log_loss(o: Operands) -> tuple[Numbers, ...]:
    return ([-_log(row[int(y)]) for row, y in zip(_rows(o), o.ins[1], strict=True)],)


def _softmax_residual(o: Operands) -> tuple[Numbers, ...]:
    out: Numbers = []
    for row, y, g in zip(_rows(o), o.ins[1], o.ins[2], strict=True):
        out += [(p - 1.0 if j == y else p) * g for j, p in enumerate(row)]
    return (out,)


# Updates.


def _decayed(g: float, p: float, decay: float) -> float:
    return g + p * decay if decay else g


def _sgd(o: Operands) -> tuple[Numbers, ...]:
    rate, decay = o.attrs
    return ([_state(p - _decayed(g, p, decay) * rate) for p, g in zip(*o.ins, strict=True)],)


def _momentum(o: Operands) -> tuple[Numbers, ...]:
    rate, mu, decay = o.attrs
    velocity = [v * mu + _decayed(g, p, decay) for p, v, g in zip(*o.ins, strict=True)]
    moved = [_state(p - v * rate) for p, v in zip(o.ins[0], velocity, strict=True)]
    return moved, [_state(v) for v in velocity]


def _adam_powers(o: Operands) -> tuple[Numbers, ...]:
    return ([_state(p * beta) for p, beta in zip(o.ins[0], o.attrs, strict=True)],)


def _adam(o: Operands) -> tuple[Numbers, ...]:
    rate, beta1, beta2, epsilon, decay = o.attrs
    power1, power2 = o.ins[4]
    if not (0 <= power1 < 1 and 0 <= power2 < 1):
        raise Trap("adam: a bias power is outside [0, 1)")
    step, unbias = rate / (1 - power1), 1 / (1 - power2)
    new: tuple[Numbers, Numbers, Numbers] = ([], [], [])
    for p, m, v, g in zip(*o.ins[:4], strict=True):
        g = _decayed(g, p, decay)
        v = v * beta2 + (g * g) * (1 - beta2)
        m = m * beta1 + g * (1 - beta1)
        p = p - _divide(m, _sqrt(v * unbias) + epsilon) * step
        for values, value in zip(new, (p, m, v), strict=True):
            values.append(_state(value))
    return new


# The rest, one operation per element.


def _each(function: Callable[..., float]) -> Twin:
    return lambda o: (list(map(function, *o.ins)),)


def _add(o: Operands) -> tuple[Numbers, ...]:
    x, y = o.ins
    return (list(map(add, x, y * (len(x) // len(y)))),)  # a row is added to every row


def _relu(x: float) -> float:
    return _maximum(x, 0.0)


def _relu_gradient(g: float, y: float) -> float:
    return g * float(y > 0)


TWINS: dict[str, Twin] = {
    "adam": _adam,
    "adam_powers": _adam_powers,
    "add": _add,
    "constant": lambda o: ([float(o.attrs[0])],),
    "log_loss": _log_loss,
    "matmul": _matmul,
    "momentum": _momentum,
    "multiply": _each(mul),
    "quantise": _quantise,
    "relu": _each(_relu),
    "relu_gradient": _each(_relu_gradient),
    "saturate": _saturate,
    "scale": lambda o: ([x * o.attrs[0] for x in o.ins[0]],),
    "sgd": _sgd,
    "sigmoid": _each(_sigmoid),
    "softmax": _softmax,
    "softmax_residual": _softmax_residual,
    "spread": lambda o: (o.ins[0] * len(o.ins[1]),),
    "subtract": _each(sub),
    "sum_all": _sum_all,
    "sum_rows": _sum_rows,
    "tanh": _each(_tanh),
    "widen": lambda o: (list(o.ins[0]),),
}
