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

BLOCK = 8192
"""Elements worked on at a time, so that scratch stays in the cache."""
SCRATCH_ROWS = 4

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
_MAGIC = 1.5 * 2.0 ** (52 - EXP_BITS)  # adding it rounds to multiples of 2^-11
_MASK = (1 << EXP_BITS) - 1
_MANTISSA = (1 << 52) - 1
_ONE_BITS = 1023 << 52

Kernel = Callable[[Array, Array, Array], None]


def _exp2(y: Array, out: Array, scratch: Array) -> None:
    """out = 2^y for |y| <= 100; y may be a row of scratch other than the first three."""
    z, r, p = scratch[0], scratch[1], scratch[2]
    np.add(y, _MAGIC, out=z)
    np.subtract(z, _MAGIC, out=r)
    np.subtract(y, r, out=r)  # |r| <= 2^-12, exact
    np.multiply(r, E3, out=p)
    np.add(p, E2, out=p)
    np.multiply(p, r, out=p)
    np.add(p, E1, out=p)
    np.multiply(p, r, out=p)
    np.add(p, 1.0, out=p)
    bits, index = z.view(np.int64), r.view(np.int64)
    np.bitwise_and(bits, _MASK, out=index)
    np.left_shift(bits, 13, out=bits)  # drop sign, exponent and the leading bits of the magic
    np.right_shift(bits, 13 + EXP_BITS, out=bits)  # arithmetic: k div 2048
    np.left_shift(bits, 52, out=bits)
    table = out.view(np.int64)
    np.take(_EXP2_BITS, index, out=table, mode="clip")
    np.add(table, bits, out=table)
    np.multiply(out, p, out=out)


def _exp_scaled(x: Array, factor: float, out: Array, scratch: Array) -> None:
    """out = 2^clamp(x factor)."""
    y = scratch[3]
    np.multiply(x, factor, out=y)
    np.maximum(y, -CLAMP, out=y)
    np.minimum(y, CLAMP, out=y)
    _exp2(y, out, scratch)


def _exp(x: Array, out: Array, scratch: Array) -> None:
    _exp_scaled(x, LOG2E, out, scratch)


def _sigmoid(x: Array, out: Array, scratch: Array) -> None:
    _exp_scaled(x, -LOG2E, out, scratch)
    np.add(out, 1.0, out=out)
    np.divide(1.0, out, out=out)


def _tanh(x: Array, out: Array, scratch: Array) -> None:
    _exp_scaled(x, 2 * LOG2E, out, scratch)
    np.add(out, 1.0, out=out)
    np.divide(2.0, out, out=out)
    np.subtract(1.0, out, out=out)


def _log(x: Array, out: Array, scratch: Array) -> None:
    m, e, p, t = scratch[0], scratch[1], scratch[2], scratch[3]
    mi, ei, pi = m.view(np.int64), e.view(np.int64), p.view(np.int64)
    np.maximum(x, SMALLEST_LOG, out=m)
    np.right_shift(mi, 52, out=ei)
    np.subtract(ei, 1023, out=ei)
    np.bitwise_and(mi, _MANTISSA, out=mi)
    np.right_shift(mi, 52 - LOG_BITS, out=pi)
    np.bitwise_or(mi, _ONE_BITS, out=mi)
    np.take(LOG_INVERSE, pi, out=t, mode="clip")
    np.multiply(m, t, out=m)
    np.subtract(m, 1.0, out=m)
    np.take(LOG_VALUE, pi, out=t, mode="clip")
    np.multiply(ei, LN2, out=e)
    np.add(t, e, out=t)
    np.multiply(m, -0.25, out=p)
    np.add(p, 1 / 3, out=p)
    np.multiply(p, m, out=p)
    np.add(p, -0.5, out=p)
    np.multiply(p, m, out=p)
    np.add(p, 1.0, out=p)
    np.multiply(p, m, out=p)
    np.add(p, t, out=p)
    np.subtract(x, x, out=m)  # 0, or NaN where x is not finite: bit tricks must not hide it
    np.add(p, m, out=out)


def _blocked(kernel: Kernel) -> Kernel:
    """Return `kernel` for contiguous arrays of any size; out may be x itself."""

    def apply(x: Array, out: Array, scratch: Array) -> None:
        source, target = x.reshape(-1), out.reshape(-1)
        for start in range(0, source.size, BLOCK):
            part = source[start : start + BLOCK]
            kernel(part, target[start : start + BLOCK], scratch[:, : part.size])

    return apply


exp = _blocked(_exp)
log = _blocked(_log)
sigmoid = _blocked(_sigmoid)
tanh = _blocked(_tanh)


def make_scratch() -> Array:
    """Return the workspace the functions need: SCRATCH_ROWS rows of BLOCK elements."""
    return np.empty((SCRATCH_ROWS, BLOCK))
