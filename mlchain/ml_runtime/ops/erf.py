"""The error function, of which the exact form of gelu is made."""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

import numpy as np

from mlchain.ml_runtime import functions
from mlchain.ml_runtime.builder import Builder, Emitted
from mlchain.ml_runtime.op import Call, Op, Types, Values, most_elements, register, require_real
from mlchain.ml_runtime.tensor import finite

Grads = list[tuple[int, int]]


@register
class Erf(Op):
    """erf(x) = 1 - t exp(P(t) - x^2) with t = 2 / (2 + |x|), within 2e-9; odd in x."""

    name, arity, in_place = "erf", 1, True
    source = "the form of Press et al., Numerical Recipes, 6.2 (erfcc); MLRT-1 rule 6"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        return (finite(*ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 36000 + 16 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        for (x,), (out,), _ in c.blocks:
            z = np.absolute(x)  # not in the scratch, which exp needs
            t = z + 2.0
            np.divide(2.0, t, t)
            p = t * functions.ERF[-1]
            for coefficient in functions.ERF[-2:0:-1]:
                np.add(p, coefficient, p)
                np.multiply(p, t, p)
            np.add(p, functions.ERF[0], p)
            np.subtract(p, np.multiply(z, z, z), p)
            functions.exp(p, p, c.scratch)
            np.multiply(p, t, p)
            np.subtract(1.0, p, p)
            np.copysign(p, x, out)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        x = node.inputs[0]
        square = b.emit("scale", b.emit("multiply", x, x), factor=-1.0)
        slope = b.emit("scale", b.emit("exp", square), factor=1.1283791670955126)
        return [(x, b.emit("multiply", g, slope))]
