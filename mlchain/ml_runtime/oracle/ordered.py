"""Twins of ops/ordered.py: every element's own sequence of operations, on Python floats."""

from __future__ import annotations

import math

from mlchain.errors import Trap
from mlchain.ml_runtime.oracle.arithmetic import Numbers, Operands, divide, sqrt, twin


@twin("weighted_distances")
def _weighted_distances(o: Operands) -> tuple[Numbers, ...]:
    x, centres, weights = o.ins
    width = o.shapes[0][1]
    out: Numbers = []
    for i in range(0, len(x), width):
        for k in range(0, len(centres), width):
            total = 0.0
            for j in range(width):
                difference = x[i + j] - centres[k + j]
                total = total + (difference * difference) * weights[k + j]
            out.append(total)
    return (out,)


@twin("cholesky")
def _cholesky(o: Operands) -> tuple[Numbers, ...]:
    size, a = o.out[0], o.ins[0]
    lower = [[0.0] * size for _ in range(size)]
    for j in range(size):
        for i in range(j, size):
            value = a[i * size + j]
            for k in range(j):
                value = value - lower[i][k] * lower[j][k]
            if i > j:
                lower[i][j] = divide(value, lower[j][j])
            elif 0 < value < math.inf:
                lower[j][j] = sqrt(value)
            else:
                raise Trap("cholesky: the matrix is not positive definite")
    return ([v for row in lower for v in row],)


@twin("cholesky_solve")
def _cholesky_solve(o: Operands) -> tuple[Numbers, ...]:
    size, columns = o.out
    lower = [o.ins[0][i * size : (i + 1) * size] for i in range(size)]
    out = list(o.ins[1])
    for c in range(columns):
        x = out[c::columns]
        for i in range(size):
            for k in range(i):
                x[i] = x[i] - lower[i][k] * x[k]
            x[i] = divide(x[i], lower[i][i] + 0.0)
        for i in reversed(range(size)):
            for k in reversed(range(i + 1, size)):
                x[i] = x[i] - lower[k][i] * x[k]
            x[i] = divide(x[i], lower[i][i] + 0.0)
        out[c::columns] = x
    return (out,)
