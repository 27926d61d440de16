"""What splitting a training step gains and costs: processes against the step in one piece.

    PYTHONPATH=. python benchmarks/parallel.py [--repeats N] [--executor dask://127.0.0.1:8786]

Rivals take turns chunk by chunk, so a busy machine slows them alike; each ratio is the median of
the ratios of such pairs. Every rival ends in the state of the unsplit step, which is checked. One
thread a process. `CPU` is the CPU time of the parent and of the busiest child together, which never
work at once: what a step would take with a core for each process and nothing else running. `alone`
is what the parent does of it, adding offers and updating the state: no number of cores brings a
step below that. Bytes are those of one shard and one step; beside them is what a ring all-reduce
of float32 gradients sends and receives, which is not exact.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from mlchain.ml_runtime import Dataset, ShardedBackend, State, Task, Trainer, make_plan, sharded
from mlchain.ml_runtime.program import check
from mlchain.ml_runtime.shard import Meeting
from mlchain.ml_runtime.split import Split, split
from mlchain.node import executor as executor_module
from mlchain.node.executor import open_executor
from mlchain.node.executor_processes import ProcessLink
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
    print(f"{'':<27}{'ms':>9}{'to unsplit':>12}{'CPU ms':>9}{'to unsplit':>12}", end="")
    print(f"{'alone ms':>10}{'KB down':>9}{'KB up':>7}{'float ring':>12}{'exchanges':>11}")
    with ExitStack() as stack:
        rivals = {"unsplit": Rival(unsplit, 1, [])}
        for shards in SHARDS[1:]:
            trainer = Trainer(task, data, SEED, ShardedBackend(shards))
            rivals[f"{shards} shards, one process"] = Rival(trainer, shards, [])
        places = {f"{n} process{'es' * (n > 1)}": f"processes:{n}" for n in SHARDS}
        for rival, where in {**places, **({executor: executor} if executor else {})}.items():
            backend = stack.enter_context(open_executor(where))
            trainer = Trainer(task, data, SEED, backend)
            trainer.run_chunk(0, state)
            links = backend.members(batch)
            pids = [link.process.pid for link in links if isinstance(link, ProcessLink)]
            rivals[rival] = Rival(trainer, len(links), pids)
        for _ in range(repeats):
            for name, rival in rivals.items():
                assert rival.run(state).digest() == digest, f"{name}: other bits"
        own = rivals["unsplit"]
        for name, rival in rivals.items():
            print(f"{name:<27}{ratios(rival.wall, own.wall)}{ratios(rival.cpu, own.cpu)}", end="")
            if rival is own:
                print()
            else:
                show_volume(split(check(plan.step), rival.shards), statistics.median(rival.alone))


class Rival:
    """A trainer, and what each of its chunks took, in seconds a step."""

    def __init__(self, trainer: Trainer, shards: int, children: list[int]) -> None:
        self.trainer, self.shards, self._children = trainer, shards, children
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.alone: list[float] = []

    def run(self, state: State) -> State:
        before = [cpu_seconds(pid) for pid in self._children]
        cpu, wall = time.process_time(), time.perf_counter()
        ALONE.clear()
        after = self.trainer.run_chunk(0, state)
        self.wall.append((time.perf_counter() - wall) / CHUNK)
        cpu = time.process_time() - cpu
        spent = (cpu_seconds(pid) - b for pid, b in zip(self._children, before, strict=True))
        self.cpu.append((cpu + max(spent, default=0)) / CHUNK)
        self.alone.append(sum(ALONE) / CHUNK)
        return after


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def ratios(times: list[float], own: list[float]) -> str:
    ratio = statistics.median(t / o for t, o in zip(times, own, strict=True))
    return f"{statistics.median(times) * 1e3:>9.2f}{ratio:>12.2f}"


ALONE: list[float] = []
"""CPU seconds of every call of what only the parent does."""


class TimedMeeting(Meeting):
    def reduce(self, *arguments):
        return self._clock(super().reduce, *arguments)

    def finish(self, *arguments):
        return self._clock(super().finish, *arguments)

    def _clock(self, act, *arguments):
        started = time.process_time()
        result = act(*arguments)
        ALONE.append(time.process_time() - started)
        return result


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
    print(f"{alone * 1e3:>10.2f}{down:>9,.0f}{up:>7,.0f}{ring:>12,.0f}{len(plan.exchanges):>11}")


if __name__ == "__main__":
    executor_module.Meeting = sharded.Meeting = TimedMeeting
    main()
