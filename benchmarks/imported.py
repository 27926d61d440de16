"""What exactness costs a model that came from scikit-learn: our answers against its `predict`.

    PYTHONPATH=. python benchmarks/imported.py [--rounds N]

Both answer the same rows in the same process, one thread each, turn by turn, by CPU time; a ratio
is the median of the ratios of such pairs, so a busy machine slows both alike. The model is bound
once, as a service would. Answers are compared on the way: agreement is of all rows asked.
"""
# ruff: noqa: E402 (the number of threads is fixed before numpy loads)

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy loads

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mlchain.ml_runtime import Predictor
from mlchain.ml_runtime.importers import from_sklearn

SIZES = (1, 32, 1_000, 20_000)
MIN_SECONDS = 0.01


def net(activation: str, *hidden: int) -> Any:
    return make_pipeline(
        StandardScaler(),
        MLPClassifier(
            hidden_layer_sizes=hidden, activation=activation, max_iter=30, random_state=0
        ),
    )


MODELS: dict[str, Any] = {
    "logistic": LogisticRegression(max_iter=50),
    "scaler, logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)),
    "scaler, pca, logistic": make_pipeline(
        StandardScaler(), PCA(16), LogisticRegression(max_iter=50)
    ),
    "ridge": Ridge(),
    "mlp relu (64, 32)": net("relu", 64, 32),
    "mlp relu (256, 128)": net("relu", 256, 128),
    "mlp tanh (64)": net("tanh", 64),
    "k means": KMeans(10, n_init=1, random_state=0),
    "multinomial bayes": MultinomialNB(),
    "gaussian bayes": GaussianNB(),
    "tree": DecisionTreeClassifier(random_state=0),
    "forest (100)": RandomForestClassifier(100, random_state=0),
    "extra trees (100)": ExtraTreesClassifier(100, random_state=0),
    "boosting (30 x 10)": GradientBoostingClassifier(n_estimators=30, random_state=0),
}


def seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Return our time in seconds and its ratio to theirs."""
    repeats = max(1, int(MIN_SECONDS / max(seconds(ours, 1), 1e-6)))
    pairs = [(seconds(ours, repeats), seconds(theirs, repeats)) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    x, y = load_digits(return_X_y=True)
    noise = np.random.default_rng(0).normal(size=(max(SIZES), x.shape[1])) * x.std(0) * 0.3
    rows = np.abs(x[np.arange(max(SIZES)) % len(x)] + noise)
    head = "".join(f"{f'{size} rows':>18}" for size in SIZES)
    print(f"{'digits, 64 features':<24}{head}   agreement")
    for name, estimator in MODELS.items():
        if arguments.only not in name:
            continue
        estimator.fit(x, y)
        predictor = Predictor(from_sklearn(estimator))
        cells = ""
        for size in SIZES:
            part = rows[:size]
            took, ratio = compare(
                partial(predictor.answers, part), partial(estimator.predict, part), arguments.rounds
            )
            cells += f"{took / size * 1e6:>10.2f} µs {ratio:>4.2f}x"
        answers, labels = predictor.answers(rows), estimator.predict(rows)
        same = np.isclose(answers, labels, rtol=0, atol=1e-6 * np.abs(labels).max())
        print(f"{name:<24}{cells}   {100 * same.mean():.3f} %", flush=True)


if __name__ == "__main__":
    main()
