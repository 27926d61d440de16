"""Metrics are integers: a count, or the bits of one agreed binary64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from ml_factory import SEED, make_dataset, make_task

from mlchain import codec
from mlchain.errors import Trap
from mlchain.ml_runtime import Metrics, NumpyBackend, Oracle, Trainer
from mlchain.ml_runtime.metrics import accuracy, mean_squared_error


def test_accuracy_counts_rows_and_gives_ties_to_the_lowest_class():
    scores = np.array([[1.0, 2.0], [3.0, 3.0], [3.0, 3.0], [-1.0, -2.0]])
    result = accuracy(scores, np.array([1, 0, 1, 1]))
    assert (result.correct, result.total) == (2, 4)
    assert result.value == Fraction(1, 2)
    assert str(result) == "accuracy 0.5000 (2 of 4)"


def test_mean_squared_error_is_an_exact_fraction():
    result = mean_squared_error(np.array([[1.5], [2.0]]), np.array([[1.0], [0.0]]))
    assert result.value == Fraction(17, 8)
    assert (result.correct, result.total) == (0, 2)
    assert str(result) == "mean squared error 2.125 over 2 rows"


def test_mean_squared_error_does_not_depend_on_the_order_of_rows():
    r = np.random.default_rng(0)
    scores, y = r.normal(size=(2, 10_000, 1))
    orders = (slice(None), slice(None, None, -1), np.argsort(scores[:, 0]))
    results = {mean_squared_error(scores[order], y[order]) for order in orders}
    assert len(results) == 1
    assert float(results.pop().value) == pytest.approx(np.square(scores - y).mean(), rel=1e-8)
    plain = {np.add.accumulate(np.square(scores[order] - y[order]))[-1, 0] for order in orders}
    assert len(plain) > 1  # the control: a plain sum does


def test_an_error_too_large_to_square_traps():
    with np.errstate(over="ignore"), pytest.raises(Trap):
        mean_squared_error(np.array([[1e200]]), np.array([[0.0]]))


@pytest.mark.parametrize("outputs", [0, 2])
def test_all_backends_measure_the_same(outputs):
    data = make_dataset(classes=0 if outputs else 3, outputs=outputs)
    task = make_task(data, steps=6, chunk=6, hidden=(4,))
    found = []
    for backend in (NumpyBackend(), Oracle()):
        trainer = Trainer(task, data, SEED, backend)
        found.append(trainer.evaluate(trainer.run_chunk(0, trainer.initial_state())))
    assert found[0] == found[1]
    assert codec.decode(Metrics, codec.encode(found[0])) == found[0]
