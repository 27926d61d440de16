"""Merged states: counts add up, what follows from counts is solved again, the rest is a mean."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from mlchain.errors import RejectedProgram
from mlchain.ml_runtime import Dataset, Plan, State, Task, Trainer, make_plan, run
from mlchain.ml_runtime.merging import find_totals, merge_states
from mlchain.ml_runtime.partition import partition
from mlchain.ml_runtime.program import check

TRAIN_ROWS, TEST_ROWS, PARTS, BATCH, FEATURES = 120, 40, 3, 20, 5
SEED = bytes(32)
COUNTERS = ("gaussian_nb", "multinomial_nb", "nearest_centroid")


@cache
def dataset(kind: str) -> Dataset:
    rng = np.random.default_rng(7)
    x = rng.random((TRAIN_ROWS + TEST_ROWS, FEATURES))
    y = x @ np.array([1, -2, 3, 0, 0.5]) + rng.normal(0, 0.1, len(x))
    if kind == "value":
        return Dataset.from_arrays(x, np.round(y / 4, 6))
    return Dataset.from_arrays(x, (y > y.mean()).astype(int), classes=2)


def plan(model: str, **options: Any) -> Plan:
    is_value = model in ("ridge", "linear")
    options |= {"outputs": 1} if is_value else {"classes": 2}
    optimiser = "sgd" if model in ("linear", "softmax") else ""
    if optimiser:
        options["rate"] = "0.1"
    return make_plan(model, features=FEATURES, optimiser=optimiser, batch=BATCH, **options)


def task(made: Plan, rows: int, epochs: int = 1) -> Task:
    return Task(made.encode(), epochs * rows // BATCH, 1, rows, TEST_ROWS)


def train_parts(made: Plan, whole: Dataset) -> tuple[list[State], list[int]]:
    parts = list(partition(whole, bytes(range(32)), PARTS, TEST_ROWS))
    rows = [part.rows - TEST_ROWS for part in parts]
    states = [run(task(made, n), part, SEED) for n, part in zip(rows, parts, strict=True)]
    return states, rows


@pytest.mark.parametrize("model", COUNTERS)
def test_what_learns_by_counting_is_the_model_of_all_rows_bit_for_bit(model):
    made, whole = plan(model), dataset("class")
    states, rows = train_parts(made, whole)
    alone = run(task(made, TRAIN_ROWS), whole, SEED)
    assert merge_states(made, states, rows).digest() == alone.digest()


def test_merged_ridge_solves_the_equations_of_all_rows():
    made, whole = plan("ridge", alpha=1), dataset("value")
    states, rows = train_parts(made, whole)
    merged, alone = merge_states(made, states, rows), run(task(made, TRAIN_ROWS), whole, SEED)
    names = [spec.name for spec in made.state]
    gram = names.index("gram")
    assert merged.tensors[gram].tobytes() == alone.tensors[gram].tobytes()
    for ours, theirs in zip(merged.tensors, alone.tensors, strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-6)
    trainer = Trainer(task(made, TRAIN_ROWS), whole, SEED)
    assert trainer.evaluate(merged).name == "mean squared error"


def test_control_the_mean_of_the_parties_weights_is_not_that_solution():
    made, whole = plan("ridge", alpha=1), dataset("value")
    states, _ = train_parts(made, whole)
    alone = run(task(made, TRAIN_ROWS), whole, SEED)
    mean = np.mean([state.tensors[0] for state in states], axis=0)
    assert not np.allclose(mean, alone.tensors[0], rtol=0, atol=1e-3)


def test_weights_are_the_mean_weighed_by_rows():
    made, whole = plan("softmax"), dataset("class")
    states, _ = train_parts(made, whole)
    merged = merge_states(made, states, [1, 2, 5])
    exact = sum(s.tensors[0].astype(np.float64) * w for s, w in zip(states, (1, 2, 5), strict=True))
    assert np.array_equal(merged.tensors[0], (exact / 8).astype(np.float32))


def test_one_party_is_its_own_merge():
    for model in (*COUNTERS, "ridge", "softmax", "perceptron"):
        kind = "value" if model == "ridge" else "class"
        made = plan(model)
        state = run(task(made, TRAIN_ROWS), dataset(kind), SEED)
        assert merge_states(made, [state], [TRAIN_ROWS]).digest() == state.digest(), model


def test_the_order_of_parties_is_the_order_in_which_they_are_added():
    made, whole = plan("softmax"), dataset("class")
    states, rows = train_parts(made, whole)
    first = merge_states(made, states, rows)
    again = merge_states(made, [State.decode(s.encode(), made) for s in states], rows)
    assert first.digest() == again.digest()


def test_groups_are_not_merged():
    made = make_plan("kmeans", features=FEATURES, optimiser="", batch=BATCH, clusters=3)
    state = run(task(made, TRAIN_ROWS), dataset("class"), SEED)
    with pytest.raises(RejectedProgram, match="are not those of another"):
        merge_states(made, [state, state], [60, 60])


def test_tensors_that_are_only_named_like_a_total_are_none():
    made = plan("softmax")
    names = ("a", "a.rest")
    specs = tuple(
        replace(spec, name=name, shape=made.state[0].shape)
        for spec, name in zip(made.state, names, strict=False)
    )
    odd = replace(
        made, state=specs, step=replace(made.step, outputs=(2, 3, *made.step.outputs[2:]))
    )
    assert find_totals(odd, check(odd.step)) == []
