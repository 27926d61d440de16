"""Linear support vector machine: scores x W + b, hinge loss of one class against the rest.

`weight_decay` of the optimiser is the L2 penalty: with N training rows, 1 / (N C) of a machine
that is stated with the cost C.
"""

from __future__ import annotations

from mlchain.ml_runtime.network import Network

TARGETS = ("class",)
LOSS = "hinge"


def build(n: Network, x: int, *, outputs: int) -> int:
    """Return the register of the scores, one column per class."""
    return n.dense(x, outputs, "out")
