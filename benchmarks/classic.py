"""How close the classic models come to scikit-learn's: test scores of both on the same rows.

    PYTHONPATH=. python benchmarks/classic.py [--seeds N] [--only NAME]

A score is the share of test rows that are right, R² of predicted quantities, or for groups the part
of the test rows' spread that the centres explain; all in per cent, mean over the seeds. Each seed
splits the rows anew, three quarters for training, and scales features by the training rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn import cluster, datasets, linear_model, multiclass, naive_bayes, neighbors, svm

from mlchain.ml_runtime import Dataset, Task, Trainer, make_plan

GROUPS = 10
SETS = ("iris", "wine", "breast_cancer", "digits")


@dataclass(frozen=True)
class Case:
    """One of our models beside its namesake. `steps` 1 means one pass over all rows at once."""

    model: str
    peer: Callable[[int], Any]
    steps: int = 1
    batch: int = 0
    scale: str = "standard"
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.0
    decay: float = 0.0
    sets: tuple[str, ...] = SETS


def one_vs_rest(seed: int) -> Any:
    return multiclass.OneVsRestClassifier(linear_model.LogisticRegression(max_iter=5000))


CASES = {
    "ridge": Case("ridge", lambda s: linear_model.Ridge(), sets=("diabetes",)),
    "softmax": Case(
        "softmax", lambda s: linear_model.LogisticRegression(max_iter=5000), 400, rate=0.05, decay=1
    ),
    "logistic": Case("logistic", one_vs_rest, 400, rate=0.05, decay=1),
    "svm": Case(
        "svm",
        lambda s: svm.LinearSVC(loss="hinge", max_iter=100_000),
        1500,
        rate=0.005,
        decay=1,
    ),
    "svm, squared hinge": Case(
        "svm",
        lambda s: svm.LinearSVC(max_iter=100_000),
        800,
        options={"loss": "squared_hinge"},
        rate=0.02,
        decay=1,
    ),
    "perceptron": Case(
        "perceptron",
        lambda s: linear_model.Perceptron(max_iter=30, tol=None, random_state=s),
        30,
        1,
    ),
    "nearest_centroid": Case("nearest_centroid", lambda s: neighbors.NearestCentroid()),
    "gaussian_nb": Case("gaussian_nb", lambda s: naive_bayes.GaussianNB()),
    "kmeans": Case("kmeans", lambda s: cluster.KMeans(GROUPS, random_state=s), 60),
    "kmeans, mini-batch": Case(
        "kmeans",
        lambda s: cluster.MiniBatchKMeans(GROUPS, batch_size=128, random_state=s),
        60,
        128,
        options={"mini_batch": True},
        sets=("digits",),
    ),
    "multinomial_nb": Case("multinomial_nb", lambda s: naive_bayes.MultinomialNB(), scale="range"),
}


def load(name: str, scale: str, seed: int) -> tuple[np.ndarray, ...]:
    """Return x and y to train on, x and y to test on."""
    bunch = getattr(datasets, f"load_{name}")()
    order = np.random.default_rng(seed).permutation(len(bunch.target))
    x, y = bunch.data[order].astype(float), bunch.target[order]
    rows = len(y) * 3 // 4
    low, span = x[:rows].mean(0), x[:rows].std(0)
    if scale == "range":
        low, span = x[:rows].min(0), x[:rows].max(0) - x[:rows].min(0)
    x = (x - low) / np.where(span == 0, 1, span)
    if scale == "range":
        x = np.maximum(x, 0)
    return x[:rows], y[:rows], x[rows:], y[rows:]


def ours(case: Case, x: np.ndarray, y: np.ndarray, xt: np.ndarray, seed: int) -> np.ndarray:
    """Train and return the scores of the test rows."""
    classes = int(y.max()) + 1 if y.dtype.kind == "i" else 0
    data = Dataset.from_arrays(x, y, classes=classes)
    sizes = {"classes": classes} if classes else {"outputs": 1}
    if case.model == "kmeans":
        sizes = {"clusters": GROUPS}
    rows, batch = len(x), case.batch or len(x)
    options = dict(case.options)
    unit = 2.0 ** data.header.exponents[0]  # what x = 1 stands for
    if case.model in ("ridge", "multinomial_nb", "perceptron"):
        options["unit"] = unit
    if case.rate:  # weights grow as x shrinks, and the penalty counts in raw units
        options |= {"rate": case.rate * unit, "weight_decay": case.decay / rows / unit**2}
    plan = make_plan(case.model, features=x.shape[1], batch=batch, **sizes, **options)
    steps = case.steps * rows // batch
    trainer = Trainer(Task(plan.encode(), steps, steps, rows, 0), data, bytes([seed + 1] * 32))
    state = trainer.run_chunk(0, trainer.initial_state())
    return trainer.model(state).scores(xt)


def score(prediction: np.ndarray, y: np.ndarray) -> float:
    """Return the accuracy of labels, or R² of quantities, in per cent."""
    if y.dtype.kind == "i":
        return 100 * float(np.mean(prediction == y))
    return 100 * (1 - float(np.sum((y - prediction) ** 2) / np.sum((y - y.mean()) ** 2)))


def measure(case: Case, name: str, seed: int) -> tuple[float, float, float]:
    """Return our score, scikit-learn's, and our seconds over its."""
    x, y, xt, yt = load(name, case.scale, seed)
    start = time.perf_counter()
    scores = ours(case, x, y, xt, seed)
    middle = time.perf_counter()
    peer = case.peer(seed).fit(x, y)
    prediction = peer.predict(xt)
    end = time.perf_counter()
    ratio = (middle - start) / (end - middle)
    if case.model == "kmeans":
        unit = 2.0 ** Dataset.from_arrays(x).header.exponents[0]
        total = np.sum((xt - x.mean(0)) ** 2)
        left = -scores.max(1).sum() * unit**2, -peer.score(xt)
        return 100 * (1 - left[0] / total), 100 * (1 - left[1] / total), ratio
    mine = scores.argmax(1) if y.dtype.kind == "i" else scores[:, 0]
    return score(mine, yt), score(prediction, yt), ratio


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| model | set | mlchain | scikit-learn | difference | time, ratio |")
    print("|---|---|---|---|---|---|")
    for name, case in CASES.items():
        if arguments.only not in name:
            continue
        for data in case.sets:
            runs = np.array([measure(case, data, seed) for seed in range(arguments.seeds)])
            a, b, _ = runs.mean(0)
            ratio = np.median(runs[:, 2])
            print(
                f"| {name} | {data} | {a:.2f} | {b:.2f} | {a - b:+.2f} | {ratio:.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
