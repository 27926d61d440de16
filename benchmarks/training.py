"""What exactness costs: a training step against the same step in plain numpy and in torch.

    PYTHONPATH=. python benchmarks/training.py [--repeats N] [--cpu] [--backend NAME]

`--cpu` counts CPU time instead of the wall clock, for a busy machine; it means most where every
library has one thread. Rivals take turns step by step, so a busy machine slows them alike; each
ratio is the median of the ratios of such pairs. The plain steps are written as an experienced user
would: in place, without temporaries where that is easy.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from mlchain.ml_runtime import Dataset, Task, Trainer, check_plan, make_plan
from mlchain.ml_runtime.backends import get_backend

ROWS, CLASSES, RATE = 2000, 10, 0.001
CHUNK = 4
NETS = {
    "digits, toy": ((64, 64, CLASSES), 32),
    "images, 128 rows": ((784, 256, 128, CLASSES), 128),
    "wide, 256 rows": ((784, 512, 256, CLASSES), 256),
}
SEED = b"\x01" * 32

Step = Callable[[], object]


class PlainNumpy:
    """Adam on a perceptron in numpy, any float type."""

    def __init__(self, sizes: tuple[int, ...], batch: int, kind: type) -> None:
        r = np.random.default_rng(0)
        self.weights = [
            (r.uniform(-1, 1, (i, o)) * np.sqrt(6 / (i + o))).astype(kind)
            for i, o in pairwise(sizes)
        ]
        self.biases = [np.zeros(o, kind) for o in sizes[1:]]
        self.parameters = [*self.weights, *self.biases]
        self.m, self.v, self.spare = ([np.zeros_like(p) for p in self.parameters] for _ in range(3))
        self.rows, self.t = np.arange(batch), 0

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        layers, last = [x], len(self.weights) - 1
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = layers[-1] @ w
            z += b
            if i < last:
                np.maximum(z, 0, out=z)
                layers.append(z)
        z -= z.max(1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(1, keepdims=True)
        loss = -float(np.log(z[self.rows, y]).mean())
        z[self.rows, y] -= 1
        z /= len(y)
        of_weights, of_biases = [], []
        for i in range(last, -1, -1):
            of_weights.append(layers[i].T @ z)
            of_biases.append(z.sum(0))
            if i:
                z = z @ self.weights[i].T
                z *= layers[i] > 0
        self._adam([*of_weights[::-1], *of_biases[::-1]])
        return loss

    def _adam(self, gradients: list[np.ndarray]) -> None:
        self.t += 1
        rate, unbias = RATE / (1 - 0.9**self.t), 1 / (1 - 0.999**self.t)
        for p, m, v, g, s in zip(
            self.parameters, self.m, self.v, gradients, self.spare, strict=True
        ):
            m *= 0.9
            np.multiply(g, 0.1, out=s)
            m += s
            v *= 0.999
            np.multiply(g, g, out=s)
            s *= 0.001
            v += s
            np.multiply(v, unbias, out=s)
            np.sqrt(s, out=s)
            s += 1e-8
            np.divide(m, s, out=s)
            s *= rate
            p -= s


def make_trainer(
    sizes: tuple[int, ...], batch: int, x: np.ndarray, y: np.ndarray, backend: str = "numpy"
) -> Trainer:
    """Return a trainer of one endless chunk."""
    plan = make_plan(
        "mlp", features=sizes[0], classes=CLASSES, hidden=sizes[1:-1], batch=batch, rate=RATE
    )
    task = Task(plan.encode(), 1 << 30, 1 << 30, ROWS, 0)
    data = Dataset.from_arrays(x, y, classes=CLASSES)
    return Trainer(task, data, SEED, get_backend(backend))


def exact_stepper(trainer: Trainer) -> Step:
    """Return one step of a trainer as a call: rows gathered, program run, loss looked at."""
    counter = iter(range(1 << 30))

    def step() -> None:
        trainer._rows[...] = trainer._order.batch(next(counter))
        assert np.isfinite(trainer._loop.step())

    return step


def plain_stepper(net: PlainNumpy, x: np.ndarray, y: np.ndarray, batch: int) -> Step:
    order = np.random.default_rng(1)

    def step() -> None:
        rows = order.integers(0, ROWS, batch)
        net.step(x[rows], y[rows])

    return step


def torch_stepper(sizes: tuple[int, ...], batch: int, x: np.ndarray, y: np.ndarray) -> Step | None:
    """Return the step in torch float32, None where torch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    layers: list[torch.nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [torch.nn.Linear(i, o), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y)

    def step() -> None:
        rows = torch.randint(0, ROWS, (batch,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs[rows]), targets[rows]).backward()
        optimiser.step()

    return step


clock = time.perf_counter


def time_in_turns(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Return milliseconds of every repeat, all rivals within each repeat."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 3):
        for name, step in steps.items():
            start = clock()
            step()
            if repeat >= 3:  # the first few warm caches up
                times[name].append((clock() - start) * 1e3)
    return times


def ratio(times: dict[str, list[float]], over: str, under: str) -> str:
    if under not in times:
        return "-"
    pairs = zip(times[over], times[under], strict=True)
    return f"{statistics.median(a / b for a, b in pairs):.2f}x"


def machine() -> str:
    """Return the processor's name and how many cores there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    return f"{name}, {os.cpu_count()} cores, BLAS threads: {threads}, numpy {np.__version__}"


def main() -> None:
    """Measure every net and print one row each."""
    parser = argparse.ArgumentParser(description="What exactness costs.")
    parser.add_argument("--repeats", type=int, default=200, help="steps of each rival")
    parser.add_argument("--cpu", action="store_true", help="CPU time in place of wall clock")
    parser.add_argument("--backend", default="numpy", help="numeric backend (numpy)")
    options = parser.parse_args()
    repeats = options.repeats
    if options.cpu:
        global clock
        clock = time.process_time
    print(machine())
    print(
        f"{'net':18} {'exact ms':>9} {'/ float64':>10} {'/ float32':>10} {'/ torch32':>10}", end=""
    )
    print(f" {'commit ms':>10} {f'of {CHUNK} steps':>11} {'ns / gas':>9}")
    r = np.random.default_rng(0)
    for name, (sizes, batch) in NETS.items():
        x, y = r.random((ROWS, sizes[0])), r.integers(0, CLASSES, ROWS)
        trainer = make_trainer(sizes, batch, x, y, options.backend)
        state = trainer.initial_state()
        trainer._loop.load(state.tensors)
        steps: dict[str, Step] = {
            "exact": exact_stepper(trainer),
            "float64": plain_stepper(PlainNumpy(sizes, batch, np.float64), x, y, batch),
            "float32": plain_stepper(
                PlainNumpy(sizes, batch, np.float32), x.astype(np.float32), y, batch
            ),
            "commit": state.digest,
        }
        in_torch = torch_stepper(sizes, batch, x, y)
        if in_torch is not None:
            steps["torch32"] = in_torch
        times = time_in_turns(steps, repeats)
        exact, commit = (statistics.median(times[k]) for k in ("exact", "commit"))
        rivals = [ratio(times, "exact", k) for k in ("float64", "float32", "torch32")]
        print(f"{name:18} {exact:9.3f} {rivals[0]:>10} {rivals[1]:>10} {rivals[2]:>10}", end="")
        gas = check_plan(trainer.plan).gas_per_step
        print(f" {commit:10.3f} {commit / (CHUNK * exact):11.1%} {exact * 1e6 / gas:9.2f}")


if __name__ == "__main__":
    main()
