"""Measures: right, exact, and the same in any order of the rows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from sklearn import metrics as peer

from mlchain.errors import ConfigError, Trap
from mlchain.ml_runtime import measures

R = np.random.default_rng(11)
Y, PREDICTED = R.integers(0, 4, 500), R.integers(0, 4, 500)
VALUES, GUESSES = R.normal(size=500) * 1e3, R.normal(size=500)
SCORES = R.normal(size=(500, 4)) * 3


def test_counts_are_those_of_scikit_learn_and_their_ratios_are_fractions():
    table = measures.confusion_matrix(Y, PREDICTED, 4)
    assert np.array_equal(table, peer.confusion_matrix(Y, PREDICTED))
    expected = peer.precision_recall_fscore_support(Y, PREDICTED)[:3]
    found = measures.precision(table), measures.recall(table), measures.f1(table)
    for ours, theirs in zip(found, expected, strict=True):
        assert all(isinstance(v, Fraction) for v in ours)
        assert list(map(float, ours)) == pytest.approx(theirs.tolist())
    assert float(measures.macro(measures.f1(table))) == pytest.approx(
        peer.f1_score(Y, PREDICTED, average="macro")
    )
    assert measures.accuracy(table) == Fraction(int((Y == PREDICTED).sum()), 500)


def test_a_class_without_rows_or_predictions_counts_0():
    table = measures.confusion_matrix([0, 0, 1], [0, 0, 0], 3)
    assert measures.precision(table) == [Fraction(2, 3), 0, 0]
    assert measures.recall(table) == [1, 0, 0]
    assert measures.f1(table) == [Fraction(4, 5), 0, 0]


MEANS = {
    "squared": (measures.mean_squared_error, GUESSES, VALUES, peer.mean_squared_error),
    "absolute": (measures.mean_absolute_error, GUESSES, VALUES, peer.mean_absolute_error),
    "r2": (measures.r2, GUESSES, VALUES, peer.r2_score),
    "log": (measures.log_loss, SCORES, Y, None),
}


@pytest.mark.parametrize("name", MEANS)
def test_means_are_close_to_scikit_learn_s_and_the_same_in_any_order(name):
    measure, predicted, y, theirs = MEANS[name]
    found = measure(predicted, y)
    if theirs is None:
        chances = np.exp(predicted - predicted.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        expected = peer.log_loss(y, chances)
    else:
        expected = theirs(y, predicted)
    assert found == pytest.approx(expected, rel=1e-6)
    orders = [np.random.default_rng(seed).permutation(500) for seed in range(10)]
    assert {measure(predicted[order], y[order]) for order in orders} == {found}


def test_plain_means_depend_on_the_order():
    """Control."""
    squares = (GUESSES - VALUES) ** 2
    orders = [np.random.default_rng(seed).permutation(500) for seed in range(50)]
    assert len({float(np.mean(squares[order])) for order in orders}) > 1


def test_what_cannot_be_measured_is_one_clear_error():
    for wrong in (
        lambda: measures.confusion_matrix([0, 3], [0, 0], 3),
        lambda: measures.confusion_matrix([0], [0, 0], 3),
        lambda: measures.mean_absolute_error([1.0], [1.0, 2.0]),
        lambda: measures.r2([1.0, 2.0], [3.0, 3.0]),
        lambda: measures.log_loss([[1.0, 2.0]], [2]),
        lambda: measures.log_loss([1.0, 2.0], [0, 1]),
    ):
        with pytest.raises(ConfigError):
            wrong()
    with pytest.raises(Trap):
        measures.mean_squared_error([np.inf], [1.0])
