"""What each backend makes of a training step, beside plain numpy float64 and torch float32.

    PYTHONPATH=. python benchmarks/backends.py [--repeats N]

Rivals take turns step by step; each ratio is the median of the ratios of such pairs. Backends that
are not installed are left out. The time to load a backend is printed, too: numba compiles once.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from training import (
    CLASSES,
    NETS,
    ROWS,
    PlainNumpy,
    exact_stepper,
    machine,
    make_trainer,
    plain_stepper,
    ratio,
    time_in_turns,
    torch_stepper,
)

from mlchain.errors import ConfigError
from mlchain.ml_runtime import Backend, Trainer
from mlchain.ml_runtime.backends import get_backend

NAMES = ("numpy", "numba", "torch", "torch:cuda")


def admitted() -> dict[str, Backend]:
    """Return the backends that are installed and pass, with the time that took printed."""
    found = {}
    for name in NAMES:
        start = time.perf_counter()
        try:
            found[name] = get_backend(name)
        except ConfigError as error:
            print(f"{name}: {error.message}")
        else:
            print(f"{name}: loaded and tested in {time.perf_counter() - start:.1f} s")
    return found


def main() -> None:
    """Measure every net and print one row for each backend."""
    parser = argparse.ArgumentParser(description="What each backend makes of a step.")
    parser.add_argument("--repeats", type=int, default=100, help="steps of each rival")
    repeats = parser.parse_args().repeats
    print(machine())
    backends = admitted()
    heads = ("/ numpy", "/ float64", "/ torch32")
    print(f"{'net':18} {'backend':10} {'ms':>8} {heads[0]:>9} {heads[1]:>10} {heads[2]:>10}")
    r = np.random.default_rng(0)
    for net, (sizes, batch) in NETS.items():
        x, y = r.random((ROWS, sizes[0])), r.integers(0, CLASSES, ROWS)
        steps = {"float64": plain_stepper(PlainNumpy(sizes, batch, np.float64), x, y, batch)}
        for name, backend in backends.items():
            plain = make_trainer(sizes, batch, x, y)
            trainer = Trainer(plain.task, plain.dataset, plain.seed, backend)
            trainer._loop.load(trainer.initial_state().tensors)
            steps[name] = exact_stepper(trainer)
        in_torch = torch_stepper(sizes, batch, x, y)
        if in_torch is not None:
            steps["torch32"] = in_torch
        times = time_in_turns(steps, repeats)
        for name in backends:
            ratios = [ratio(times, name, rival) for rival in ("numpy", "float64", "torch32")]
            print(
                f"{net:18} {name:10} {statistics.median(times[name]):8.3f}"
                f" {ratios[0]:>9} {ratios[1]:>10} {ratios[2]:>10}"
            )


if __name__ == "__main__":
    main()
