"""Predictions: static scales, so that one row alone gives the bits it gives in company."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from ml_factory import SEED, make_dataset, make_task

from mlchain import codec
from mlchain.errors import ConfigError, RejectedProgram
from mlchain.ml_runtime import Model, NumpyBackend, Oracle, Trainer
from mlchain.ml_runtime.data import FRACTION
from mlchain.ml_runtime.inference import predict
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.program import Node, Program

DATA = make_dataset(rows=120)
TRAINER = Trainer(make_task(DATA, steps=30, chunk=30, hidden=(8, 8)), DATA, SEED)
STATE = TRAINER.run_chunk(0, TRAINER.initial_state())
MODEL = TRAINER.model(STATE)
ROWS = np.random.default_rng(2).normal(size=(50, 7)) * np.linspace(0.01, 3, 50)[:, None]


def test_a_row_alone_gives_the_bits_it_gives_in_company():
    together = MODEL.scores(ROWS)
    for i, row in enumerate(ROWS):
        assert np.array_equal(MODEL.scores(row[None]), together[i : i + 1])
    assert np.array_equal(MODEL.scores(ROWS[::-1]), together[::-1])


def test_with_the_scales_of_training_rows_would_change_each_other():
    """Control of the test above: the same program, scales still dynamic."""
    plan = TRAINER.plan
    parameters = STATE.tensors[: len(plan.predict.inputs) - 1]
    mantissas = np.round(np.clip(ROWS / 8, -1, 1) * (2**15 - 1)).astype(np.int16)
    together = predict(plan.predict, parameters, mantissas)
    alone = np.concatenate([predict(plan.predict, parameters, m[None]) for m in mantissas])
    assert not np.array_equal(together, alone)
    static = predict(MODEL.predict, parameters, mantissas)
    alone = np.concatenate([predict(MODEL.predict, parameters, m[None]) for m in mantissas])
    assert np.array_equal(static, alone)


def test_static_scales_change_scores_by_rounding_only():
    x = DATA.x[:8] * 2.0**-FRACTION
    parameters = STATE.tensors[: len(MODEL.parameters)]
    (dynamic,) = execute(TRAINER.plan.predict, [x, *parameters], NumpyBackend())
    static = predict(MODEL.predict, parameters, DATA.x[:8])
    assert np.abs(dynamic - static).max() < 1e-3


def test_scales_of_parameters_stay_as_they_are_and_those_of_rows_are_fixed():
    ops = [node.op for node in MODEL.predict.nodes]
    assert ops.count("quantise") == 3  # one for each of the three matrices
    assert ops.count("saturate") == 2  # the inputs of the second and third; x comes on its grid


def test_values_far_outside_what_was_seen_saturate_and_do_not_trap():
    assert np.isfinite(MODEL.scores(np.full((1, 7), 1e30))).all()


def test_a_model_file_carries_all_that_predictions_need():
    again = codec.decode(Model, codec.encode(MODEL))
    assert np.array_equal(again.scores(ROWS), MODEL.scores(ROWS))


def test_the_oracle_predicts_the_same():
    assert np.array_equal(MODEL.scores(ROWS, Oracle()), MODEL.scores(ROWS))


@pytest.mark.parametrize(
    "rows", [np.ones(7), np.ones((1, 6)), np.full((1, 7), np.nan), np.full((1, 7), 1e31)]
)
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(ConfigError):
        MODEL.scores(rows)


def altered(**fields: object) -> Model:
    return msgspec.structs.replace(MODEL, **fields)


@pytest.mark.parametrize(
    "model",
    [
        altered(parameters=()),
        altered(parameters=(MODEL.parameters[0][:-4], *MODEL.parameters[1:])),
        altered(exponents=MODEL.exponents[:-1]),
        altered(outputs=4),
        altered(predict=Program((), (Node("constant", (), (0,)),), (0,))),
        altered(predict=Program(MODEL.predict.inputs, MODEL.predict.nodes, (1,))),
        altered(predict=Program(MODEL.predict.inputs, (Node("exec", (0,), ()),), (0,))),
    ],
)
def test_a_hostile_model_file_is_refused(model):
    with pytest.raises(RejectedProgram):
        model.scores(ROWS)


def test_a_model_file_with_parameters_that_are_no_numbers_is_refused():
    nothing = np.full(len(MODEL.parameters[0]) // 4, np.nan, "<f4").tobytes()
    with pytest.raises(RejectedProgram, match="parameter 0 holds a number that is not in S"):
        altered(parameters=(nothing, *MODEL.parameters[1:])).scores(ROWS)


def test_no_rows_give_no_scores():
    assert MODEL.scores(np.ones((0, 7))).shape == (0, 3)
