"""Data and small tasks for every model of the folder `models`, whatever its rows are."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_factory import make_dataset, make_task

from mlchain.ml_runtime import Dataset, Task
from mlchain.ml_runtime.tensor import Array

OPTIONS = {
    "cnn": {"image": (4, 4, 1), "channels": (4,), "hidden": (8,), "dropout": "0.1"},
    "mlp": {"dropout": "0.1"},
    "transformer": {"vocabulary": 6, "width": 8, "heads": 2, "layers": 1, "dropout": "0.1"},
    "vit": {"image": (4, 4, 1), "patch": 2, "width": 8, "heads": 2, "layers": 1, "dropout": "0.1"},
}
"""Models that need to know what their rows are; small ones, for the oracle's sake."""
CALM = ("cnn", "transformer", "vit")
"""Models that take a smaller rate."""


def rows_for(model: str, rows: int) -> Array:
    """Rows as a model takes them: images of 4 x 4, places with one of six tokens, a table."""
    r = np.random.default_rng(5)
    if model == "transformer":
        return r.integers(0, 6, (rows, 5))
    if model not in CALM:
        return r.normal(size=(rows, 7))
    quarters = r.random((rows, 2, 2)).repeat(2, 1).repeat(2, 2)  # how bright each quarter is
    return (quarters + r.normal(size=quarters.shape) / 20).reshape(rows, 16)


def data_for(target: str, rows: int = 60, model: str = "") -> Dataset:
    """Rows to learn from; those to group stand in three heaps, those to count are counts."""
    if model == "multinomial_nb":
        r, y = np.random.default_rng(7), np.arange(rows) % 3
        return Dataset.from_arrays(r.poisson(r.uniform(0, 9, (3, 7))[y]), y, classes=3)
    if model in CALM:
        x, tokens = rows_for(model, rows), model == "transformer"
        values = np.stack([x[:, -1], x[:, 0], x[:, 2]], 1) / (5 if tokens else 1)
        if target == "value":
            return Dataset.from_arrays(x, values[:, :2], tokens=tokens)
        y = x[:, -1] % 3 if tokens else values.argmax(1)
        return Dataset.from_arrays(x, y, classes=3, tokens=tokens)
    if target == "cluster":
        r = np.random.default_rng(7)
        return Dataset.from_arrays(r.normal(size=(rows, 7)) + 9 * (np.arange(rows) % 3)[:, None])
    sizes = {"classes": 3} if target == "class" else {"classes": 0, "outputs": 2}
    return make_dataset(rows, **sizes)


def task_for(data: Dataset, model: str, target: str, **options: Any) -> Task:
    sizes = {"clusters": 3} if target == "cluster" else {}
    return make_task(data, model, **sizes, **{**OPTIONS.get(model, {}), **options})
