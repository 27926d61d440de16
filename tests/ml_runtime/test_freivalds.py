"""Freivalds' check: right products always pass, wrong ones never do here, whatever the grids."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from proof_lab import Flipping, Lab, judge

from mlchain.ml_runtime import Oracle
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.grid import peak, quantise
from mlchain.ml_runtime.program import check
from mlchain.ml_runtime.proof import Outcome, freivalds
from mlchain.ml_runtime.proof.freivalds import BITS, VECTORS, grid_exponent, pays
from mlchain.ml_runtime.random import make_key, words
from mlchain.ml_runtime.tensor import grid

SEED = b"\x03" * 32


def make_grid(seed: int, bits: int, rows: int, columns: int, scale: float) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, columns)) * scale
    out = np.empty_like(x)
    quantise(x, bits, peak(x), out)
    return out


SIZES = st.integers(1, 12)
WIDTHS = st.sampled_from([(16, 16), (2, 48), (48, 2), (24, 24), (8, 32), (25, 25)])
SCALES = st.sampled_from([1.0, 1e-100, 1e120, 3e-5])


@given(SIZES, st.integers(1, 16), SIZES, WIDTHS, SCALES, SCALES, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_product_passes_and_one_wrong_in_one_bit_does_not(n, k, m, bits, s, t, seed):
    a, b = make_grid(seed, bits[0], n, k, s), make_grid(seed + 1, bits[1], k, m, t)
    c = a @ b
    assert freivalds(a, bits[0], b, bits[1], c, SEED)
    draw = random.Random(seed)
    wrong = c.copy()
    i, j = draw.randrange(n), draw.randrange(m)
    wrong.reshape(-1).view(np.uint64)[i * m + j] ^= np.uint64(1 << draw.randrange(64))
    assert freivalds(a, bits[0], b, bits[1], wrong, SEED) == np.array_equal(wrong, c)


def test_transposed_operands_are_no_matter():
    a, b = make_grid(1, 16, 7, 5, 1.0), make_grid(2, 16, 9, 7, 1.0)
    assert freivalds(a.T, 16, b.T, 16, a.T @ b.T, SEED)


def test_a_large_product_is_exact_in_pieces():
    a, b = make_grid(1, 22, 40, 4000, 1.0), make_grid(2, 20, 4000, 30, 1.0)
    c = a @ b
    assert freivalds(a, 22, b, 20, c, SEED)
    unit = 2.0 ** (grid_exponent(a, 22) + grid_exponent(b, 20))
    c[3, 4] += unit
    assert not freivalds(a, 22, b, 20, c, SEED)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, 2.0**-200])
def test_what_no_product_can_be_is_refused(value):
    a, b = make_grid(1, 16, 4, 4, 1.0), make_grid(2, 16, 4, 4, 1.0)
    c = a @ b
    c[1, 2] = value
    assert not freivalds(a, 16, b, 16, c, SEED)


def test_zeros_have_a_product():
    a, c = np.zeros((3, 4)), np.zeros((3, 2))
    assert freivalds(a, 16, np.zeros((4, 2)), 16, c, SEED)
    c[0, 0] = 1.0
    assert not freivalds(a, 16, np.zeros((4, 2)), 16, c, SEED)


def test_one_vector_of_eight_bits_misses_one_wrong_product_in_256():
    a, b = make_grid(1, 16, 2, 2, 1.0), make_grid(2, 16, 2, 2, 1.0)
    wrong = a @ b
    wrong[1, 1] += 2.0 ** (grid_exponent(a, 16) + grid_exponent(b, 16))
    tries = 1000
    missed = sum(
        freivalds(a, 16, b, 16, wrong, i.to_bytes(32, "little"), vectors=1) for i in range(tries)
    )
    assert 0 < missed < tries / 2**BITS * 3
    assert not any(
        freivalds(a, 16, b, 16, wrong, i.to_bytes(32, "little"), vectors=2) for i in range(100)
    )
    assert BITS * VECTORS == 64


def test_control_whoever_knows_the_seed_deceives_the_check():
    """Errors that the vectors cannot see: a row of c changed by something orthogonal to them."""
    a, b = make_grid(1, 16, 3, 3, 1.0), make_grid(2, 16, 3, 2, 1.0)
    r = (words(make_key(SEED, "freivalds", 0), 2) >> np.uint64(64 - BITS)).astype(np.float64)
    unit = 2.0 ** (grid_exponent(a, 16) + grid_exponent(b, 16))
    wrong = a @ b
    wrong[1] += np.array([r[1], -r[0]]) * unit
    assert freivalds(a, 16, b, 16, wrong, SEED, vectors=1)
    assert not freivalds(a, 16, b, 16, wrong, b"\x04" * 32, vectors=1)


def test_a_product_that_a_proof_brings_decides_it_only_if_it_is_right():
    lab = Lab()
    op = next(i for i, n in enumerate(lab.tracer.layout.checked.program.nodes) if n.op == "matmul")
    proof = lab.prove(lab.other(backend=Flipping(op, 1, 1)).trace(1, lab.start(1)))
    options = {"seed": SEED, "backend": Oracle()}
    assert judge(proof, **options).outcome is Outcome.FRAUD
    product = bytes([proof.fault.product[0] ^ 1]) + proof.fault.product[1:]
    lying = replace(proof, fault=replace(proof.fault, product=product))
    assert judge(lying, **options).outcome is Outcome.INVALID
    assert judge(lying).outcome is Outcome.FRAUD, "without a seed the op is run"
    assert judge(lying, seed=SEED).outcome is Outcome.FRAUD, "so it is where that is quicker"
    short = replace(proof, fault=replace(proof.fault, product=b"\0"))
    assert judge(short, **options).outcome is Outcome.INVALID


@pytest.mark.parametrize(
    "size, worth",
    [
        ((512, 512, 512), False),
        ((64, 4096, 4096), False),
        ((1024, 1024, 1024), True),
        ((4096, 2048, 1024), True),
    ],
)
def test_large_square_products_are_checked_and_others_repeated(size, worth):
    n, k, m = size
    b = Builder()
    x, y = b.input(grid(16, n, k)), b.input(grid(16, k, m))
    assert pays(check(b.program([b.matmul(x, y)])), 0) is worth
