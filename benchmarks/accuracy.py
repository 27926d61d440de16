"""What rounding to grids costs in accuracy: every task beside its float32 twin in torch.

    PYTHONPATH=. python benchmarks/accuracy.py [--seeds N] [--mnist DIR] [--only TASK …]

Twins begin with the same weights and see the same rows in the same order; torch reads the unrounded
features, scaled by the same powers of two. Each seed splits the data anew, so that test sets of a
few dozen rows do not decide alone. DIR holds the four .gz files of MNIST. Needs torch and
scikit-learn. Points are percent of right rows, or of variance explained for values. The exit code
is 1 if a task's mean lies more than LARGEST points below its twin's.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn import datasets
from twins import Twin, torch_stepper

from mlchain.ml_runtime import Dataset, Task, Trainer, make_plan

LARGEST = 0.3
Data = tuple[np.ndarray, np.ndarray]


class Work(NamedTuple):
    """A task: data, model, how long; `test` is the share of rows kept for the score."""

    data: str
    model: str
    steps: int
    batch: int
    rate: float
    options: dict[str, object]
    test: float = 0.5


TASKS = {
    "digits, softmax": Work("digits", "softmax", 800, 32, 0.01, {}),
    "digits, mlp": Work("digits", "mlp", 800, 32, 0.005, {"hidden": (64,)}),
    "breast cancer, softmax": Work("breast_cancer", "softmax", 500, 32, 0.01, {}),
    "breast cancer, mlp": Work("breast_cancer", "mlp", 300, 32, 0.005, {"hidden": (32,)}),
    "wine, softmax": Work("wine", "softmax", 300, 32, 0.02, {}),
    "wine, mlp tanh": Work("wine", "mlp", 200, 32, 0.01, {"hidden": (16,), "activation": "tanh"}),
    "diabetes, linear": Work("diabetes", "linear", 1000, 32, 0.01, {}),
    "diabetes, mlp": Work("diabetes", "mlp", 200, 32, 0.003, {"hidden": (16,)}),
    "digits, cnn": Work("digits", "cnn", 400, 32, 0.005, {"channels": (8, 16)}),
    "digits, vit": Work("digits", "vit", 400, 32, 0.001, {"patch": 2, "width": 32}),
    "digits read as tokens, transformer": Work(
        "tokens", "transformer", 300, 32, 0.003, {"vocabulary": 17, "width": 32, "pool": "mean"}
    ),
    "MNIST, cnn": Work("mnist", "cnn", 500, 64, 0.002, {"channels": (8, 16)}, 1 / 7),
    "MNIST, mlp": Work("mnist", "mlp", 1875, 64, 0.001, {"hidden": (128,)}, 1 / 7),
}


def load(name: str, mnist: Path | None) -> Data | None:
    """Return x and y of a data set, None for MNIST without a folder; columns of tables scaled."""
    if name == "mnist":
        if mnist is None:
            return None
        parts = []
        for kind, head in (("images-idx3", 16), ("labels-idx1", 8)):
            files = (mnist / f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k"))
            bodies = b"".join(gzip.decompress(f.read_bytes())[head:] for f in files)
            parts.append(np.frombuffer(bodies, np.uint8))
        return parts[0].reshape(-1, 784) / 255.0, parts[1].astype(np.int64)
    loader = "digits" if name == "tokens" else name
    x, y = getattr(datasets, f"load_{loader}")(return_X_y=True)
    if loader == "digits":
        return (x if name == "tokens" else x / 16.0), y
    x = (x - x.mean(0)) / x.std(0)
    return x, ((y - y.mean()) / y.std() if y.dtype == float else y)


def score(scores: np.ndarray, y: np.ndarray, is_class: bool) -> float:
    """Return percent of right rows, or of the variance of y that is explained."""
    if is_class:
        return 100.0 * float(np.mean(scores.argmax(1) == y))
    return 100.0 * (1 - float(np.mean((scores[:, 0] - y) ** 2)) / float(np.var(y)))


def in_torch(work: Work, trainer: Trainer, x: np.ndarray, y: np.ndarray) -> float:
    """Train the float32 twin on the rows the exact job trains on; return its score."""
    is_class = trainer.dataset.kind == "class"
    twin = Twin(trainer.plan, trainer.initial_state(), work.options)
    scaled = np.ldexp(x, -np.array(trainer.dataset.header.exponents))
    targets = y if is_class else y[:, None].astype(np.float32)
    steps = iter(range(work.steps))
    order = trainer._order
    step = torch_stepper(twin, scaled, targets, work.rate, lambda: order.batch(next(steps)))
    for _ in range(work.steps):
        step()
    test = trainer.task.test_rows
    with torch.no_grad():
        scores = twin(torch.tensor(scaled[-test:], dtype=torch.float32)).numpy()
    return score(scores, y[-test:], is_class)


def pairs(work: Work, data: Data, seeds: int) -> Iterator[tuple[float, float]]:
    """Yield the scores of both twins for every seed."""
    for number in range(seeds):
        order = np.random.default_rng(number).permutation(len(data[0]))
        x, y = data[0][order], data[1][order]
        classes = int(y.max()) + 1 if y.dtype != float else 0
        made = Dataset.from_arrays(x, y, classes=classes, tokens=work.model == "transformer")
        sizes = {"classes": classes} if classes else {"outputs": 1}
        plan = make_plan(
            work.model,
            features=x.shape[1],
            batch=work.batch,
            rate=work.rate,
            **sizes,
            **work.options,
        )
        test = int(len(x) * work.test)
        task = Task(plan.encode(), work.steps, work.steps, len(x) - test, test)
        seed = hashlib.sha256(bytes([number])).digest()
        trainer = Trainer(task, made, seed)
        model = trainer.model(trainer.run_chunk(0, trainer.initial_state()))
        ours = score(model.scores(x[-test:]), y[-test:], bool(classes))
        yield ours, in_torch(work, trainer, x, y)


def main() -> int:
    """Train every task and its twin, print a row for each; return the exit code."""
    parser = argparse.ArgumentParser(description="What rounding to grids costs in accuracy.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mnist", type=Path, help="folder of the four .gz files")
    parser.add_argument("--only", nargs="*", default=[], help="tasks that begin so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'task':34} {'exact':>14} {'torch float32':>14} {'difference':>11}   seed by seed")
    failed = False
    for name, work in TASKS.items():
        data = load(work.data, options.mnist)
        if data is None or (options.only and not name.startswith(tuple(options.only))):
            continue
        found = list(pairs(work, data, options.seeds))
        ours, theirs = ([pair[i] for pair in found] for i in (0, 1))
        difference = statistics.mean(ours) - statistics.mean(theirs)
        failed |= difference < -LARGEST
        columns = [f"{statistics.mean(s):.2f} ± {statistics.pstdev(s):.2f}" for s in (ours, theirs)]
        each = " ".join(f"{a - b:+.2f}" for a, b in found)
        verdict = "" if difference >= -LARGEST else f"   more than {LARGEST} below"
        print(f"{name:34} {columns[0]:>14} {columns[1]:>14} {difference:+11.2f}   {each}{verdict}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
