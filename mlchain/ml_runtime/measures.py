"""Measures of predictions for people: exact, or rounded in stated places, in any order of the rows.

Counts are integers and their ratios are fractions. Means are those of `metrics.mean`: terms rounded
once onto one grid, summed exactly, divided once. So nobody who repeats a measure on the same rows,
shuffled or not, gets another last bit. None of them decides anything on a chain; `metrics` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mlchain.errors import ConfigError
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import NumpyBackend, execute
from mlchain.ml_runtime.metrics import mean
from mlchain.ml_runtime.tensor import Array, finite, labels


def confusion_matrix(y: Any, predicted: Any, classes: int) -> Array:
    """Return how many rows of class i were predicted as class j, at [i, j].

    Raises:
        ConfigError: lengths differ, or a label is outside the classes.
    """
    rows = [np.asarray(v, np.int64).reshape(-1) for v in (y, predicted)]
    if len(rows[0]) != len(rows[1]) or any(np.any((v < 0) | (v >= classes)) for v in rows):
        raise ConfigError(
            f"confusion matrix: labels have to be 0 to {classes - 1}, one for each row"
        )
    return np.bincount(rows[0] * classes + rows[1], minlength=classes**2).reshape(classes, classes)


def accuracy(confusion: Array) -> Fraction:
    """Return the share of rows on the diagonal."""
    return _ratio(int(np.trace(confusion)), int(confusion.sum()))


def precision(confusion: Array) -> list[Fraction]:
    """Return for every class the share of its predictions that are right, 0 of none."""
    return list(map(_ratio, np.diag(confusion).tolist(), confusion.sum(axis=0).tolist()))


def recall(confusion: Array) -> list[Fraction]:
    """Return for every class the share of its rows that are found, 0 of none."""
    return list(map(_ratio, np.diag(confusion).tolist(), confusion.sum(axis=1).tolist()))


def f1(confusion: Array) -> list[Fraction]:
    """Return for every class 2 right / (its rows + its predictions), 0 of none."""
    right = (2 * np.diag(confusion)).tolist()
    return list(map(_ratio, right, (confusion.sum(axis=0) + confusion.sum(axis=1)).tolist()))


def macro(values: Sequence[Fraction]) -> Fraction:
    """Return the mean over classes, each counting alike."""
    return sum(values, Fraction(0)) / len(values)


def mean_squared_error(predicted: Any, y: Any) -> float:
    """Return the mean of (predicted - y) squared."""
    return mean(np.square(_differences(predicted, y)))


def mean_absolute_error(predicted: Any, y: Any) -> float:
    """Return the mean of |predicted - y|."""
    return mean(np.abs(_differences(predicted, y)))


def r2(predicted: Any, y: Any) -> float:
    """Return 1 - mean squared error / variance of y, all columns as one.

    Raises:
        ConfigError: y does not vary.
    """
    target = np.asarray(y, np.float64)
    variance = mean(np.square(target - mean(target)))
    if not variance:
        raise ConfigError("r2: y does not vary", "give the mean squared error instead")
    return 1.0 - mean_squared_error(predicted, y) / variance


def log_loss(scores: Any, y: Any) -> float:
    """Return the mean of -log softmax(scores)[i, y_i], for rows x classes of scores."""
    rows, target = np.asarray(scores, np.float64), np.asarray(y, np.int64)
    if rows.ndim != 2 or target.shape != rows.shape[:1]:
        raise ConfigError("log loss: scores have to be rows x classes, with a label for each row")
    if np.any((target < 0) | (target >= rows.shape[1])):
        raise ConfigError("log loss: a label is outside the classes")
    b = Builder()
    x, label = b.input(finite(*rows.shape)), b.input(labels(rows.shape[1], len(rows)))
    loss = b.emit("log_loss", b.emit("softmax", x), label)
    (losses,) = execute(b.program([loss]), [rows, target], NumpyBackend())
    return mean(losses)


def _differences(predicted: Any, y: Any) -> Array:
    a, b = np.asarray(predicted, np.float64), np.asarray(y, np.float64)
    if a.size != b.size or not a.size:
        raise ConfigError(f"{a.size} predictions for {b.size} values")
    difference: Array = a.reshape(-1) - b.reshape(-1)
    return difference


def _ratio(part: int, whole: int) -> Fraction:
    return Fraction(part, whole) if whole else Fraction(0)
