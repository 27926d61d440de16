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
LEAST_REUSE = 256
"""Multiply-adds for each element touched from which a check is quicker: 768 x 768 x 768 on."""


def multiplies(checked: Checked, op: int) -> bool:
    """Tell whether an op is a product of grids, each of one exponent."""
    step = checked.steps[op]
    return step.op.name == "matmul" and all(checked.types[r].kind == "G" for r in step.inputs)


def pays(checked: Checked, op: int) -> bool:
    """Tell whether numpy multiplies longer than it checks: measured in benchmarks/proofs.py."""
    step = checked.steps[op]
    a, b, c = (checked.types[r] for r in (*step.inputs, *step.outputs))
    rows = c.elements // c.shape[-1]
    terms = c.elements * (a.elements // rows)
    return terms >= LEAST_REUSE * (a.elements + b.elements + c.elements)


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
    if whole is None or not _peak(whole) <= 2.0**EXACT_BITS:
        return False  # not even numbers that a product could be
    draws = words(make_key(seed, "freivalds", 0), c.shape[1] * vectors) >> np.uint64(64 - BITS)
    r = draws.astype(np.int64).astype(object).reshape(c.shape[1], vectors)
    left = _apply(a, unit_a, _apply(b, unit_b, r))
    return bool(np.all(left == _apply(whole, 0, r)))


def grid_exponent(x: Array, bits: int) -> int:
    """Return the least e for which a grid of `bits` bits with unit 2^e reaches max |x|."""
    mantissa, exponent = math.frexp(_peak(x))
    return exponent - (bits - 1) - (mantissa == 0.5)  # |m| may be 2^(bits-1) itself


def in_units(x: Array, exponent: int) -> Array | None:
    """Return x 2^-exponent if these are whole numbers, None if one is not."""
    with np.errstate(all="ignore"):
        whole = _times_power(x, -exponent)
        if not np.array_equal(whole, np.rint(whole)):
            return None
    return whole if np.count_nonzero(whole) == np.count_nonzero(x) else None  # none underflowed


def _apply(x: Array, unit: int, columns: Array) -> Array:
    """Return (x 2^-unit) @ columns, whole numbers all, the columns and the result Python's own.

    Both factors are cut into pieces so narrow that BLAS adds k products of them within 53 bits.
    """
    k, vectors = columns.shape
    room = EXACT_BITS - (k - 1).bit_length()
    bits = max(math.frexp(_peak(x))[1] - unit, 1)
    cut = bits if bits <= room - BITS else room // 2
    low = _columns(columns, room - cut)
    total = np.zeros((x.shape[0], vectors), object)
    for i, piece in enumerate(_pieces(x, unit, bits, cut)):
        parts = _times_power(piece @ low, -unit).astype(np.int64).astype(object)
        for j in range(low.shape[1] // vectors):
            part = parts[:, j * vectors : (j + 1) * vectors]
            total += part << (i * cut + j * (room - cut))
    return total


def _columns(columns: Array, narrow: int) -> Array:
    """Return whole numbers as columns of binary64, `narrow` bits each, the lowest to the left."""
    signs, rest = np.where(columns < 0, -1.0, 1.0), np.abs(columns)
    found: list[Array] = []
    while not found or np.any(rest):
        found.append(signs * (rest & ((1 << narrow) - 1)).astype(np.float64))
        rest = rest >> narrow
    return np.concatenate(found, axis=1)


def _pieces(x: Array, unit: int, bits: int, cut: int) -> Iterator[Array]:
    """Yield pieces p with |p| <= 2^(cut + unit), whose sum, each shifted by cut, is x."""
    while bits > cut:
        high = np.rint(_times_power(x, -cut - unit))
        high = _times_power(high, unit)
        yield x - _times_power(high, cut)
        x, bits = high, bits - cut
    yield x


def _times_power(x: Array, exponent: int) -> Array:
    """Return x 2^exponent; a product is much quicker than ldexp where the power is a number."""
    return x * 2.0**exponent if -1000 < exponent < 1000 else np.ldexp(x, exponent)


def _peak(x: Array) -> float:
    return peak(x.T if x.flags.f_contiguous else x)
