"""Elementwise ops: one correctly rounded binary64 operation per element, or a written sequence."""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.ml_runtime import functions
from mlchain.ml_runtime.builder import Builder, Emitted
from mlchain.ml_runtime.op import (
    Call,
    Op,
    Types,
    Values,
    most_elements,
    reals,
    register,
    repeats,
    require,
    require_real,
)
from mlchain.ml_runtime.tensor import Type, finite

Grads = list[tuple[int, int]]


class _Elementwise(Op):
    """Real inputs of one shape give a real output of that shape."""

    in_place = True
    source = "MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        require(all(t.shape == ins[0].shape for t in ins), "shapes differ")
        return (finite(*ins[0].shape),)


@register
class Constant(Op):
    """A scalar constant."""

    name, arity = "constant", 0
    attributes = reals("value")
    source = "MLRT-1 rule 1"

    def infer(self, ins: Types, attrs: Values) -> Types:
        return (finite(),)

    def forward(self, c: Call) -> None:
        c.outs[0].fill(c.attrs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return []


@register
class Widen(Op):
    """State as binary64, exactly."""

    name, arity = "widen", 1
    source = "MLRT-1 rule 7"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require(ins[0].kind == "S", "takes state")
        return (finite(*ins[0].shape),)

    def forward(self, c: Call) -> None:
        np.copyto(c.outs[0], c.ins[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], g)]


def require_suffix(y: Type, x: Type) -> None:
    """Reject a y of another shape than that of x or of its last axes."""
    shape = x.shape[len(x.shape) - len(y.shape) :]
    require(y.shape == shape, "y has neither the shape of x nor of its last axes")


def require_split_with(x: Type, is_split: bool, *others: tuple[Type, bool]) -> None:
    """Reject shards of x unless exactly those other operands are split that have its rows."""
    same = all((len(y.shape) == len(x.shape)) == split for y, split in others)
    require(is_split and same, "y cannot be split with the rows of x")


class Broadcast(_Elementwise):
    """x and y of one shape, or y of the shape of x's last axes, met by every part of x."""

    arity = 2

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        require_suffix(ins[1], ins[0])
        return (finite(*ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return super().gas(ins, outs) + 8 * repeats(ins[1], ins[0])

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require_split_with(ins[0], split[0], (ins[1], split[1]))
        return "rows"


@register
class Add(Broadcast):
    """x + y; y has the shape of x or of its last axes."""

    name = "add"

    def forward(self, c: Call) -> None:
        np.add(c.ins[0], c.ins[1], out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        x, y = node.inputs
        return [(x, g), (y, b.sum_to(g, b.type(y).shape))]


@register
class Subtract(Broadcast):
    """x - y; y has the shape of x or of its last axes."""

    name = "subtract"

    def forward(self, c: Call) -> None:
        np.subtract(c.ins[0], c.ins[1], out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        x, y = node.inputs
        return [(x, g), (y, b.emit("scale", b.sum_to(g, b.type(y).shape), factor=-1.0))]


@register
class Multiply(Broadcast):
    """x * y; y has the shape of x or of its last axes."""

    name = "multiply"

    def forward(self, c: Call) -> None:
        np.multiply(c.ins[0], c.ins[1], out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        x, y = node.inputs
        gx, gy = b.emit("multiply", g, y), b.emit("multiply", g, x)
        return [(x, gx), (y, b.sum_to(gy, b.type(y).shape))]


@register
class Scale(_Elementwise):
    """x times a constant."""

    name, arity = "scale", 1
    attributes = reals("factor")

    def forward(self, c: Call) -> None:
        np.multiply(c.ins[0], c.constants[0], out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("scale", g, factor=node.attrs[0]))]


@register
class Relu(_Elementwise):
    """max(x, 0)."""

    name, arity = "relu", 1

    def forward(self, c: Call) -> None:
        np.maximum(c.ins[0], 0.0, out=c.outs[0])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("relu_gradient", g, node.outputs[0]))]


@register
class ReluGradient(_Elementwise):
    """g where y > 0, else g * 0."""

    name, arity = "relu_gradient", 2

    def forward(self, c: Call) -> None:
        g, y = c.ins
        np.multiply(g, np.greater(y, 0.0), out=c.outs[0])


class _Function(_Elementwise):
    """A function of functions.py."""

    arity = 1
    source = "MLRT-1 rule 6"

    def gas(self, ins: Types, outs: Types) -> int:
        return 24000 + 10 * most_elements(ins, outs)


@register
class Sigmoid(_Function):
    """1 / (1 + exp(-x))."""

    name = "sigmoid"

    def forward(self, c: Call) -> None:
        functions.sigmoid(c.ins[0], c.outs[0], c.scratch)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        y = node.outputs[0]
        slope = b.emit("subtract", y, b.emit("multiply", y, y))
        return [(node.inputs[0], b.emit("multiply", g, slope))]


@register
class Tanh(_Function):
    """1 - 2 / (1 + exp(2x))."""

    name = "tanh"

    def forward(self, c: Call) -> None:
        functions.tanh(c.ins[0], c.outs[0], c.scratch)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        y = node.outputs[0]  # g (1 - y^2) as g - (g y) y
        shrunk = b.emit("multiply", b.emit("multiply", g, y), y)
        return [(node.inputs[0], b.emit("subtract", g, shrunk))]


@register
class Exp(_Function):
    """exp(x), between 2^-100 and 2^100."""

    name = "exp"

    def forward(self, c: Call) -> None:
        functions.exp(c.ins[0], c.outs[0], c.scratch)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("multiply", g, node.outputs[0]))]


@register
class Log(_Function):
    """log(x); what is below 2^-1000 counts as that."""

    name = "log"

    def forward(self, c: Call) -> None:
        functions.log(c.ins[0], c.outs[0], c.scratch)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("divide", g, node.inputs[0]))]


@register
class Gelu(_Function):
    """y = x s, and s = sigmoid(1.5957691216057308 (x + 0.044715 x^3))."""

    name, in_place = "gelu", False
    source = "Hendrycks, Gimpel, arXiv:1606.08415, the form with tanh; MLRT-1 rule 6"

    def infer(self, ins: Types, attrs: Values) -> Types:
        return super().infer(ins, attrs) * 2

    def forward(self, c: Call) -> None:
        for (x,), (y, s), _ in c.blocks:
            functions.gelu(x, y, s, c.scratch)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        return [(node.inputs[0], b.emit("gelu_gradient", g, node.inputs[0], node.outputs[1]))]


@register
class GeluGradient(_Elementwise):
    """g s (1 + x (1 - s) 1.5957691216057308 (1 + 3 0.044715 x^2)), from (g, x, s) of gelu."""

    name, arity = "gelu_gradient", 3
    source = "adjoint of gelu; MLRT-1 rule 6"

    def gas(self, ins: Types, outs: Types) -> int:
        return 12000 + 5 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        for (g, x, s), (out,), _ in c.blocks:
            functions.gelu_gradient(g, x, s, out, c.scratch)
