"""Dropout.

The mask is a function of a key and the clock, which are state, and of the place of an element. So
a step can be run again from its state alone, and shards draw the same mask for their rows.
"""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

import numpy as np

from mlchain.errors import Trap
from mlchain.ml_runtime import random
from mlchain.ml_runtime.builder import Builder, Emitted
from mlchain.ml_runtime.functions import BLOCK
from mlchain.ml_runtime.op import Call, Op, Types, Values, integers, register, require, require_real
from mlchain.ml_runtime.tensor import finite, stored

Grads = list[tuple[int, int]]

LANE_BITS = 16
ALWAYS = 1 << LANE_BITS
"""`keep` of a dropout that drops nothing."""
LANES = 4 * 64 // LANE_BITS
"""Elements that one block of Philox decides."""
MAX_INDEX = (1 << 31) - 1


@register
class Dropout(Op):
    """x 65536 / keep where the 16 bits drawn for the element are below keep, else x 0.

    Reads (x, key, clock); `index` tells the dropouts of a program apart.
    """

    name, arity, in_place = "dropout", 3, True
    attributes = integers("index", "keep")
    source = "Srivastava et al., JMLR 15 (2014); bits by MLRT-1 rule 9"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(ins[0])
        require(ins[1] == stored(4), "takes a key: a state of four numbers")
        require(ins[2] == stored(), "takes a clock: a state of one number")
        require(0 <= attrs[0] <= MAX_INDEX, f"index {attrs[0]}")
        require(1 <= attrs[1] <= ALWAYS, f"keeps {attrs[1]} of {ALWAYS}")
        return (finite(*ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 36000 + 4 * outs[0].elements

    def forward(self, c: Call) -> None:
        x, out = c.ins[0].reshape(-1), c.outs[0].reshape(-1)
        index, keep = (int(v) for v in c.attrs)
        if not all(np.isfinite(tensor).all() for tensor in c.ins[1:]):
            raise Trap("dropout: key or clock is not finite")
        factor = ALWAYS / keep
        block, skip = divmod(c.before, LANES)
        key, step = key_words(c.ins[1].tobytes()), int(c.ins[2].view("<u4"))
        bits = random.generator(key, (block, step, index, 0))
        rest = np.empty(0, "<u2")
        for at in range(0, x.size, BLOCK):
            size = min(BLOCK, x.size - at)
            short = skip + size - rest.size
            drawn = bits.random_raw(-(-short // LANES) * 4).astype("<u8", copy=False).view("<u2")
            lanes = np.concatenate([rest, drawn]) if rest.size else drawn
            part = slice(at, at + size)
            mask = np.less(lanes[skip : skip + size], keep)
            np.multiply(x[part], np.multiply(mask, factor), out=out[part])
            rest, skip = lanes[skip + size :], 0

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        x, key, clock = node.inputs
        index, keep = node.attrs
        return [(x, b.emit("dropout", g, key, clock, index=index, keep=keep))]


def key_words(raw: bytes) -> tuple[int, int]:
    """Return the two key words of a key tensor's 16 bytes."""
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")
