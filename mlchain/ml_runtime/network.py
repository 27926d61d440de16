"""Layers with parameters: the vocabulary in which models are written."""

from __future__ import annotations

import math

from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.optim import StateInput
from mlchain.ml_runtime.tensor import stored


class Network:
    """A builder that remembers the parameters it declared, in order."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.parameters: list[StateInput] = []

    def parameter(self, name: str, *shape: int, limit: float = 0.0) -> int:
        """Declare a parameter: uniform in [-limit, limit), or zero without a limit."""
        register = self.builder.input(stored(*shape))
        init = "uniform" if limit else "zeros"
        self.parameters.append(StateInput(name, register, init, limit))
        return register

    def dense(self, x: int, width: int, name: str) -> int:
        """Emit x W + b for x of n x k, W of k x width; W starts after Glorot and Bengio (2010)."""
        inputs = self.builder.type(x).shape[1]
        weights = self.parameter(
            f"{name}.weights", inputs, width, limit=math.sqrt(6 / (inputs + width))
        )
        bias = self.parameter(f"{name}.bias", width)
        product = self.builder.matmul(x, weights)
        return self.builder.emit("add", product, self.builder.emit("widen", bias))
