"""What splitting a training step gains and costs: processes against the step in one piece.

    PYTHONPATH=. python benchmarks/parallel.py [--repeats N] [--executor dask://127.0.0.1:8786]

Rivals take turns chunk by chunk, so a busy machine slows them alike; each ratio is the median of
the ratios of such pairs. Every rival ends in the state of the unsplit step, which is checked. One
thread a process. `alone` is what the parent does by itself, adding offers and updating the state:
no number of cores brings a step below it. Bytes are those of one shard and one step; beside them
is what a ring all-reduce of float32 gradients sends and receives, which is not exact.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from mlchain.ml_runtime import Dataset, ShardedBackend, State, Task, Trainer, make_plan, sharded
from mlchain.ml_runtime.program import check
from mlchain.ml_runtime.shard import Meeting
from mlchain.ml_runtime.split import Split, split
from mlchain.node import executor as executor_module
from mlchain.node.executor import open_executor
from mlchain.node.shard_wire import after_rows

ROWS, CLASSES, CHUNK = 4096, 10, 4
NETS = {
    "64-64-10, 32 rows": (64, (64,), 32),
    "784-256-128-10, 128 rows": (784, (256, 128), 128),
    "784-256-128-10, 1024 rows": (784, (256, 128), 1024),
}
SHARDS = (1, 2, 4)
SEED = b"\x01" * 32


def main() -> None:
    """Print the tables."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # it counts before numpy is loaded
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--executor", help="one more rival, as mlchain node takes it")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}, load", end=" ")
    print(*(f"{load:.1f}" for load in os.getloadavg()))
    for name, net in NETS.items():
        measure(name, *net, options.repeats, options.executor)


def measure(
    name: str, features: int, hidden: tuple[int, ...], batch: int, repeats: int, executor: str
) -> None:
    r = np.random.default_rng(0)
    x = r.normal(size=(ROWS, features))
    data = Dataset.from_arrays(x, (x @ r.normal(size=(features, CLASSES))).argmax(1), classes=10)
    plan = make_plan("mlp", features=features, classes=CLASSES, hidden=hidden, batch=batch)
    task = Task(plan.encode(), CHUNK, CHUNK, ROWS, 0)
    unsplit = Trainer(task, data, SEED)
    state = unsplit.initial_state()
    digest = unsplit.run_chunk(0, state).digest()
    print(f"\n{name}: {sum(t.size for t in state.tensors) // 3:,} parameters")
    print(f"{'':<27}{'ms':>9}{'to unsplit':>12}{'alone ms':>10}{'KB down':>9}{'KB up':>9}", end="")
    print(f"{'float ring':>12}{'exchanges':>11}")
    with ExitStack() as stack:
        rivals: dict[str, tuple[Trainer, int]] = {}
        for shards in SHARDS[1:]:
            rivals[f"{shards} shards, one process"] = (
                Trainer(task, data, SEED, ShardedBackend(shards)), shards
            )  # fmt: skip
        places = {f"{n} process{'es' * (n > 1)}": f"processes:{n}" for n in SHARDS}
        for rival, where in {**places, **({executor: executor} if executor else {})}.items():
            backend = stack.enter_context(open_executor(where))
            trainer = Trainer(task, data, SEED, backend)
            trainer.run_chunk(0, state)
            rivals[rival] = trainer, len(backend.members(batch))
        own: list[float] = []
        times: dict[str, list[float]] = {rival: [] for rival in rivals}
        alone: dict[str, list[float]] = {rival: [] for rival in rivals}
        for _ in range(repeats):
            own.append(timed(lambda: unsplit.run_chunk(0, state)) / CHUNK)
            for rival, (trainer, _) in rivals.items():
                found: list[State] = []
                ALONE.clear()
                spent = timed(lambda t=trainer, f=found: f.append(t.run_chunk(0, state)))
                times[rival].append(spent / CHUNK)
                alone[rival].append(sum(ALONE) / CHUNK)
                assert found[0].digest() == digest, f"{rival}: other bits"
        print(f"{'unsplit':<27}{statistics.median(own) * 1e3:>9.2f}{1:>12.2f}")
        for rival, (_, shards) in rivals.items():
            ratio = statistics.median(t / o for t, o in zip(times[rival], own, strict=True))
            print(f"{rival:<27}{statistics.median(times[rival]) * 1e3:>9.2f}{ratio:>12.2f}", end="")
            show_volume(split(check(plan.step), shards), statistics.median(alone[rival]))


ALONE: list[float] = []
"""Seconds of every call of what only the parent does."""


class TimedMeeting(Meeting):
    def reduce(self, *arguments):
        return self._clock(super().reduce, *arguments)

    def finish(self, *arguments):
        return self._clock(super().finish, *arguments)

    def _clock(self, act, *arguments):
        started = time.perf_counter()
        result = act(*arguments)
        ALONE.append(time.perf_counter() - started)
        return result


def timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def sizes_of(plan: Split) -> list[tuple[int, int]]:
    """Bytes down and up of every message of a step: rows and parameters, then the exchanges."""
    start, stop = plan.bounds(0)
    down = 8 * (stop - start) + sum(plan.checked.types[r].bytes for r in after_rows(plan))
    messages = []
    for exchange in plan.exchanges:
        messages.append((down, 8 * exchange.size))
        down = 8 * exchange.size_down
    return messages


def show_volume(plan: Split, alone: float) -> None:
    down, up = (sum(column) / 1024 for column in zip(*sizes_of(plan), strict=True))
    parameters = sum(plan.checked.types[r].elements for r in after_rows(plan))
    ring = 2 * 2 * 4 * parameters * (plan.shards - 1) / plan.shards / 1024
    print(f"{alone * 1e3:>10.2f}{down:>9,.0f}{up:>9,.0f}{ring:>12,.0f}{len(plan.exchanges):>11}")


if __name__ == "__main__":
    executor_module.Meeting = sharded.Meeting = TimedMeeting
    main()
