"""Whether gas is time: every op over many shapes, and a search for the worst program.

    PYTHONPATH=. python benchmarks/gas.py [--seconds N] [--search N] [--seed N] [--only OP …]

The schedule of docs/numerics.md charges about a nanosecond of one thread of the reference machine
for each unit of gas. Here every op of the table is timed on random shapes; the ratio of time to gas
is divided by that of ordinary programs (the median of whole training steps), which takes this
machine's speed out. Then a hill climb looks for the node that takes the longest for its gas, over
shapes, attributes and numbers (subnormal ones, not-a-number, …): what somebody would submit who
wants to waste validators' time. The exit code is 1 if it takes over 3 times what it pays for.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import random
import statistics
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from cases import Case, draw, neighbour, numbers
from training import NETS, exact_stepper, make_trainer

from mlchain.errors import Trap
from mlchain.ml_runtime import NumpyBackend, check_plan
from mlchain.ml_runtime.op import OPS
from mlchain.ml_runtime.program import check
from mlchain.ml_runtime.tensor import allocate

MOST = 3.0
"""Largest ratio of time to gas, over that of ordinary programs, that is let pass."""
SHOWN = 8
clock = time.thread_time


def fastest(call: Callable[[], object], budget: float) -> float:
    """Return the least CPU seconds of one call, over as many as fit the budget, at least three."""
    best, spent, runs = float("inf"), 0.0, 0
    while runs < 3 or (spent < budget and runs < 200):
        start = clock()
        call()
        took = clock() - start
        best, spent, runs = min(best, took), spent + took, runs + 1
    return best


def timed(case: Case, budget: float = 0.02, copies: int = 1) -> tuple[float, float]:
    """Return ns for each gas of a case: when memory is warm, and in its first run.

    Small nodes are repeated within the program, as they would be in a hostile one: what a node
    costs in Python counts, what a program costs once does not.
    """
    copies = max(copies, min(64, 10**6 // case.gas))
    program = case.program(copies)
    checked = check(program)
    inputs = [numbers(kind, case.values, i) for i, kind in enumerate(case.ins)]
    outputs = [allocate(checked.types[r]) for r in program.outputs]
    run = NumpyBackend().bind(program, inputs, outputs)

    def call() -> None:
        with suppress(Trap):
            run()

    start = clock()
    call()
    first = clock() - start
    warm = fastest(call, budget)
    return warm * 1e9 / checked.gas, first * 1e9 / checked.gas


def ordinary() -> float:
    """Return ns for each gas of ordinary programs: the median of training steps of many sizes."""
    r = np.random.default_rng(0)
    found = []
    for sizes, batch in NETS.values():
        x, y = r.random((2000, sizes[0])), r.integers(0, sizes[-1], 2000)
        trainer = make_trainer(sizes, batch, x, y)
        trainer._loop.load(trainer.initial_state().tensors)
        took = fastest(exact_stepper(trainer), 1.0)
        found.append(took * 1e9 / check_plan(trainer.plan).gas_per_step)
    return statistics.median(found)


def survey(r: random.Random, name: str, seconds: float, unit: float) -> list[tuple[float, Case]]:
    """Time an op on random shapes for so long; return the ratios."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        case = draw(r, name, int(2 ** r.uniform(0, 18)))
        if case is None:
            break
        found.append((timed(case)[0] / unit, case))
    return found


def refit(found: list[tuple[float, Case]], unit: float) -> str:
    """Return a + b n that fits the times best, by relative error; n as in the schedule."""
    n = np.array([max(t.elements for t in (*c.ins, *c.outs)) for _, c in found], float)
    took = np.array([ratio * c.gas for ratio, c in found])
    columns = np.stack([np.ones_like(n), n], 1) / took[:, None]
    (a, b), *_ = np.linalg.lstsq(columns, np.ones_like(n), rcond=None)
    return f"{a:9.0f} + {b:6.2f} n"


def climb(
    r: random.Random, start: list[tuple[float, Case]], seconds: float, unit: float
) -> list[tuple[float, Case]]:
    """Return the worst cases found from the starts on, worst first, each timed again."""
    pool = sorted(start, key=lambda f: -f[0])[:SHOWN]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        _, case = r.choice(pool)
        other = neighbour(r, case)
        if other is None or any(other == c for _, c in pool):
            continue
        pool.append((timed(other, 0.005)[0] / unit, other))
        pool = sorted(pool, key=lambda f: -f[0])[:SHOWN]
    again = [(min(timed(c, 0.02)[0] for _ in range(4)) / unit, c) for _, c in pool[:3]]
    return sorted(again, key=lambda f: -f[0])


def main() -> int:
    """Measure, print, search; return the exit code."""
    parser = argparse.ArgumentParser(description="Whether gas is time.")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each op (2)")
    parser.add_argument("--search", type=float, default=60.0, help="for the worst program (60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="these ops alone")
    options = parser.parse_args()
    r, unit = random.Random(options.seed), ordinary()
    print(f"ordinary programs: {unit:.2f} ns a gas here; the ratios below are over that")
    print(
        f"{'op':18} {'cases':>5} {'p5':>6} {'median':>6} {'p95':>6} {'most':>6}"
        f"   {'time, refitted':20}   worst"
    )
    worst: list[tuple[float, Case]] = []
    for name in options.only or sorted(OPS):
        found = survey(r, name, options.seconds, unit)
        if not found:
            print(f"{name:18}  no case found")
            continue
        ratios = [ratio for ratio, _ in found]
        p5, p50, p95 = np.percentile(ratios, [5, 50, 95])
        print(
            f"{name:18} {len(found):5} {p5:6.2f} {p50:6.2f} {p95:6.2f} {max(ratios):6.2f}", end=""
        )
        print(f"   {refit(found, unit)}   {max(found, key=lambda f: f[0])[1]}")
        worst += sorted(found, key=lambda f: -f[0])[:3]
    share = options.search / max(1, len(options.only or OPS))
    by_op = {name: [f for f in worst if f[1].op == name] for name in {c.op for _, c in worst}}
    climbed = [climb(r, starts, share, unit)[0] for starts in by_op.values()]
    climbed.sort(key=lambda f: -f[0])
    print("\nworst case of each op (time / gas, over ordinary; in a first run, with fresh memory):")
    for ratio, case in climbed:
        print(f"{ratio:6.2f} {timed(case)[1] / unit:6.2f}  {case.gas:>11} gas  {case}")
    most = climbed[0][0]
    print(f"\n{most:.2f} times what it pays for; let pass: {MOST}")
    return int(most > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
