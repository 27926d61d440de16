"""exp, log, sigmoid and tanh from tables and single IEEE operations, never from libm.

libm, numpy and compilers give different last bits on different processors. Here every function is
a written sequence of correctly rounded binary64 operations on tables that integers alone produced,
so the sequence *is* the definition. Errors stay below 3 units in the last place of 1.

    exp    y = clamp(x log2 e, +-100), k = round(2048 y), r = y - k/2048;
           2^(k mod 2048 / 2048) * 2^(k div 2048) * (1 + r(E1 + r(E2 + r E3)))
    log    x = m 2^e, c = table(1/m, 24 bits), s = m c - 1;
           table(-ln c) + e ln 2 + s(1 + s(-1/2 + s(1/3 - s/4)));  x below 2^-1000 counts as that

Not-a-number stays so. Source: MLRT-1 rule 6; the method is P. T. P. Tang's (ACM TOMS 15, 1989).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import blake2s

import numpy as np

from mlchain.ml_runtime.tensor import Array

BLOCK = 16384
"""Elements worked on at a time, so that scratch stays in the cache."""

EXP_BITS, LOG_BITS = 11, 10
CLAMP = 100.0
SMALLEST_LOG = 2.0**-1000
_P = 200  # fractional bits of the integers below


def nearest(value: int, fraction_bits: int) -> float:
    """Return the binary64 nearest to value / 2^fraction_bits > 0, half to even, by integers."""
    shift = value.bit_length() - 53
    if shift <= 0:
        return math.ldexp(value, -fraction_bits)
    quotient, rest, half = value >> shift, value & ((1 << shift) - 1), 1 << (shift - 1)
    quotient += rest > half or (rest == half and quotient & 1)
    return math.ldexp(quotient, shift - fraction_bits)


def _ln(numerator: int, denominator: int) -> int:
    """Return floor-ish 2^_P ln(n/d) for 1 <= n/d <= 2: twice the series of artanh."""
    ratio = ((numerator - denominator) << _P) // (numerator + denominator)
    square, term, total, k = ratio * ratio >> _P, ratio, 0, 1
    while term:
        total += term // k
        term, k = term * square >> _P, k + 2
    return 2 * total


def _exp2_table() -> list[float]:
    """Return 2^(j/2048) for every j, from eleven integer square roots of 2."""
    roots, root = [], 2 << _P
    for _ in range(EXP_BITS):
        root = math.isqrt(root << _P)
        roots.append(root)
    values = [1 << _P]
    for root in roots:  # 2^(1/2) first: each pass appends the next binary digit of j
        values = [w for v in values for w in (v, v * root >> _P)]
    return [nearest(v, _P) for v in values]


def _log_tables() -> tuple[list[float], list[float]]:
    """Return 1/m on a 2^-24 grid at the centre of each of 1024 intervals of [1, 2), and its -ln."""
    inverses, logs = [], []
    for j in range(1 << LOG_BITS):
        numerator, denominator = (2 << LOG_BITS) + 2 * j + 1, 2 << LOG_BITS
        inverse = ((denominator << 24) + numerator // 2) // numerator
        inverses.append(inverse / 2.0**24)
        logs.append(nearest(_ln(1 << 24, inverse), _P))
    return inverses, logs


_LN2 = _ln(2, 1)
LN2 = nearest(_LN2, _P)
LOG2E = nearest((1 << 2 * _P) // _LN2, _P)
E1 = LN2
E2 = nearest((_LN2**2 >> _P) // 2, _P)
E3 = nearest((_LN2**3 >> 2 * _P) // 6, _P)
EXP2 = np.array(_exp2_table())
LOG_INVERSE, LOG_VALUE = (np.array(t) for t in _log_tables())

TABLE_DIGEST = blake2s(
    b"".join(
        np.asarray(t, "<f8").tobytes()
        for t in (EXP2, LOG_INVERSE, LOG_VALUE, [LN2, LOG2E, E1, E2, E3])
    )
).hexdigest()
PINNED_TABLE_DIGEST = "1eea19438e14d7d9cb9b2ff96422708f054c2fc5ec117aa4ed431ae6a6f8dce2"

_EXP2_BITS = EXP2.view(np.int64)
_MASK = (1 << EXP_BITS) - 1
_MANTISSA = (1 << 52) - 1
_ONE_BITS = 1023 << 52
_MAGIC = np.array(1.5 * 2.0 ** (52 - EXP_BITS))  # adding it rounds to multiples of 2^-11


def constant(value: float) -> Array:
    """Return a binary64 as numpy takes it fastest: an array without dimensions."""
    return np.array(value, np.float64)


_1, _2, _HALF, _THIRD, _QUARTER = map(constant, (1.0, 2.0, -0.5, 1 / 3, -0.25))
_E1, _E2, _E3, _LN2_0 = map(constant, (E1, E2, E3, LN2))
_UPPER, _LOWER, _SMALLEST = map(constant, (CLAMP, -CLAMP, SMALLEST_LOG))
ERF = (
    -1.2656555364609996,
    1.00343220732,
    0.338578069956,
    0.308871039492,
    -0.986787164208,
    2.2706179961,
    -4.44437277928,
    5.1190477143,
    -3.34489132141,
    1.17594909575,
    -0.174789321559,
)
"""ln(erfc(z) / t) + z^2 as powers of t = 2 / (2 + z), for 0 <= z <= 6; together exactly 0."""

GELU_CUBE, GELU_SLOPE = 0.044715, 1.5957691216057308
"""c and 2 sqrt(2 / pi) of gelu(x) = x sigmoid(2 sqrt(2 / pi) (x + c x^3))."""
GELU_FACTOR = -(GELU_SLOPE * LOG2E)
GELU_CUBE_SLOPE = 3.0 * GELU_CUBE * GELU_SLOPE
_GELU_CUBE, _GELU_SLOPE, _GELU_FACTOR, _GELU_CUBE_SLOPE = map(
    constant, (GELU_CUBE, GELU_SLOPE, GELU_FACTOR, GELU_CUBE_SLOPE)
)
_FACTOR_EXP, _FACTOR_SIGMOID, _FACTOR_TANH = map(constant, (LOG2E, -LOG2E, 2 * LOG2E))


class Scratch:
    """Workspace of ROWS rows of BLOCK numbers, seen as binary64 or, the same bytes, as int64."""

    ROWS = 4
    PADDING = 72  # rows a power of two apart would compete for the same cache lines
    BYTES = ROWS * (BLOCK + PADDING) * 8

    def __init__(self) -> None:
        self._floats = np.empty((self.ROWS, BLOCK + self.PADDING))
        self._views: dict[int, tuple[list[Array], list[Array]]] = {}

    def rows(self, size: int) -> tuple[list[Array], list[Array]]:
        """Return the rows cut to `size` elements, as binary64 and as int64."""
        views = self._views.get(size)
        if views is None:
            floats = [row[:size] for row in self._floats]
            views = self._views[size] = floats, [row.view(np.int64) for row in floats]
        return views


Kernel = Callable[[Array, Array, Scratch], None]


def _exp_scaled(x: Array, factor: Array, out: Array, scratch: Scratch) -> None:
    """out = 2^clamp(x factor)."""
    (z, r, p, y), (bits, index, _, table) = scratch.rows(x.size)
    np.multiply(x, factor, y)
    np.maximum(y, _LOWER, out=y)
    np.minimum(y, _UPPER, out=y)
    np.add(y, _MAGIC, z)
    np.subtract(z, _MAGIC, r)
    np.subtract(y, r, r)  # |r| <= 2^-12, exact
    np.multiply(r, _E3, p)
    np.add(p, _E2, p)
    np.multiply(p, r, p)
    np.add(p, _E1, p)
    np.multiply(p, r, p)
    np.add(p, _1, p)
    np.bitwise_and(bits, _MASK, index)
    _EXP2_BITS.take(index, None, table, "clip")
    np.left_shift(bits, 13, bits)  # drop sign, exponent and the leading bits of the magic
    np.right_shift(bits, 13 + EXP_BITS, bits)  # arithmetic: k div 2048
    np.left_shift(bits, 52, bits)
    np.add(table, bits, table)  # 2^(k mod 2048 / 2048) with its exponent raised
    np.multiply(y, p, out)  # y shares its bytes with table


def _exp(x: Array, out: Array, scratch: Scratch) -> None:
    _exp_scaled(x, _FACTOR_EXP, out, scratch)


def _sigmoid(x: Array, out: Array, scratch: Scratch) -> None:
    _exp_scaled(x, _FACTOR_SIGMOID, out, scratch)
    np.add(out, _1, out)
    np.divide(_1, out, out)


def _tanh(x: Array, out: Array, scratch: Scratch) -> None:
    _exp_scaled(x, _FACTOR_TANH, out, scratch)
    np.add(out, _1, out)
    np.divide(_2, out, out)
    np.subtract(_1, out, out)


def _log(x: Array, out: Array, scratch: Scratch) -> None:
    (m, e, p, t), (bits, exponent, index, _) = scratch.rows(x.size)
    np.maximum(x, _SMALLEST, out=m)
    np.right_shift(bits, 52, exponent)
    np.subtract(exponent, 1023, exponent)
    np.bitwise_and(bits, _MANTISSA, bits)
    np.right_shift(bits, 52 - LOG_BITS, index)
    np.bitwise_or(bits, _ONE_BITS, bits)  # m is now in [1, 2)
    LOG_INVERSE.take(index, None, t, "clip")
    np.multiply(m, t, m)
    np.subtract(m, _1, m)
    LOG_VALUE.take(index, None, t, "clip")
    np.multiply(exponent, _LN2_0, e)
    np.add(t, e, t)
    np.multiply(m, _QUARTER, p)
    np.add(p, _THIRD, p)
    np.multiply(p, m, p)
    np.add(p, _HALF, p)
    np.multiply(p, m, p)
    np.add(p, _1, p)
    np.multiply(p, m, p)
    np.add(p, t, p)
    np.subtract(x, x, m)  # 0, or NaN where x is not finite: bit tricks must not hide it
    np.add(p, m, out)


def gelu(x: Array, y: Array, s: Array, scratch: Scratch) -> None:
    """s = sigmoid(2 sqrt(2 / pi) (x + c x^3)), y = x s, for contiguous vectors of up to BLOCK."""
    np.multiply(x, x, s)
    np.multiply(s, _GELU_CUBE, s)
    np.multiply(s, x, s)
    np.add(s, x, s)
    _exp_scaled(s, _GELU_FACTOR, s, scratch)
    np.add(s, _1, s)
    np.divide(_1, s, s)
    np.multiply(x, s, y)


def gelu_gradient(g: Array, x: Array, s: Array, out: Array, scratch: Scratch) -> None:
    """out = g s (1 + x (1 - s) 2 sqrt(2 / pi) (1 + 3 c x^2)), for vectors of up to BLOCK."""
    (z, rest, *_), _ = scratch.rows(x.size)
    np.multiply(x, x, z)
    np.multiply(z, _GELU_CUBE_SLOPE, z)
    np.add(z, _GELU_SLOPE, z)
    np.multiply(z, x, z)
    np.subtract(_1, s, rest)
    np.multiply(z, rest, z)
    np.add(z, _1, z)
    np.multiply(z, s, z)
    np.multiply(g, z, out)


def _blocked(kernel: Kernel) -> Kernel:
    """Return `kernel` for contiguous arrays of any size; out may be x itself."""

    def apply(x: Array, out: Array, scratch: Scratch) -> None:
        source, target = x.reshape(-1), out.reshape(-1)
        for start in range(0, source.size, BLOCK):
            kernel(source[start : start + BLOCK], target[start : start + BLOCK], scratch)

    return apply


exp = _blocked(_exp)
log = _blocked(_log)
sigmoid = _blocked(_sigmoid)
tanh = _blocked(_tanh)
