"""How much memory training takes, beside the same training in numpy float64.

    PYTHONPATH=. python benchmarks/memory.py [--rows N]

Every run is a process of its own, so that one's peak is not another's. `tracemalloc` sees what
Python and numpy allocate, the data set included (int16 here, binary64 there); `ru_maxrss` is what
the operating system saw, less what the process had before training, imports included. The exit
code is 1 if a net takes over MOST times the memory of its float64 twin by either.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tracemalloc

import numpy as np
from training import CLASSES, NETS, RATE, PlainNumpy, machine

from mlchain.ml_runtime import Dataset, Task, Trainer, check_plan, make_plan
from mlchain.ml_runtime.data import DatasetHeader

MOST = 3.0
STEPS = 8


def rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def exact(sizes: tuple[int, ...], batch: int, rows: int) -> int:
    """Train exactly for two chunks; return the bytes that the plan declares."""
    plan = make_plan(
        "mlp", features=sizes[0], classes=CLASSES, hidden=sizes[1:-1], batch=batch, rate=RATE
    )
    r = np.random.default_rng(0)
    x = r.integers(-32767, 32767, (rows, sizes[0]), np.int16)
    header = DatasetHeader("class", rows, CLASSES, (0,) * sizes[0])
    dataset = Dataset(header, x, r.integers(0, CLASSES, rows))
    trainer = Trainer(Task(plan.encode(), STEPS, STEPS // 2, rows, 0), dataset, bytes(32))
    state = trainer.initial_state()
    for chunk in range(2):
        state = trainer.run_chunk(chunk, state)
        state.digest()
    cost = check_plan(plan)
    return cost.arena_bytes + cost.state_bytes


def plain(sizes: tuple[int, ...], batch: int, rows: int) -> int:
    """Train in numpy float64 for as many steps."""
    r = np.random.default_rng(0)
    x, y = r.random((rows, sizes[0])), r.integers(0, CLASSES, rows)
    net = PlainNumpy(sizes, batch, np.float64)
    for step in range(STEPS):
        chosen = np.arange(step * batch, (step + 1) * batch) % rows
        net.step(x[chosen], y[chosen])
    return 0


def child(name: str, which: str, rows: int, traced: bool) -> None:
    """Run one training and print what it took, as JSON."""
    sizes, batch = NETS[name]
    run = {"exact": exact, "float64": plain}[which]
    run((3, 2, CLASSES), 2, 8)  # whatever is loaded at first use
    before = rss()
    if traced:
        tracemalloc.start()
    declared = run(sizes, batch, rows)
    peak = tracemalloc.get_traced_memory()[1] if traced else rss() - before
    print(json.dumps([peak, declared]))


def measure(name: str, which: str, rows: int, traced: bool) -> tuple[int, int]:
    """Return the peak and the declared bytes of one run in a fresh process."""
    command = [sys.executable, __file__, "--child", name, which, str(rows), str(int(traced))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, declared = json.loads(done.stdout)
    return peak, declared


def main() -> int:
    """Measure every net and print one row each; return the exit code."""
    parser = argparse.ArgumentParser(description="How much memory training takes.")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the data set (20000)")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, which, rows, traced = options.child
        child(name, which, int(rows), bool(int(traced)))
        return 0
    print(machine())
    print(
        f"MiB for {options.rows} rows    traced: exact float64  ratio   resident: ratio   declared"
    )
    worst = 0.0
    for name in NETS:
        found = {}
        for traced in (True, False):
            for which in ("exact", "float64"):
                peak, declared = measure(name, which, options.rows, traced)
                found[which, traced] = peak / 2**20
                if which == "exact":
                    said = declared / 2**20
        ratios = [found["exact", t] / max(found["float64", t], 0.1) for t in (True, False)]
        worst = max(worst, *ratios)
        print(f"{name:28} {found['exact', True]:8.1f} {found['float64', True]:8.1f}", end="")
        print(f" {ratios[0]:6.2f} {ratios[1]:16.2f} {said:10.1f}")
    print(f"{worst:.2f} times float64 at most; let pass: {MOST}")
    return int(worst > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
