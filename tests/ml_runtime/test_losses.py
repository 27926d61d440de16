"""Losses by name: what each one says of scores, and that a model may take another than its own."""

from __future__ import annotations

import numpy as np
import pytest
from ml_factory import SEED, make_dataset, make_task

from mlchain.errors import ConfigError
from mlchain.ml_runtime import NumpyBackend, Trainer, make_plan
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.losses import LOSSES, error_rate
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.tensor import finite, labels

SCORES = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 40.0, 1.0]])
Y = np.array([0, 2, 2])
SIGNS = 2.0 * (np.arange(3) == Y[:, None]) - 1
SHORT = np.maximum(0, 1 - SIGNS * SCORES)
EXPECTED = {
    "cross_entropy": np.mean(np.log(np.exp(SCORES).sum(1)) - SCORES[np.arange(3), Y]),
    "logistic": np.mean(np.logaddexp(0, -SIGNS * SCORES).sum(1)),
    "hinge": np.mean(SHORT.sum(1)),
    "squared_hinge": np.mean((SHORT**2).sum(1)),
}


def value_of(loss) -> float:
    b = Builder()
    program = b.program([loss(b, b.input(finite(3, 3)), b.input(labels(3, 3)))])
    return float(execute(program, [SCORES, Y], NumpyBackend())[0])


@pytest.mark.parametrize("name", LOSSES["class"])
def test_a_loss_is_what_its_name_says(name):
    assert value_of(LOSSES["class"][name]) == pytest.approx(EXPECTED[name], rel=1e-6)


def test_the_error_rate_counts_rows_whose_first_largest_score_is_elsewhere():
    assert value_of(error_rate) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", LOSSES["class"])
def test_any_model_of_classes_learns_by_any_loss_of_classes(name):
    data = make_dataset(rows=200)
    task = make_task(data, "softmax", steps=200, chunk=200, loss=name, rate="0.05")
    trainer = Trainer(task, data, SEED)
    state = trainer.run_chunk(0, trainer.initial_state())
    assert trainer.evaluate(state).value > 0.85


def test_a_loss_of_another_target_is_refused():
    for model, sizes in (("linear", {"outputs": 1}), ("mlp", {"outputs": 2})):
        with pytest.raises(ConfigError, match="loss: no 'hinge'"):
            make_plan(model, features=2, loss="hinge", **sizes)
