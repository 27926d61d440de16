"""Softmax (multinomial logistic) regression: scores x W + b, cross entropy."""

from __future__ import annotations

from mlchain.ml_runtime.network import Network

TARGETS = ("class",)


def build(n: Network, x: int, *, outputs: int) -> int:
    """Return the register of the scores, one column per class."""
    return n.dense(x, outputs, "out")
