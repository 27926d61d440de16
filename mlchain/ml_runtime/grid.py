"""Rounding: onto a grid, into state, and the probe that this process rounds as IEEE-754 says.

Source: MLRT-1 rules 1, 2 and 7.
"""

from __future__ import annotations

import math

import numpy as np

from mlchain.errors import ConfigError, Trap
from mlchain.ml_runtime.tensor import Array

PEAK_TRAP = 2.0**500
"""At or above this the products of two grids might leave binary64: the job fails."""
PEAK_ZERO = 2.0**-400
"""Below this a tensor counts as zero."""
PRODUCT_BITS = 16
"""Grid of operands of products."""
SUM_BITS = 32
"""Grid of operands of sums."""
EXACT_BITS = 53
"""Sums stay exact while they fit the significand of binary64."""

_MAGIC = 1.5 * 2.0**52  # (x + c) - c rounds x to multiples of the unit in the last place of c
_TINY = np.array(2.0**-60)


def peak(x: Array) -> float:
    """Return max |x| of a contiguous array, NaN if any element is."""
    flat = x.reshape(-1)
    return max(float(np.maximum.reduce(flat)), -float(np.minimum.reduce(flat)))


def exponent_of(largest: float) -> int:
    """Return the least E with |x| < 2^E for every |x| <= largest: 1 + floor(log2 largest)."""
    return math.frexp(largest)[1]


def quantise(x: Array, bits: int, largest: float, out: Array) -> None:
    """out = x rounded to the grid of `bits` bits that max|x| = `largest` asks for.

    Raises:
        Trap: `largest` is not a number or 2^500 and more.
    """
    if not largest < PEAK_TRAP:
        raise Trap("quantise: a value is not finite or reaches 2^500")
    if largest < PEAK_ZERO:
        out.fill(0.0)
        return
    magic = np.array(math.ldexp(_MAGIC, exponent_of(largest) - (bits - 1)))
    if x.dtype == out.dtype:
        np.add(x, magic, out)
    else:
        out[...] = x  # state is widened first
        np.add(out, magic, out)
    np.subtract(out, magic, out)


def quantise_rows(x: Array, bits: int, out: Array) -> None:
    """out, another array than x, = x with every row along the last axis on the grid it asks for.

    Raises:
        Trap: a value is not a number or of magnitude 2^500 and more.
    """
    np.absolute(x, out=out)
    peaks = np.maximum.reduce(out, axis=-1, keepdims=True)
    if not np.maximum.reduce(peaks, axis=None) < PEAK_TRAP:
        raise Trap("quantise_rows: a value is not finite or reaches 2^500")
    nothing = peaks < PEAK_ZERO
    pattern = peaks.view(np.int64)  # becomes 1.5 * 2^52 units, by its exponent
    np.right_shift(pattern, 52, out=pattern)
    np.add(pattern, 54 - bits, out=pattern)
    np.left_shift(pattern, 52, out=pattern)
    np.bitwise_or(pattern, 1 << 51, out=pattern)
    np.add(x, peaks, out=out)
    np.subtract(out, peaks, out=out)
    if nothing.any():
        out[nothing[..., 0]] = 0.0


def is_on_grid(x: Array, bits: int, by_rows: bool = False) -> bool:
    """Whether x may be a G(bits) tensor: m 2^e with |m| <= 2^(bits-1), as rounding leaves it.

    With `by_rows` each row along the last axis has its own e: whether x may be an R(bits) tensor.
    """
    rows = x.reshape(-1, x.shape[-1] if by_rows else x.size)
    peaks = np.maximum.reduce(np.absolute(rows), axis=1, keepdims=True)
    if not np.maximum.reduce(peaks, axis=None) < PEAK_TRAP:
        return False
    if np.any((peaks > 0) & (peaks < PEAK_ZERO)):
        return False
    fractions, exponents = np.frexp(peaks)
    exponents -= fractions == 0.5  # |m| = 2^(bits-1) itself is allowed
    scaled = np.ldexp(rows, bits - 1 - exponents)
    return bool(np.all(np.rint(scaled) == scaled))


def saturate(x: Array, bits: int, exponent: int, out: Array) -> None:
    """out = x on the fixed grid below 2^exponent, larger values clipped to its ends.

    Raises:
        Trap: a value is not finite.
    """
    if not peak(x) < math.inf:
        raise Trap("saturate: a value is not finite")
    limit, magic = fixed_grid(bits, exponent)
    np.maximum(x, -limit, out=out, dtype=np.float64)
    np.minimum(out, limit, out=out)
    np.add(out, magic, out=out)
    np.subtract(out, magic, out=out)


def fixed_grid(bits: int, exponent: int) -> tuple[float, float]:
    """Return the largest number of the grid of `bits` bits below 2^exponent, and its rounder."""
    unit = math.ldexp(1.0, exponent - (bits - 1))
    return math.ldexp(1.0, exponent) - unit, _MAGIC * unit


def total(x: Array, bits: int) -> float:
    """Return the exact sum of a G(bits) array of any size, rounded once if it has over 53 bits."""
    flat, block = x.reshape(-1), 1 << (EXACT_BITS - (bits - 1))
    parts = (flat[at : at + block] for at in range(0, flat.size, block))
    return math.fsum(float(np.add.reduce(part)) for part in parts)


def round_state(x: Array, out: Array) -> None:
    """out (binary32) = x (binary64, overwritten) without what lies below 2^-113; never -0."""
    np.add(x, _TINY, x)
    np.subtract(x, _TINY, x)
    out[...] = x


def probe() -> None:
    """Return if this process rounds to nearest even and keeps subnormal numbers.

    Another library in the process may have switched the processor to flush them to zero.

    Raises:
        ConfigError: it does not; every result would differ from everybody else's.
    """
    one, least = np.ones(8), np.full(8, 2.0**-1022)
    checks = {
        "rounding is not to nearest even": np.all(one + 2.0**-53 == 1.0)
        and np.all((one + 2.0**-52) + 2.0**-53 == 1.0 + 2.0**-51)
        and np.all(one - 2.0**-54 == 1.0),
        "subnormal numbers are flushed to zero": np.all((least * 0.5) * 2.0**60 == 2.0**-963),
        "a multiply-add was fused": np.all(
            (one + 2.0**-30) * (one + 2.0**-30) - (1.0 + 2.0**-29) == 0.0
        ),
    }
    for wrong, good in checks.items():
        if not good:
            raise ConfigError(
                f"floating point: {wrong}", "run the node without libraries that change this"
            )
