"""Trains nets in this process and prints a digest after every step, as JSON.

    python determinism_worker.py <steps> <shards or backend>,…

`exact`: for every net, by number of shards or name of a backend that is installed, the chain of
state digests of the exact runtime. `float32`, `float64`: a net in plain numpy, the controls.
`kernel`: what BLAS runs on, where that can be found out.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np

from mlchain.errors import ConfigError
from mlchain.ml_runtime import Dataset, NumpyBackend, ShardedBackend, Task, make_plan, run
from mlchain.ml_runtime.backends import make_backend

ROWS, FEATURES, CLASSES, BATCH = 300, 257, 10, 40
SIZES = [FEATURES, 96, 48, CLASSES]
SEED = b"\x05" * 32


def make_data() -> tuple[np.ndarray, np.ndarray]:
    r = np.random.Generator(np.random.Philox(1))
    x = r.integers(-1000, 1000, (ROWS, FEATURES)) / 1024
    return x, np.arange(ROWS) * 7 % CLASSES


NETS: dict[str, tuple[str, dict[str, Any]]] = {  # all by Adam
    "mlp": ("mlp", {"hidden": tuple(SIZES[1:-1])}),
    "cnn": ("cnn", {"channels": (4, 6), "hidden": (16,)}),
    "transformer": ("transformer", {"vocabulary": 50, "width": 16, "heads": 2, "layers": 1}),
}
SMALL_STEPS = 4
"""Steps of the nets that take longer."""


def make_task(net: str, steps: int) -> tuple[Task, Dataset]:
    model, options = NETS[net]
    x, y = make_data()
    if net == "transformer":
        x = np.arange(ROWS * 12).reshape(ROWS, 12) * 31 % 50
    elif net == "cnn":
        x = x[:, :144]
    data = Dataset.from_arrays(x, y, classes=CLASSES, tokens=net == "transformer")
    plan = make_plan(model, features=x.shape[1], classes=CLASSES, batch=BATCH, **options)
    return Task(plan.encode(), steps, 1, ROWS, 0), data


def make(name: str) -> Any:
    if name.isdigit():
        return ShardedBackend(int(name)) if name != "1" else NumpyBackend()
    return make_backend(name)


def exact(net: str, steps: int, names: list[str]) -> dict[str, list[str]]:
    """The chain of digests of every backend named that is installed."""
    backends = {}
    for name in names:
        try:
            backends[name] = make(name)
        except ConfigError:
            continue
    task, data = make_task(net, steps)
    chains: dict[str, list[str]] = {}
    for name, backend in backends.items():
        chain = chains[name] = []
        run(task, data, SEED, lambda _, s, c=chain: c.append(s.digest().hex()), backend)
    return chains


def plain(steps: int, kind: type[np.floating[Any]]) -> list[str]:
    """Momentum on an MLP, written as everybody would."""
    x, y = (a.astype(t) for a, t in zip(make_data(), (kind, np.int64), strict=True))
    r = np.random.Generator(np.random.Philox(2))
    weights = [
        (r.integers(-1000, 1000, (i, o)) / kind(8000)).astype(kind) for i, o in pairwise(SIZES)
    ]
    velocity = [np.zeros_like(w) for w in weights]
    chain = []
    for step in range(steps):
        rows = (np.arange(BATCH) + step * BATCH) % ROWS
        layers = [x[rows]]
        for w in weights[:-1]:
            layers.append(np.maximum(layers[-1] @ w, 0))
        scores = layers[-1] @ weights[-1]
        p = np.exp(scores - scores.max(1, keepdims=True))
        g = p / p.sum(1, keepdims=True)
        g[np.arange(BATCH), y[rows]] -= 1
        for i in reversed(range(len(weights))):
            slope = layers[i].T @ g / BATCH
            g = (g @ weights[i].T) * (layers[i] > 0)
            velocity[i] = kind(0.9) * velocity[i] + slope
            weights[i] -= kind(0.05) * velocity[i]
        chain.append(sha256(b"".join(w.tobytes() for w in weights)).hexdigest())
    return chain


def kernel() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return ""
    found = [i for i in threadpool_info() if i["user_api"] == "blas"]
    return f"{found[0].get('architecture')} x{found[0]['num_threads']}" if found else ""


if __name__ == "__main__":
    steps, names = int(sys.argv[1]), sys.argv[2].split(",")
    report = {
        "exact": {
            net: exact(net, steps if net == "mlp" else min(steps, SMALL_STEPS), names)
            for net in NETS
        },
        "float32": plain(steps, np.float32),
        "float64": plain(steps, np.float64),
        "kernel": kernel(),
    }
    print(json.dumps(report))
