"""Multi-layer perceptron: dense layers of sizes `hidden`, each with `activation` and `dropout`."""

from __future__ import annotations

from collections.abc import Sequence

from mlchain.errors import ConfigError
from mlchain.ml_runtime.network import Network

TARGETS = ("class", "value")
ACTIVATIONS = ("relu", "sigmoid", "tanh")


def build(
    n: Network,
    x: int,
    *,
    outputs: int,
    hidden: Sequence[int] = (64,),
    activation: str = "relu",
    dropout: float = 0.0,
) -> int:
    """Return the register of the scores or predictions.

    Raises:
        ConfigError: no such activation, or a layer without units.
    """
    if activation not in ACTIVATIONS:
        raise ConfigError(f"activation: no {activation!r}", "one of " + ", ".join(ACTIVATIONS))
    widths = [int(width) for width in hidden]
    if any(width < 1 for width in widths):
        raise ConfigError(f"hidden: a layer of {min(widths)} units")
    for i, width in enumerate(widths, 1):
        x = n.builder.emit(activation, n.dense(x, width, f"hidden{i}"))
        x = n.dropout(x, float(dropout))
    return n.dense(x, outputs, "out")
