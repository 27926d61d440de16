"""What the twins compute with: rounding by integers, functions from the same tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mlchain.ml_runtime import functions
from mlchain.ml_runtime.op import Values

Numbers = list[float]


@dataclass(frozen=True, slots=True)
class Operands:
    """Inputs of an op with their shapes, its attributes, the shape of its first output."""

    ins: Sequence[Numbers]
    shapes: Sequence[tuple[int, ...]]
    attrs: Values
    out: tuple[int, ...]


Twin = Callable[[Operands], tuple[Numbers, ...]]
TWINS: dict[str, Twin] = {}


def twin(name: str) -> Callable[[Twin], Twin]:
    """Decorator: enter the twin of an op into the table."""

    def enter(function: Twin) -> Twin:
        assert name not in TWINS, f"two twins of {name}"
        TWINS[name] = function
        return function

    return enter


def each(name: str, function: Callable[..., float]) -> None:
    """Enter the twin of an op that works element by element."""
    twin(name)(lambda o: (list(map(function, *o.ins)),))


# Rounding, by integers.


def round_half_even(value: Fraction) -> int:
    """Return the nearest integer, ties to even."""
    whole, rest = divmod(value.numerator, value.denominator)
    return whole + (2 * rest > value.denominator or (2 * rest == value.denominator and whole & 1))


def binary_exponent(value: Fraction) -> int:
    """Return floor(log2 value) for value > 0."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if value >= Fraction(2) ** exponent else exponent - 1


def peak(values: Numbers) -> float:
    """Return max |v|, NaN if any value is."""
    return math.nan if any(v != v for v in values) else max(map(abs, values))


def on_grid(value: float, exponent: int) -> Fraction:
    """Return the multiple of 2^exponent nearest to a value, ties to even."""
    return round_half_even(Fraction(value) / Fraction(2) ** exponent) * Fraction(2) ** exponent


def state(value: float) -> float:
    """Return binary32((x + 2^-60) - 2^-60); infinite beyond the largest binary32."""
    return single((value + 2.0**-60) - 2.0**-60)


def single(value: float) -> float:
    """Return the nearest binary32, ties to even; infinite beyond the largest."""
    if not math.isfinite(value) or value == 0:
        return value
    exponent = max(binary_exponent(abs(Fraction(value))), -126) - 23
    rounded = on_grid(value, exponent)
    return math.copysign(math.inf, value) if abs(rounded) >= 2**128 else float(rounded)


def sqrt(value: float) -> float:
    """Return the correctly rounded square root, by an integer one with 64 bits to spare."""
    if not value > 0 or value == math.inf:
        return value if not value < 0 else math.nan
    exact = Fraction(value)
    shift = max(0, 64 - binary_exponent(exact) // 2)
    scaled = int(exact * 4**shift)
    root = math.isqrt(scaled)
    sticky = root * root != scaled  # an inexact root lies above `root`: never exactly half way
    return float(Fraction(2 * root + sticky, 2 << shift))


def divide(a: float, b: float) -> float:
    """Return a / b as IEEE-754 has it, zeros included."""
    if b:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def maximum(a: float, b: float) -> float:
    """Return the larger, NaN if a is."""
    return a if a != a or a > b else b


def minimum(a: float, b: float) -> float:
    """Return the smaller, NaN if a is."""
    return a if a != a or a < b else b


# Functions, from the same tables.


def exp_scaled(x: float, factor: float) -> float:
    """Return 2^clamp(x factor)."""
    y = minimum(maximum(x * factor, -functions.CLAMP), functions.CLAMP)
    if y != y:
        return y
    k = round_half_even(Fraction(y) * 2048)
    r = y - k / 2048
    p = ((r * functions.E3 + functions.E2) * r + functions.E1) * r + 1.0
    return math.ldexp(float(functions.EXP2[k % 2048]), k // 2048) * p


def log(x: float) -> float:
    """Return the logarithm of MLRT-1 rule 6."""
    if not math.isfinite(x):
        return math.nan
    mantissa, exponent = math.frexp(max(x, functions.SMALLEST_LOG))
    m, e = 2 * mantissa, exponent - 1
    j = int((m - 1) * 1024)
    s = m * float(functions.LOG_INVERSE[j]) - 1.0
    t = float(functions.LOG_VALUE[j]) + e * functions.LN2
    return (((s * -0.25 + 1 / 3) * s + -0.5) * s + 1.0) * s + t


def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x))."""
    return divide(1.0, exp_scaled(x, -functions.LOG2E) + 1.0)


def tanh(x: float) -> float:
    """Return 1 - 2 / (1 + exp(2x))."""
    return 1.0 - divide(2.0, exp_scaled(x, 2 * functions.LOG2E) + 1.0)
