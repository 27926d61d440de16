"""Twin of ops/noise.py: one block of Philox from plain integers for every element."""

from __future__ import annotations

import math
import struct

from mlchain.errors import Trap
from mlchain.ml_runtime.oracle.arithmetic import Numbers, Operands, twin
from mlchain.ml_runtime.random import philox


@twin("dropout")
def _dropout(o: Operands) -> tuple[Numbers, ...]:
    x, key, clock = o.ins
    index, keep = (int(v) for v in o.attrs)
    if not all(map(math.isfinite, (*key, *clock))):
        raise Trap("dropout: key or clock is not finite")
    words = struct.unpack("<2Q", struct.pack("<4f", *key))
    (step,) = struct.unpack("<I", struct.pack("<f", *clock))
    out = []
    for element, value in enumerate(x):
        block = philox((element // 16, step, index, 0), words)
        lane = block[element % 16 // 4] >> 16 * (element % 4) & 0xFFFF
        out.append(value * (65536 / keep if lane < keep else 0.0))
    return (out,)
