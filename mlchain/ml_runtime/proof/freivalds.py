"""Freivalds' check: is C the product of A and B, without multiplying them?

For a random vector r, A (B r) is compared with C r: three products with a vector in place of one
with a matrix. The elements of r are integers 0 ≤ r < 2^8, drawn independently; if C is wrong the
two sides differ except with probability 2^-8 a vector, and VECTORS of them are used at once. Both
sides are exact integers, no modulus: a modulus that the forger knows could be divided out.

Whoever knows r before choosing C can deceive the check: the seed has to be drawn after the proof
is in hand. Source: Freivalds, Probabilistic machines can use less running time (IFIP 1977).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from mlchain.ml_runtime.grid import EXACT_BITS, peak
from mlchain.ml_runtime.program import Checked
from mlchain.ml_runtime.random import make_key, words
from mlchain.ml_runtime.tensor import Array

BITS = 8
"""Bits of an element of a random vector."""
VECTORS = 8
"""Vectors of one check: a wrong product passes with probability at most 2^-64."""


def multiplies(checked: Checked, op: int) -> bool:
    """Tell whether an op is a product of grids, each of one exponent."""
    step = checked.steps[op]
    return step.op.name == "matmul" and all(checked.types[r].kind == "G" for r in step.inputs)


def is_product(checked: Checked, op: int, a: Array, b: Array, c: Array, seed: bytes) -> bool:
    """Tell whether c is what the product `op` gives for its operands a and b."""
    step = checked.steps[op]
    a, b = (x.swapaxes(-1, -2) if flag else x for x, flag in zip((a, b), step.attrs, strict=True))
    bits = [checked.types[r].bound for r in step.inputs]
    stacks = (x.reshape(-1, *x.shape[-2:]) for x in (a, b, c))
    return all(freivalds(x, bits[0], y, bits[1], z, seed) for x, y, z in zip(*stacks, strict=True))


def freivalds(
    a: Array, bits_a: int, b: Array, bits_b: int, c: Array, seed: bytes, vectors: int = VECTORS
) -> bool:
    """Tell whether c = a b, wrongly so with probability at most 2^-(8 vectors).

    a (n x k) is G(bits_a), b (k x m) is G(bits_b), and their product fits `matmul`'s bound; c is
    n x m of any binary64. `seed`: 32 bytes that whoever made c could not know.
    """
    unit_a, unit_b = grid_exponent(a, bits_a), grid_exponent(b, bits_b)
    whole = in_units(c, unit_a + unit_b)
    if whole is None or _peak(whole) > 2.0**EXACT_BITS:
        return False  # not even numbers that a product could be
    draws = words(make_key(seed, "freivalds", 0), c.shape[1] * vectors) >> np.uint64(64 - BITS)
    r = draws.astype(np.int64).astype(object).reshape(c.shape[1], vectors)
    once = _apply(np.ldexp(b, -unit_b), r)
    return bool(np.all(_apply(np.ldexp(a, -unit_a), once) == _apply(whole, r)))


def grid_exponent(x: Array, bits: int) -> int:
    """Return the least e for which a grid of `bits` bits with unit 2^e reaches max |x|."""
    mantissa, exponent = math.frexp(_peak(x))
    return exponent - (bits - 1) - (mantissa == 0.5)  # |m| may be 2^(bits-1) itself


def in_units(x: Array, exponent: int) -> Array | None:
    """Return x 2^-exponent if these are whole numbers, None if one is not."""
    with np.errstate(all="ignore"):
        whole = np.ldexp(x, -exponent)
        same = np.array_equal(np.ldexp(whole, exponent), x)  # nothing underflowed
    return whole if same and np.array_equal(whole, np.rint(whole)) else None


def _apply(x: Array, columns: Array) -> Array:
    """Return x @ columns for whole numbers, the columns and the result Python's own.

    Both are cut into pieces so narrow that BLAS adds k products of them within 53 bits.
    """
    room = EXACT_BITS - (x.shape[1] - 1).bit_length()
    bits = math.frexp(_peak(x))[1]
    cut = bits if bits <= room - BITS else room // 2
    narrow = room - cut
    total = np.zeros((x.shape[0], columns.shape[1]), object)
    signs, sizes = np.where(columns < 0, -1.0, 1.0), np.abs(columns)
    for i, piece in enumerate(_pieces(x, cut)):
        rest, j = sizes, 0
        while np.any(rest):
            low = signs * (rest & ((1 << narrow) - 1)).astype(np.float64)
            total += (piece @ low).astype(np.int64).astype(object) << (i * cut + j * narrow)
            rest, j = rest >> narrow, j + 1
    return total


def _pieces(x: Array, cut: int) -> Iterator[Array]:
    """Yield whole numbers p with |p| <= 2^cut that make up x, the lowest first."""
    while True:
        high = np.rint(x * 2.0**-cut) if _peak(x) > 2.0**cut else None
        if high is None:
            yield x
            return
        yield x - high * 2.0**cut
        x = high


def _peak(x: Array) -> float:
    return peak(x.T if x.flags.f_contiguous else x)
