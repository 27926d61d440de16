"""k-means: what it promises beside what all models do."""

from __future__ import annotations

import numpy as np
import pytest
from ml_factory import SEED

from mlchain.errors import ConfigError, RejectedProgram
from mlchain.ml_runtime import Dataset, Task, Trainer, make_plan

HEAPS = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]])


def heaps(rows: int = 80) -> np.ndarray:
    noise = np.random.default_rng(3).normal(size=(rows, 2))
    return HEAPS[np.arange(rows) % 4] + noise / 2


def train(data: Dataset, clusters: int, steps: int, batch: int = 0, seed: bytes = SEED, **options):
    rows = data.rows
    plan = make_plan("kmeans", features=2, clusters=clusters, batch=batch or rows, **options)
    trainer = Trainer(Task(plan.encode(), steps, steps, rows, 0), data, seed)
    return trainer, trainer.run_chunk(0, trainer.initial_state())


def centres_of(data: Dataset, state) -> np.ndarray:
    return state.tensors[0].T * 2.0 ** data.header.exponents[0]


@pytest.mark.parametrize("options", [{}, {"mini_batch": True, "batch": 20}])
def test_heaps_are_found_one_by_one_and_their_means_are_the_centres(options):
    x = heaps()
    data = Dataset.from_arrays(x)
    centres = centres_of(data, train(data, 4, 30, **options)[1])
    order = [int(np.argmin(((centres - heap) ** 2).sum(1))) for heap in HEAPS]
    assert sorted(order) == [0, 1, 2, 3]
    means = np.array([x[np.arange(80) % 4 == h].mean(0) for h in range(4)])
    assert np.abs(centres[order] - means).max() < (0.4 if options else 1e-3)


def test_labels_do_not_matter():
    x = heaps()
    plain, labelled = Dataset.from_arrays(x), Dataset.from_arrays(x, np.arange(80) % 5, classes=5)
    assert train(plain, 3, 9)[1].digest() == train(labelled, 3, 9)[1].digest()


def test_before_all_centres_are_found_the_missing_ones_are_copies_of_the_first():
    data = Dataset.from_arrays(heaps())
    centres = centres_of(data, train(data, 4, 2)[1])
    assert np.array_equal(centres[2:], centres[[0, 0]])
    assert not np.array_equal(centres[0], centres[1])


def test_a_group_without_rows_keeps_its_centre():
    x = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    data = Dataset.from_arrays(x)
    centres = centres_of(data, train(data, 3, 8)[1])
    assert np.isfinite(centres).all()
    assert {tuple(c) for c in centres.tolist()} <= {(1.0, 1.0), (0.5, 0.5)}


def test_scores_are_minus_the_squared_distances_and_the_metric_their_mean():
    data = Dataset.from_arrays(heaps())
    plan = make_plan("kmeans", features=2, clusters=4, batch=20)
    trainer = Trainer(Task(plan.encode(), 40, 40, 60, 20), data, SEED)
    state = trainer.run_chunk(0, trainer.initial_state())
    rows, unit = heaps()[60:], 2.0 ** data.header.exponents[0]
    distances = ((rows[:, None] - centres_of(data, state)) ** 2).sum(2)
    assert np.allclose(-trainer.model(state).scores(rows) * unit**2, distances, atol=1e-2)
    metric = trainer.evaluate(state)
    assert metric.name == plan.metric == "mean squared distance"
    assert float(metric.value) * unit**2 == pytest.approx(distances.min(1).mean(), rel=1e-3)


def test_what_does_not_fit_is_refused():
    values = Dataset.from_arrays(heaps(), heaps())
    with pytest.raises(RejectedProgram, match="learns a cluster"):
        train(values, 3, 5)
    for sizes in ({"classes": 3}, {"clusters": 3, "candidates": 0}, {"clusters": 2, "classes": 2}):
        with pytest.raises(ConfigError):
            make_plan("kmeans", features=2, **sizes)
