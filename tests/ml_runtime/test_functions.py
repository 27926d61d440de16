"""exp, log, sigmoid, tanh: tables rounded correctly, results near the truth, bits ours alone."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain.ml_runtime import functions
from mlchain.ml_runtime.functions import BLOCK, Scratch
from mlchain.ml_runtime.oracle import arithmetic

TWINS = {
    functions.exp: lambda x: arithmetic.exp_scaled(x, functions.LOG2E),
    functions.log: arithmetic.log,
    functions.sigmoid: arithmetic.sigmoid,
    functions.tanh: arithmetic.tanh,
}


def apply(function, x):
    x = np.asarray(x, np.float64)
    out = np.empty_like(x)
    with np.errstate(all="ignore"):
        function(x, out, Scratch())
    return out


def test_every_entry_of_the_tables_is_the_correctly_rounded_number():
    with localcontext(prec=60):
        two = Decimal(2)
        ln2 = two.ln()
        assert functions.EXP2.tolist() == [float((ln2 * j / 2048).exp()) for j in range(2048)]
        logs = [-Decimal(c).ln() for c in functions.LOG_INVERSE.tolist()]
        assert functions.LOG_VALUE.tolist() == [float(v) for v in logs]
        constants = functions.LN2, functions.LOG2E, functions.E2, functions.E3
        assert constants == (float(ln2), float(1 / ln2), float(ln2**2 / 2), float(ln2**3 / 6))


def test_tables_are_pinned_by_their_hash():
    assert functions.TABLE_DIGEST == functions.PINNED_TABLE_DIGEST


@pytest.mark.parametrize(
    ("function", "truth", "low", "high"),
    [
        (functions.exp, math.exp, -60, 60),
        (functions.log, math.log, 1e-12, 1e12),
        (functions.sigmoid, lambda x: 1 / (1 + math.exp(-x)), -60, 60),
        (functions.tanh, math.tanh, -60, 60),
    ],
)
def test_functions_are_close_to_the_truth(function, truth, low, high):
    x = np.linspace(low, high, 4001)
    expected = np.array([truth(v) for v in x])
    # The argument of exp is scaled with one rounding: relative error grows as |x| 2^-53.
    bound = 60 * 2.0**-52 if function is functions.exp else 3 * 2.0**-52
    assert np.all(np.abs(apply(function, x) - expected) <= bound * np.maximum(1, np.abs(expected)))


@given(st.lists(st.floats(width=64), min_size=1, max_size=20))
def test_functions_equal_the_oracle_bit_for_bit(values):
    for function, twin in TWINS.items():
        expected = np.array([twin(v) for v in values])
        got = apply(function, values)
        assert np.array_equal(got, expected, equal_nan=True), function


@pytest.mark.parametrize("function", TWINS)
def test_what_is_not_a_number_stays_so(function):
    assert math.isnan(apply(function, [math.nan])[0])


def test_log_of_infinity_does_not_come_back_as_a_number():
    assert np.isnan(apply(functions.log, [math.inf, -math.inf])).all()


def test_exponents_are_clamped_so_that_softmax_stays_positive():
    assert apply(functions.exp, [-1e9, 1e9]).tolist() == [2.0**-100, 2.0**100]


@pytest.mark.parametrize("function", TWINS)
def test_results_do_not_depend_on_where_a_block_ends(function):
    x = np.linspace(0.1, 9.0, 2 * BLOCK + 5)
    whole = apply(function, x)
    assert np.array_equal(whole[7:1007], apply(function, x[7:1007]))
    assert whole[BLOCK] == apply(function, x[BLOCK : BLOCK + 1])[0]


@pytest.mark.parametrize("function", TWINS)
def test_functions_may_work_in_place(function):
    x = np.linspace(0.1, 9.0, 100)
    expected = apply(function, x)
    function(x, x, Scratch())
    assert np.array_equal(x, expected)
