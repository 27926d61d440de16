"""Multi-layer perceptron: dense layers of sizes `hidden`, each followed by `activation`."""

from __future__ import annotations

from collections.abc import Sequence

from mlchain.errors import ConfigError
from mlchain.ml_runtime.network import Network

TARGETS = ("class", "value")
ACTIVATIONS = ("relu", "sigmoid", "tanh")


def build(
    n: Network, x: int, *, outputs: int, hidden: Sequence[int] = (64,), activation: str = "relu"
) -> int:
    """Return the register of the scores or predictions.

    Raises:
        ConfigError: no such activation.
    """
    if activation not in ACTIVATIONS:
        raise ConfigError(f"activation: no {activation!r}", "one of " + ", ".join(ACTIVATIONS))
    for i, width in enumerate(hidden, 1):
        x = n.builder.emit(activation, n.dense(x, int(width), f"hidden{i}"))
    return n.dense(x, outputs, "out")
