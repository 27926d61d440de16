"""Grids by rows: each row has its own exponent, so neighbours cannot change its bits."""

from __future__ import annotations

import numpy as np
import pytest

from mlchain.errors import RejectedProgram, Trap
from mlchain.ml_runtime import NumpyBackend, Oracle
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.grid import is_on_grid, quantise
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.model import with_batch
from mlchain.ml_runtime.tensor import finite, grid, row_grid

BACKENDS = (NumpyBackend(), Oracle())
ROWS = np.random.default_rng(1).normal(size=(9, 5)) * np.logspace(-100, 100, 9)[:, None]


def on_row_grid(x, bits: int, backend=BACKENDS[0]):
    b = Builder()
    program = b.program([b.emit("quantise_rows", b.input(finite(*x.shape)), bits=bits)])
    return execute(program, [x], backend)[0]


def product(left, right, **flags: int):
    """Emit a matmul of two types and return the builder."""
    b = Builder()
    b.emit("matmul", b.input(left), b.input(right), **{"transpose_a": 0, "transpose_b": 0, **flags})
    return b


@pytest.mark.parametrize("backend", BACKENDS, ids=["numpy", "oracle"])
@pytest.mark.parametrize("bits", [2, 16, 26, 48])
def test_each_row_is_rounded_as_if_it_were_alone(bits, backend):
    together = on_row_grid(ROWS, bits, backend)
    for row, rounded in zip(ROWS, together, strict=True):
        alone = np.empty(5)
        quantise(row, bits, np.abs(row).max(), alone)
        assert np.array_equal(alone, rounded)


def test_one_exponent_for_the_tensor_would_lose_the_small_rows():
    """Control of the test above."""
    shared = np.empty_like(ROWS)
    quantise(ROWS, 26, np.abs(ROWS).max(), shared)
    assert not shared[0].any()
    assert on_row_grid(ROWS, 26)[0].all()


@pytest.mark.parametrize("backend", BACKENDS, ids=["numpy", "oracle"])
def test_a_row_of_almost_nothing_is_zero_and_its_neighbours_are_not(backend):
    x = np.array([[2.0**-401, 0.0], [2.0**-400, 2.0**-401], [1.0, -3.0], [0.0, -0.0]])
    assert np.array_equal(
        on_row_grid(x, 16, backend), [[0, 0], [2.0**-400, 2.0**-401], [1, -3], [0, 0]]
    )


@pytest.mark.parametrize("backend", BACKENDS, ids=["numpy", "oracle"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -(2.0**500)])
def test_a_row_off_the_range_traps(value, backend):
    with pytest.raises(Trap, match="quantise_rows"):
        on_row_grid(np.array([[1.0, 2.0], [value, 0.0]]), 16, backend)


def test_rows_of_higher_tensors_lie_along_the_last_axis():
    x = ROWS.reshape(3, 3, 5)
    assert np.array_equal(on_row_grid(x, 20).reshape(9, 5), on_row_grid(ROWS, 20))


def test_a_product_sums_along_rows_exactly():
    r = np.random.default_rng(3)
    w = np.rint(r.normal(size=(5, 4)) * 2**20)
    b = Builder()
    x, y = b.input(finite(9, 5)), b.input(grid(24, 5, 4))
    rows = b.emit("quantise_rows", x, bits=24)
    program = b.program([b.emit("matmul", rows, y, transpose_a=0, transpose_b=0)])
    fast, slow = (execute(program, [ROWS, w], backend)[0] for backend in BACKENDS)
    assert np.array_equal(fast, slow)
    alone = [execute(with_batch(program, 1), [row[None], w], BACKENDS[0])[0] for row in ROWS]
    assert np.array_equal(np.concatenate(alone), fast)


def test_both_operands_may_be_rows_where_the_sum_lies_along_a_row_of_each():
    r = np.random.default_rng(4)
    x, y = (r.normal(size=(2, n, 6)) * np.logspace(-60, 60, n)[:, None] for n in (4, 5))
    b = Builder()
    rows = [b.emit("quantise_rows", b.input(finite(*a.shape)), bits=25) for a in (x, y)]
    program = b.program([b.emit("matmul", *rows, transpose_a=0, transpose_b=1)])
    fast, slow = (execute(program, [x, y], backend)[0] for backend in BACKENDS)
    assert np.array_equal(fast, slow)
    assert np.allclose(fast, x @ y.swapaxes(1, 2), rtol=1e-5)


def test_the_bound_of_53_bits_holds_for_rows_too():
    product(row_grid(26, 3, 8), grid(26, 8, 2))
    with pytest.raises(RejectedProgram, match="not exact: 54 bits"):
        product(row_grid(26, 3, 9), grid(26, 9, 2))


@pytest.mark.parametrize(
    "left, right, flags",
    [
        (row_grid(16, 8, 3), grid(16, 8, 2), {"transpose_a": 1}),  # sums would cross rows
        (grid(16, 3, 8), row_grid(16, 8, 2), {}),
        (row_grid(16, 3, 8), row_grid(16, 2, 8), {"transpose_a": 1, "transpose_b": 1}),
        (row_grid(16, 3, 8), row_grid(16, 8, 2), {}),
    ],
)
def test_a_sum_over_elements_of_several_exponents_is_refused(left, right, flags):
    with pytest.raises(RejectedProgram, match="takes two grids"):
        product(left, right, **flags)


@pytest.mark.parametrize("name", ["sum_rows", "sum_all"])
def test_sums_across_rows_are_refused(name):
    b = Builder()
    with pytest.raises(RejectedProgram, match="grid"):
        b.emit(name, b.input(row_grid(16, 3, 8)))


def test_a_vector_has_no_rows():
    b = Builder()
    with pytest.raises(RejectedProgram, match="two axes"):
        b.emit("quantise_rows", b.input(finite(8)), bits=16)


@pytest.mark.parametrize("bits", [2, 8, 24, 48])
def test_what_rounding_leaves_is_on_the_grid_and_a_bit_less_is_not(bits):
    x = np.random.default_rng(bits).normal(size=(4, 6))
    out = np.empty_like(x)
    quantise(x, bits, np.abs(x).max(), out)
    assert is_on_grid(out, bits)
    assert not is_on_grid(x, bits)
    assert is_on_grid(np.array([2.0 ** (bits - 1), 1.0]), bits)
    assert not is_on_grid(np.array([2.0 ** (bits - 1) + 1, 1.0]), bits)


def test_on_grids_by_rows_each_row_is_looked_at_by_itself():
    out = on_row_grid(ROWS, 20)
    assert is_on_grid(out, 20, by_rows=True)
    assert not is_on_grid(out, 20)
    assert not is_on_grid(ROWS, 20, by_rows=True)


def test_a_reshape_grows_with_the_rows_and_one_that_joins_rows_is_refused():
    b = Builder()
    x = b.input(finite(4, 6))
    halves = b.emit("relu", b.reshape(x, (8, 3)))
    program = b.program([b.reshape(halves, (4, 6))])
    assert np.array_equal(
        execute(with_batch(program, 9), [np.eye(9, 6)], BACKENDS[0])[0], np.eye(9, 6)
    )
    joined = Builder()
    program = joined.program([joined.reshape(joined.input(finite(4, 6)), (2, 12))])
    with pytest.raises(RejectedProgram, match="joins rows"):
        with_batch(program, 9)


@pytest.mark.parametrize("value", [np.nan, np.inf, 2.0**500, 5e-324])
def test_numbers_off_the_range_are_on_no_grid(value):
    assert not is_on_grid(np.array([1.0 if value == 5e-324 else 0.0, value]), 16)
