"""The part of `second_runtime` for the functions of rule 6, from the page alone."""

from __future__ import annotations

import math
import struct
from decimal import Decimal, getcontext
from fractions import Fraction
from hashlib import blake2s

getcontext().prec = 80
_LN2 = Decimal(2).ln()
LN2, LOG2E, E1, E2, E3 = map(float, (_LN2, 1 / _LN2, _LN2, _LN2**2 / 2, _LN2**3 / 6))
EXP2 = [float(Decimal(2) ** (Decimal(j) / 2048)) for j in range(2048)]
_INVERSES = [round(2**24 / (1 + Fraction(2 * j + 1, 2048))) for j in range(1024)]
LOG_INVERSE = [n / 2.0**24 for n in _INVERSES]
LOG_VALUE = [float(-(Decimal(n) / 2**24).ln()) for n in _INVERSES]
_TABLES = (*EXP2, *LOG_INVERSE, *LOG_VALUE, LN2, LOG2E, E1, E2, E3)
TABLE_DIGEST = blake2s(struct.pack(f"<{len(_TABLES)}d", *_TABLES)).hexdigest()


def exp2(x: float, factor: float) -> float:
    if x != x:
        return x
    y = min(max(x * factor, -100.0), 100.0)
    k = round(Fraction(y) * 2048)
    r = y - k / 2048
    p = (((r * E3) + E2) * r + E1) * r + 1
    return (EXP2[k % 2048] * 2.0 ** (k // 2048)) * p


def log(x: float) -> float:
    if not math.isfinite(x):
        return math.nan
    fraction, exponent = math.frexp(max(x, 2.0**-1000))
    m, e = 2 * fraction, exponent - 1
    j = int((m - 1) * 1024)
    s = (m * LOG_INVERSE[j]) - 1
    t = LOG_VALUE[j] + (e * LN2)
    return ((((s * -0.25) + 1 / 3) * s + -0.5) * s + 1) * s + t


GELU_C, GELU_D = 0.044715, 1.5957691216057308
GELU_CD = 3.0 * GELU_C * GELU_D
ERF = (
    *(-1.2656555364609996, 1.00343220732, 0.338578069956, 0.308871039492, -0.986787164208),
    *(2.2706179961, -4.44437277928, 5.1190477143, -3.34489132141, 1.17594909575, -0.174789321559),
)


def erf(v: float) -> float:
    z = abs(v)
    t = 2 / (z + 2)
    p = t * ERF[10]
    for k in range(9, 0, -1):
        p = (p + ERF[k]) * t
    return math.copysign(1 - exp2((p + ERF[0]) - (z * z), LOG2E) * t, v)
