"""From the parameters of an estimator and its rows to a training job: program, data, numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlchain.client.jobfile import RULES
from mlchain.client.scaling import Floats, Scaling, centre, standardise, unscaled
from mlchain.client.training import IN_RAW_UNITS, TrainingJob
from mlchain.errors import ConfigError
from mlchain.ml_runtime import Dataset, make_plan

ONE_PASS = ("ridge", "nearest_centroid", "gaussian_nb", "multinomial_nb")
"""Rules that count rows: each row once, whatever `epochs` says."""
UNSCALED = ("multinomial_nb", "transformer")
BATCH = 200
GROUPING_STEPS = 30
"""Steps of k-means after its centres are found, unless told otherwise."""
MANY_CHUNKS, FEW_CHUNKS, SHORT_CHUNK = 1000, 100, 10
"""Long jobs are cut into the first number of chunks; short ones into fewer, so that a chunk has
`SHORT_CHUNK` steps if it can: each is a state that travels to whoever re-runs it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train, as an estimator's parameters say; what is None follows from model and rows."""

    model: str
    hidden: Sequence[int]
    optimiser: str
    rate: float
    alpha: float | None
    epochs: int
    batch: int | None
    chunk: int | None
    segments: int
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as a job has them, and what was done to them first."""

    dataset: Dataset
    features: Scaling
    target: Scaling | None
    """How values were scaled; None for classes and groups."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job and its rows."""

    job: TrainingJob
    rows: Rows


def scale_rows(
    model: str, x: Floats, y: NDArray[Any] | None, *, classes: int = 0, clusters: int = 0
) -> Rows:
    """Return rows as a job of `model` has them: numbers of `classes`, values, or groups."""
    scaling, target = _scaling(model, x, clusters), None
    if y is not None and not classes:
        target = standardise(y[:, None])
        y = target.apply(y[:, None])[:, 0]
    dataset = Dataset.from_arrays(
        scaling.apply(x),
        y,
        classes=classes,
        shared_scale=model in RULES,
        tokens=model == "transformer",
    )
    return Rows(dataset, scaling, target)


def prepare_rows(
    recipe: Recipe, x: Floats, y: NDArray[Any] | None, *, classes: int = 0, clusters: int = 0
) -> Prepared:
    """Return the job that learns from rows: numbers of `classes`, values, or groups without `y`.

    Raises:
        ConfigError: parameters that do not fit one another or the rows; says which.
    """
    rows, features = x.shape
    model = recipe.model
    scaled = scale_rows(model, x, y, classes=classes, clusters=clusters)
    batch = min(_whole(recipe.batch or _batch(model, rows), "batch_size"), rows)
    steps = -(-_whole(recipe.epochs, "epochs") * rows // batch)
    if model in ONE_PASS:
        steps = -(-rows // batch)
    elif clusters and recipe.batch is None:
        steps = clusters + GROUPING_STEPS
    chunk = _whole(recipe.chunk or _chunk(steps), "chunk")
    chunks = -(-steps // chunk)
    segments = _whole(recipe.segments, "segments")
    if segments > chunks:
        raise ConfigError(f"segments={segments}: there are {chunks} chunks of {chunk} steps")
    plan = make_plan(
        model,
        features=features,
        batch=batch,
        classes=classes,
        clusters=clusters,
        outputs=1 if scaled.target else 0,
        **_options(recipe, scaled.dataset),
    )
    job = TrainingJob(
        plan=plan.encode(),
        dataset=scaled.dataset.encode(),
        features=features,
        train_rows=rows,
        test_rows=0,
        steps=steps,
        chunk=chunk,
        segment=-(-chunks // segments),
        classes=(),
        scaling=scaled.features,
        target_scaling=scaled.target,
    )
    return Prepared(job, scaled)


def _scaling(model: str, x: Floats, clusters: int) -> Scaling:
    """Return what is done to features: nothing to counts, nothing that bends distances."""
    if model in UNSCALED:
        return unscaled(x.shape[1])
    return centre(x) if clusters else standardise(x)


def _batch(model: str, rows: int) -> int:
    """Return the rows of a step that suit a model."""
    if model == "perceptron":
        return 1
    return rows if model in RULES else BATCH


def _chunk(steps: int) -> int:
    """Return the steps of a chunk that suit a job."""
    return max(-(-steps // MANY_CHUNKS), min(SHORT_CHUNK, -(-steps // FEW_CHUNKS)))


def _options(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Return what `make_plan` is told beside sizes."""
    options: dict[str, Any] = dict(recipe.options)
    if recipe.model not in RULES:
        options |= {"optimiser": recipe.optimiser, "rate": recipe.rate}
        if recipe.alpha is not None:
            options["weight_decay"] = recipe.alpha
    elif recipe.alpha is not None:
        options["alpha"] = recipe.alpha
    if recipe.model == "mlp":
        options.setdefault("hidden", [int(width) for width in np.atleast_1d(recipe.hidden)])
    if recipe.model in IN_RAW_UNITS:
        options["unit"] = 2.0 ** dataset.header.exponents[0]
    return options


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ConfigError(f"{name}={value!r}: a whole number, at least 1")
    return int(value)
