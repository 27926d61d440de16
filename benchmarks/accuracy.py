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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn import datasets

from mlchain.ml_runtime import Dataset, Task, Trainer, make_plan
from mlchain.ml_runtime.state import State
from mlchain.ml_runtime.train import Order

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
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "digits":
        return x / 16.0, y
    x = (x - x.mean(0)) / x.std(0)
    return x, ((y - y.mean()) / y.std() if y.dtype == float else y)


class Twin(torch.nn.Module):
    """The dense models of the package in torch, from the same first weights."""

    def __init__(self, tensors: list[np.ndarray], activation: str) -> None:
        super().__init__()
        self.parts = torch.nn.ParameterList(torch.tensor(np.array(t)) for t in tensors)
        self.activation: Callable[[torch.Tensor], torch.Tensor] = getattr(torch, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(0, len(self.parts), 2):
            x = x @ self.parts[i] + self.parts[i + 1]
            if i + 2 < len(self.parts):
                x = self.activation(x)
        return x


def score(scores: np.ndarray, y: np.ndarray, is_class: bool) -> float:
    """Return percent of right rows, or of the variance of y that is explained."""
    if is_class:
        return 100.0 * float(np.mean(scores.argmax(1) == y))
    return 100.0 * (1 - float(np.mean((scores[:, 0] - y) ** 2)) / float(np.var(y)))


def in_torch(
    work: Work, first: State, data: Dataset, x: np.ndarray, y: np.ndarray, task: Task, seed: bytes
) -> float:
    """Train the float32 twin on the rows the exact job trains on; return its score."""
    is_class = data.kind == "class"
    count = 2 * (len(work.options.get("hidden", ())) + 1)  # type: ignore[arg-type]
    twin = Twin(list(first.tensors[:count]), str(work.options.get("activation", "relu")))
    optimiser = torch.optim.Adam(twin.parameters(), lr=work.rate)
    scaled = np.ldexp(x, -np.array(data.header.exponents))
    inputs = torch.tensor(scaled, dtype=torch.float32)
    targets = torch.tensor(y if is_class else y[:, None].astype(np.float32))
    loss = torch.nn.functional.cross_entropy if is_class else torch.nn.functional.mse_loss
    order = Order(seed, task.train_rows, work.batch)
    for step in range(work.steps):
        rows = torch.tensor(order.batch(step))
        optimiser.zero_grad()
        loss(twin(inputs[rows]), targets[rows]).backward()
        optimiser.step()
    with torch.no_grad():
        scores = twin(inputs[-task.test_rows :]).numpy()
    return score(scores, y[-task.test_rows :], is_class)


def pairs(work: Work, data: Data, seeds: int) -> Iterator[tuple[float, float]]:
    """Yield the scores of both twins for every seed."""
    for number in range(seeds):
        order = np.random.default_rng(number).permutation(len(data[0]))
        x, y = data[0][order], data[1][order]
        classes = int(y.max()) + 1 if y.dtype != float else 0
        made = Dataset.from_arrays(x, y, classes=classes, shared_scale=True)
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
        first = trainer.initial_state()
        model = trainer.model(trainer.run_chunk(0, first))
        ours = score(model.scores(x[-test:]), y[-test:], bool(classes))
        yield ours, in_torch(work, first, made, x, y, task, seed)


def main() -> int:
    """Train every task and its twin, print a row for each; return the exit code."""
    parser = argparse.ArgumentParser(description="What rounding to grids costs in accuracy.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mnist", type=Path, help="folder of the four .gz files")
    parser.add_argument("--only", nargs="*", default=[], help="tasks that begin so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'task':24} {'exact':>14} {'torch float32':>14} {'difference':>11}   seed by seed")
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
        print(f"{name:24} {columns[0]:>14} {columns[1]:>14} {difference:+11.2f}   {each}{verdict}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
