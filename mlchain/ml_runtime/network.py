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
        self._next: dict[int, int] = {}
        self._tallies: dict[int, tuple[int, int]] = {}

    def parameter(self, name: str, *shape: int, limit: float = 0.0) -> int:
        """Declare a parameter: uniform in [-limit, limit), or zero without a limit."""
        register = self.builder.input(stored(*shape))
        init = "uniform" if limit else "zeros"
        self.parameters.append(StateInput(name, register, init, limit))
        return register

    def update(self, parameter: int, value: int) -> None:
        """Make a real value, rounded as state is, the parameter's in the next step."""
        self._next[parameter] = self.builder.emit("store", value)

    def results(self) -> list[int]:
        """Return the register of every parameter's next value; what is not updated stays."""
        return [self._next.get(p.register, p.register) for p in self.parameters]

    def tally(self, name: str, *shape: int) -> int:
        """Declare a running total, 0 at first, and return its register, a real.

        State is binary32, which counts no further than 2^24. A total is kept in two: the nearest
        one and what is missing to it, together exact to 2^48 units of its last place.
        """
        near, rest = self.parameter(name, *shape), self.parameter(f"{name}.rest", *shape)
        total = self.builder.emit("add", *(self.builder.emit("widen", p) for p in (near, rest)))
        self._tallies[total] = near, rest
        return total

    def count(self, tally: int, amount: int) -> int:
        """Add to a total and return the new one; exact while it has at most 48 bits."""
        b = self.builder
        total = b.emit("add", tally, amount)
        near, rest = self._tallies[tally]
        self.update(near, total)
        self.update(rest, b.emit("subtract", total, b.emit("widen", self._next[near])))
        return total

    def dense(self, x: int, width: int, name: str) -> int:
        """Emit x W + b for x of n x k, W of k x width; W starts after Glorot and Bengio (2010)."""
        inputs = self.builder.type(x).shape[1]
        weights = self.parameter(
            f"{name}.weights", inputs, width, limit=math.sqrt(6 / (inputs + width))
        )
        bias = self.parameter(f"{name}.bias", width)
        product = self.builder.matmul(x, weights)
        return self.builder.emit("add", product, self.builder.emit("widen", bias))
