"""Trains one net in this process and prints a digest after every step, as JSON.

    python determinism_worker.py <steps> <shards>,<shards>,…

`exact`: by number of shards, the chain of state digests of the exact runtime. `float32`: the same
net in plain numpy float32, the control. `kernel`: what BLAS runs on, where that can be found out.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from itertools import pairwise

import numpy as np

from mlchain.ml_runtime import Dataset, NumpyBackend, ShardedBackend, Task, make_plan, run

ROWS, FEATURES, CLASSES, BATCH = 300, 257, 10, 40
SIZES = [FEATURES, 96, 48, CLASSES]
SEED = b"\x05" * 32


def make_data() -> tuple[np.ndarray, np.ndarray]:
    r = np.random.Generator(np.random.Philox(1))
    x = r.integers(-1000, 1000, (ROWS, FEATURES)) / 1024
    return x, np.arange(ROWS) * 7 % CLASSES


def exact(steps: int, shards: int) -> list[str]:
    x, y = make_data()
    plan = make_plan(
        "mlp", features=FEATURES, classes=CLASSES, hidden=tuple(SIZES[1:-1]), batch=BATCH
    )
    task = Task(plan.encode(), steps, 1, ROWS, 0)
    chain: list[str] = []
    backend = NumpyBackend() if shards == 1 else ShardedBackend(shards)
    data = Dataset.from_arrays(x, y, classes=CLASSES)
    run(task, data, SEED, lambda _, state: chain.append(state.digest().hex()), backend)
    return chain


def float32(steps: int) -> list[str]:
    """Momentum on an MLP, written as everybody would."""
    x, y = (a.astype(t) for a, t in zip(make_data(), (np.float32, np.int64), strict=True))
    r = np.random.Generator(np.random.Philox(2))
    weights = [
        (r.integers(-1000, 1000, (i, o)) / np.float32(8000)).astype(np.float32)
        for i, o in pairwise(SIZES)
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
            velocity[i] = np.float32(0.9) * velocity[i] + slope
            weights[i] -= np.float32(0.05) * velocity[i]
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
    steps, splits = int(sys.argv[1]), [int(s) for s in sys.argv[2].split(",")]
    report = {
        "exact": {str(shards): exact(steps, shards) for shards in splits},
        "float32": float32(steps),
        "kernel": kernel(),
    }
    print(json.dumps(report))
