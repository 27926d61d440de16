"""Layers with parameters: the vocabulary in which models are written."""

from __future__ import annotations

import math

from mlchain.errors import ConfigError
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.grid import PRODUCT_BITS
from mlchain.ml_runtime.ops.noise import ALWAYS
from mlchain.ml_runtime.optim import StateInput
from mlchain.ml_runtime.tensor import stored


class Network:
    """A builder that remembers the parameters it declared, in order.

    `training`: whether it writes a step, in which dropout drops, and not a prediction.
    """

    def __init__(self, builder: Builder, training: bool = False) -> None:
        self.builder, self.training = builder, training
        self.parameters: list[StateInput] = []
        self.aids: list[StateInput] = []
        """State that is no parameter and that only the step reads: the clock, the noise."""
        self._dropouts = 0
        self._next: dict[int, int] = {}
        self._tallies: dict[int, tuple[int, int]] = {}

    def parameter(self, name: str, *shape: int, limit: float = 0.0, init: str = "") -> int:
        """Declare a parameter: uniform in [-limit, limit), or without a limit `init` or zero."""
        register = self.builder.input(stored(*shape))
        init = init or ("uniform" if limit else "zeros")
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
        """Emit x W + b along the last axis; W, k x width, starts after Glorot and Bengio (2010)."""
        inputs = self.builder.type(x).shape[-1]
        return self._affine(x, width, name, math.sqrt(6 / (inputs + width)))

    def _affine(self, x: int, width: int, name: str, limit: float) -> int:
        weights = self.parameter(
            f"{name}.weights", self.builder.type(x).shape[-1], width, limit=limit
        )
        bias = self.parameter(f"{name}.bias", width)
        product = self.product(x, weights)
        return self.builder.emit("add", product, self.builder.emit("widen", bias))

    def product(self, x: int, weights: int) -> int:
        """Emit x W along the last axis, for x of any rank."""
        b = self.builder
        *rows, inputs = b.type(x).shape
        flat = b.matmul(b.reshape(b.on_grid(x, PRODUCT_BITS), (math.prod(rows), inputs)), weights)
        return b.reshape(flat, (*rows, b.type(weights).shape[1]))

    def convolve(self, x: int, width: int, kernel: int, name: str) -> int:
        """Emit a convolution that keeps height and width: zeros around, then windows times W.

        x is n x height x width x channels, `kernel` odd; W starts after He et al. (2015).
        """
        b = self.builder
        n, height, columns, channels = b.type(x).shape
        x = b.on_grid(x, PRODUCT_BITS)
        for axis in (1, 2):
            if kernel > 1:
                x = b.emit("pad", x, axis=axis, before=kernel // 2, after=kernel // 2)
        rows = b.emit("im2col", x, kernel_height=kernel, kernel_width=kernel, stride=1)
        limit = math.sqrt(6 / (kernel * kernel * channels))
        return b.reshape(self._affine(rows, width, name, limit), (n, height, columns, width))

    def layer_norm(self, x: int, name: str) -> int:
        """Emit layer norm along the last axis, times a gain, which starts at 1, plus a bias."""
        b = self.builder
        width = b.type(x).shape[-1]
        normal, _ = b.emit_all("layer_norm", x, epsilon=1e-5)
        gain = b.emit("widen", self.parameter(f"{name}.gain", width, init="ones"))
        bias = b.emit("widen", self.parameter(f"{name}.bias", width))
        return b.emit("add", b.emit("multiply", normal, gain), bias)

    def attention(self, x: int, heads: int, causal: bool, name: str) -> int:
        """Emit attention of every place of x, batch x places x width, to the places of its row.

        `causal`: only to itself and those before it. Source: Vaswani et al., arXiv:1706.03762.
        """
        b = self.builder
        batch, places, width = b.type(x).shape
        if heads < 1 or width % heads:
            raise ConfigError(f"heads: {heads} do not divide a width of {width}")
        size = width // heads
        limit = math.sqrt(3 / width)

        def split(which: str, factor: float = 1.0) -> int:
            part = self.product(x, self.parameter(f"{name}.{which}", width, width, limit=limit))
            part = b.on_grid(
                part if factor == 1 else b.emit("scale", part, factor=factor), PRODUCT_BITS
            )
            return b.transpose(b.reshape(part, (batch, places, heads, size)), 0, 2, 1, 3)

        query, key, value = split("query", 1 / math.sqrt(size)), split("key"), split("value")
        scores = b.matmul(query, key, False, True)
        weights = b.emit("causal_softmax" if causal else "softmax", scores)
        mixed = b.transpose(b.matmul(weights, value), 0, 2, 1, 3)
        return self.dense(b.reshape(mixed, (batch, places, width)), width, f"{name}.mix")

    def dropout(self, x: int, share: float) -> int:
        """Emit x with that share of its elements, 0 to below 1, dropped; in predictions just x."""
        if not 0 <= share < 1:
            raise ConfigError(f"dropout: a share of {share}", "a number from 0 to below 1")
        keep = round((1 - share) * ALWAYS)
        if not self.training or keep == ALWAYS:
            return x
        index, self._dropouts = self._dropouts, self._dropouts + 1
        key = self._aid("noise", 4, limit=1.0)
        return self.builder.emit("dropout", x, key, self.clock(), index=index, keep=max(1, keep))

    def clock(self) -> int:
        """Declare the clock, once, and return its register: the number of steps before this one."""
        return self._aid("clock")

    def _aid(self, name: str, *shape: int, limit: float = 0.0) -> int:
        for aid in self.aids:
            if aid.name == name:
                return aid.register
        register = self.builder.input(stored(*shape))
        self.aids.append(StateInput(name, register, "uniform" if limit else "zeros", limit))
        return register

    def aids_after(self) -> list[int]:
        """Return the register of every aid's next value: the clock ticks, the noise stays."""
        b, after = self.builder, []
        for aid in self.aids:
            if aid.name == "clock":
                ticked = b.emit("add", b.emit("widen", aid.register), b.emit("constant", value=1.0))
                after.append(b.emit("store", ticked))
            else:
                after.append(aid.register)
        return after
