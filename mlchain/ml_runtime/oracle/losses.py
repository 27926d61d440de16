"""Twins of ops/losses.py."""

from __future__ import annotations

from mlchain.ml_runtime import functions
from mlchain.ml_runtime.oracle.arithmetic import (
    Numbers,
    Operands,
    each,
    exp_scaled,
    log,
    maximum,
    twin,
)


def _rows(o: Operands) -> list[Numbers]:
    width = o.shapes[0][1]
    return [o.ins[0][i : i + width] for i in range(0, len(o.ins[0]), width)]


@twin("log_loss")
def _log_loss(o: Operands) -> tuple[Numbers, ...]:
    return ([-log(row[int(y)]) for row, y in zip(_rows(o), o.ins[1], strict=True)],)


@twin("softmax_residual")
def _softmax_residual(o: Operands) -> tuple[Numbers, ...]:
    out: Numbers = []
    for row, y, g in zip(_rows(o), o.ins[1], o.ins[2], strict=True):
        out += [(p - 1.0 if j == y else p) * g for j, p in enumerate(row)]
    return (out,)


def _logistic_loss(s: float, t: float) -> float:
    tail = log(1.0 + exp_scaled(-abs(s), functions.LOG2E))
    return (maximum(s, 0.0) - s * t) + tail


each("logistic_loss", _logistic_loss)
