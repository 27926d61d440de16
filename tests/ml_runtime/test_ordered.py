"""Ops whose order is part of the definition, against exact arithmetic and one another."""

from __future__ import annotations

import numpy as np
import pytest

from mlchain.errors import RejectedProgram, Trap
from mlchain.ml_runtime import NumpyBackend, Oracle
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.tensor import finite

every_backend = pytest.mark.parametrize("backend", [NumpyBackend, Oracle])


def solve(backend, a, right):
    b = Builder()
    x, y = b.input(finite(*a.shape)), b.input(finite(*right.shape))
    factor = b.emit("cholesky", x)
    program = b.program([factor, b.emit("cholesky_solve", factor, y)])
    return execute(program, [a, right], backend())


def system(size: int, seed: int = 1):
    r = np.random.default_rng(seed)
    x = r.normal(size=(size + 3, size))
    return x.T @ x + np.eye(size), r.normal(size=(size, 2))


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_systems_are_solved_and_the_oracle_gets_the_same_bits(size):
    a, right = system(size)
    results = [solve(backend, a, right) for backend in (NumpyBackend, Oracle)]
    for fast, slow in zip(*results, strict=True):
        assert fast.tobytes() == slow.tobytes()
    factor, x = results[0]
    assert np.allclose(factor @ factor.T, a)
    assert np.allclose(a @ x, right)
    assert not np.triu(factor, 1).any()


def test_a_system_of_more_rows_than_fit_the_work_space_is_cut_into_pieces_with_the_same_bits():
    a, right = system(150)
    factor, _ = solve(NumpyBackend, a, right)
    expected = a.copy()
    for k in range(len(a)):  # the definition, an element's column at a time
        expected[k, k] = np.sqrt(expected[k, k])
        expected[k + 1 :, k] /= expected[k, k]
        for j in range(k + 1, len(a)):
            expected[j:, j] -= expected[j:, k] * expected[j, k]
    assert np.array_equal(factor, np.tril(expected))


@every_backend
def test_the_upper_part_is_not_read(backend):
    a, right = system(4)
    other = np.tril(a) + np.triu(np.full((4, 4), np.nan), 1)
    assert [t.tolist() for t in solve(backend, a, right)] == [
        t.tolist() for t in solve(backend, other, right)
    ]


@every_backend
@pytest.mark.parametrize("worst", [0.0, -1.0, np.nan, np.inf])
def test_a_matrix_that_is_not_positive_definite_traps(backend, worst):
    a, right = system(3)
    a[2, 2] = worst if worst else a[2, :2] @ np.linalg.solve(a[:2, :2], a[:2, 2]) * (1 - 1e-9)
    with pytest.raises(Trap, match="positive definite"):
        solve(backend, a, right)


@pytest.mark.parametrize(("rows", "centres"), [(1, 1), (9, 2), (2, 9), (3000, 3), (5, 4000)])
def test_distances_are_those_of_each_row_alone_whatever_the_shape(rows, centres):
    r = np.random.default_rng(2)
    x, c, w = r.normal(size=(rows, 3)), r.normal(size=(centres, 3)), r.random((centres, 3))
    b = Builder()
    kinds = [b.input(finite(*a.shape)) for a in (x, c, w)]
    program = b.program([b.emit("weighted_distances", *kinds)])
    (found,) = execute(program, [x, c, w], NumpyBackend())
    for i, k in zip(
        r.integers(0, rows, 20).tolist(), r.integers(0, centres, 20).tolist(), strict=True
    ):
        total = 0.0
        for v, m, f in zip(x[i].tolist(), c[k].tolist(), w[k].tolist(), strict=True):
            total = total + ((v - m) * (v - m)) * f
        assert found[i, k] == total


REFUSED = {
    "a matrix that is not square": ("cholesky", [(3, 2)]),
    "a vector": ("cholesky", [(3,)]),
    "a system beyond the work space": ("cholesky", [(8193, 8193)]),
    "a right side of another length": ("cholesky_solve", [(3, 3), (2, 1)]),
    "centres of other features": ("weighted_distances", [(4, 3), (2, 2), (2, 2)]),
    "weights of another shape": ("weighted_distances", [(4, 3), (2, 3), (1, 3)]),
    "too many centres": ("weighted_distances", [(1, 1), (8193, 1), (8193, 1)]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_check_refuses(case):
    op, shapes = REFUSED[case]
    b = Builder()
    with pytest.raises(RejectedProgram):
        b.emit(op, *(b.input(finite(*shape)) for shape in shapes))
