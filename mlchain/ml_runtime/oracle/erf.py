"""Twin of ops/erf.py."""

from __future__ import annotations

import math

from mlchain.ml_runtime import functions
from mlchain.ml_runtime.oracle.arithmetic import each, exp_scaled


def _erf(x: float) -> float:
    z = abs(x)
    t = 2.0 / (z + 2.0)
    p = t * functions.ERF[-1]
    for coefficient in functions.ERF[-2:0:-1]:
        p = (p + coefficient) * t
    p = p + functions.ERF[0] - z * z
    return math.copysign(1.0 - exp_scaled(p, functions.LOG2E) * t, x)


each("erf", _erf)
