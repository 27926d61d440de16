"""Ops that compare and choose, at the values where machines or libraries disagree."""

from __future__ import annotations

import numpy as np
import pytest

from mlchain.errors import RejectedProgram
from mlchain.ml_runtime import NumpyBackend, Oracle
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.op import OPS, Call
from mlchain.ml_runtime.tensor import Type, allocate, finite, grid, labels, stored

INF, NAN = np.inf, np.nan
every_backend = pytest.mark.parametrize("backend", [NumpyBackend, Oracle])


def apply(backend, op: str, *values, **attributes):
    """The result of one op; lists of ints are labels below 8."""
    b = Builder()
    arrays = [np.array(v) for v in values]
    kinds = [labels(8, *a.shape) if a.dtype.kind == "i" else finite(*a.shape) for a in arrays]
    result = b.emit(op, *(b.input(kind) for kind in kinds), **attributes)
    out = allocate(b.type(result))
    backend().bind(b.program([result]), arrays, [out])()
    return out.tolist()


@every_backend
def test_a_zero_divisor_counts_as_positive_zero_whatever_its_sign(backend):
    x, y = [1.0, -1.0, 0.0, 6.0], [-0.0, -0.0, -0.0, -3.0]
    assert apply(backend, "divide", x, y) == pytest.approx([INF, -INF, NAN, -2], nan_ok=True)
    assert apply(backend, "divide", [[1.0, -1.0]], [-0.0, -0.0]) == [[INF, -INF]]
    plain = np.zeros(2)
    with np.errstate(all="ignore"):
        np.divide([1.0, -1.0], [-0.0, -0.0], out=plain)
    assert plain.tolist() == [-INF, INF]  # control: the sign of zero would show


@every_backend
def test_nan_is_carried_and_never_chosen_by_accident(backend):
    x, y = [NAN, 1.0, NAN, 1.0], [1.0, NAN, NAN, 2.0]
    for op, last in (("minimum", 1.0), ("maximum", 2.0)):
        assert apply(backend, op, x, y) == pytest.approx([NAN, NAN, NAN, last], nan_ok=True)
    for relation in range(3):
        assert apply(backend, "compare", x[:3], y[:3], relation=relation) == [0, 0, 0]
    assert apply(backend, "select", [NAN, 0.0, -1.0, 0.5], [1.0] * 4, [2.0] * 4) == [2, 2, 2, 1]


@every_backend
def test_the_first_of_equal_largest_numbers_is_taken_and_nan_is_larger(backend):
    rows = [[1.0, 3.0, 3.0], [0.0, -0.0, 0.0], [-INF, NAN, INF], [NAN, NAN, 0.0]]
    assert apply(backend, "argmax", rows) == [1, 0, 1, 0]
    expected = [3, 0, NAN, NAN]
    assert apply(backend, "row_maximum", rows) == pytest.approx(expected, nan_ok=True)


@every_backend
def test_whole_numbers_keep_infinities_and_tie_to_even(backend):
    x = [-2.5, -0.5, 0.5, 1.5, 2.0**60, INF]
    assert apply(backend, "rint", x) == [-2, 0, 0, 2, 2.0**60, INF]
    assert apply(backend, "floor", x) == [-3, -1, 0, 1, 2.0**60, INF]


@every_backend
def test_labels_compare_as_numbers_and_become_columns(backend):
    assert apply(backend, "compare", [3, 1], [3, 2], relation=2) == [1, 0]
    assert apply(backend, "compare", [3, 1], 1.5, relation=0) == [0, 1]
    hot = apply(backend, "one_hot", [2, 0], classes=8)
    assert hot == [[0, 0, 1] + [0] * 5, [1] + [0] * 7]
    assert apply(backend, "positions", count=3) == [0, 1, 2]


@every_backend
def test_y_meets_every_part_of_x_that_has_its_shape(backend):
    x = [[[1.0, 5.0], [3.0, 7.0]], [[9.0, 2.0], [4.0, 0.0]]]
    assert apply(backend, "minimum", x, 3.0) == [[[1, 3], [3, 3]], [[3, 2], [3, 0]]]
    assert apply(backend, "maximum", x, [4.0, 4.0])[1] == [[9, 4], [4, 4]]
    assert apply(backend, "select", [1.0, 0.0], x, -1.0)[0] == [[1, -1], [3, -1]]


REFUSED = {
    "columns that only numpy would fit": ("divide", [finite(3, 2), finite(3, 1)], {}),
    "y larger than x": ("minimum", [finite(2), finite(3, 2)], {}),
    "state": ("absolute", [stored(2)], {}),
    "labels with state": ("compare", [labels(3, 2), stored(2)], {"relation": 2}),
    "an unknown relation": ("compare", [finite(2), finite(2)], {"relation": 3}),
    "labels beyond the classes": ("one_hot", [labels(5, 2)], {"classes": 4}),
    "the best of a vector, which shards would split": ("argmax", [finite(4)], {}),
    "no positions": ("positions", [], {"count": 0}),
    "state stored again": ("store", [stored(2)], {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_check_refuses(case):
    op, kinds, attributes = REFUSED[case]
    b = Builder()
    with pytest.raises(RejectedProgram):
        b.emit(op, *(b.input(kind) for kind in kinds), **attributes)


def test_zeros_and_ones_stand_on_a_grid_and_enter_exact_sums_as_they_are():
    b = Builder()
    hot = b.emit("one_hot", b.input(labels(3, 5)), classes=3)
    assert b.type(hot) == grid(2, 5, 3)
    b.emit("sum_rows", hot)
    assert [b.type(b.emit("positions", count=n)).bound for n in (1, 2, 3, 8, 9)] == [2, 2, 3, 4, 5]


def test_state_is_stored_as_every_update_rounds_it():
    x = np.array([1 / 3, -0.0, 1e-40, 2.0**24 + 1, 1e300])
    out = np.zeros(5, "<f4")
    with np.errstate(over="ignore"):
        OPS["store"].forward(Call([out], [x], (), Scratch()))
        OPS["sgd"].forward(Call([again := out.copy()], [out, np.zeros(5)], (1.0, 0.0), Scratch()))
    assert Type("S", 0, (5,)) == stored(5)
    assert out.tolist()[:4] == [np.float32(1 / 3), 0, 0, 2.0**24]
    assert out.tolist()[4] == INF
    assert not np.signbit(out[1])
    assert again.tobytes() == out.tobytes()
