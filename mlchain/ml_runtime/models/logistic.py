"""Logistic regression of one class against the rest: the sigmoid of x W + b, log loss."""

from __future__ import annotations

from mlchain.ml_runtime.network import Network

TARGETS = ("class",)
LOSS = "logistic"


def build(n: Network, x: int, *, outputs: int) -> int:
    """Return the register of the scores, one column per class: log odds."""
    return n.dense(x, outputs, "out")
