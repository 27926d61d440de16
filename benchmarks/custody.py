"""Lazy validators: how soon they are found, what that costs, and why being honest pays.

    python benchmarks/custody.py            # all tables, about a minute
    python benchmarks/custody.py --duties   # only how soon

A *duty* is one chunk of a slice. Digests are of real re-execution; who looks at them is drawn as
the nodes draw it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from attacks.custody_lab import attest, is_wrong, looked_at

from mlchain import codec
from mlchain.consensus.work.custody import open_result
from mlchain.consensus.work.sampling import miss_probability
from mlchain.crypto import digest
from mlchain.ml_runtime import Dataset, Task, Trainer, get_backend, make_plan

LAZY = 0
DISCOVERIES = 400


def made_up(validator: int, height: int, chunks: tuple[int, ...]) -> tuple[bytes, ...]:
    """Return digests out of thin air."""
    return tuple(digest("lazy", height.to_bytes(4, "big"), bytes([c & 255])) for c in chunks)


def duties_until_found(permille: int, discoveries: int) -> list[int]:
    """Return how many duties a lazy validator let pass until each of its discoveries."""
    found: list[int] = []
    duties, job = 0, 0
    while len(found) < discoveries:
        attested = attest(LAZY, job % 3900, made_up)
        job += 1
        looked = frozenset(looked_at(attested, permille))
        for chunk in attested.chunks:
            duties += 1
            if chunk in looked:
                assert is_wrong(attested, chunk), "a digest out of thin air passed"
                found.append(duties)
                duties = 0
    return found[:discoveries]


def show_duties() -> None:
    """Print how soon a lazy validator is found, measured and by formula (n = 4)."""
    print("rate a   duties until found: mean  median  95 %   formula 1 / (1 - (1 - a/3)^3)")
    for permille in (20, 50, 100):
        found = sorted(duties_until_found(permille, DISCOVERIES))
        formula = 1 / (1 - (1 - permille / 3000) ** 3)
        mean, at_95 = statistics.mean(found), found[len(found) * 95 // 100]
        middle = found[len(found) // 2]
        print(f"{permille / 10:4.1f} %  {mean:25.1f}  {middle:6}  {at_95:4}   {formula:.1f}")


def show_cost() -> None:
    """Print what a digest costs beside a plain replay, paired, CPU time."""
    print("\nprogram                  backend  ms a step  with digest / plain (median of 15 pairs)")
    rng = np.random.default_rng(1)
    for name, model, features, batch, steps in (
        ("softmax 64, batch 32", "softmax", 64, 32, 64),
        ("mlp 784-128, batch 128", "mlp", 784, 128, 16),
        ("mlp 784-128, batch 128", "mlp", 784, 128, 64),
    ):
        for backend in ("numpy", "numba"):
            x, y = rng.normal(size=(2000, features)), rng.integers(0, 10, 2000)
            data = Dataset.from_arrays(x, y, classes=10)
            plan = make_plan(model, features=features, classes=10, optimiser="sgd", batch=batch)
            task = Task(plan.encode(), steps, steps, 2000, 0)
            trainer = Trainer(task, data, bytes(32), get_backend(backend))
            start = trainer.initial_state()
            plain, keyed = [], []
            for i in range(16):
                plain.append(spent(trainer.run_chunk, 0, start))
                keyed.append(spent(trainer.replay, 0, start, bytes([i]) * 32))
            ratios = [b / a for a, b in zip(plain[1:], keyed[1:], strict=True)]
            each = 1000 * min(plain) / steps
            label = f"{name}, k = {steps}"
            print(f"{label:31} {backend:6} {each:6.2f}  {statistics.median(ratios):8.3f}")


def spent(act: Callable[..., object], *args: object) -> float:
    """Return the CPU seconds of a call."""
    begin = time.process_time()
    act(*args)
    return time.process_time() - begin


def show_bytes() -> None:
    """Print the bytes of an opening, and what audits add to a validator's work."""
    print("\nslice   bytes of an opening   bytes on chain   chunks re-run for others, a = 5 %")
    for size in (41, 94, 227, 1000):
        chunks = tuple(range(size))
        opening = open_result(chunks, tuple(bytes(32) for _ in chunks), 0)
        print(f"{size:5}   {len(codec.encode(opening)):19}   {32:14}   {0.05 * size:.1f}")


def show_dynamics() -> None:
    """Print where best responses lead, with and without audits (after Felten's dilemma)."""
    print("\n200 epochs of best responses, n = 31, T = 10,000 chunks, slices of 63")
    print("audits   lazy in the end   epochs in which the worker cheats")
    for rate in (0.0, 0.01, 0.05):
        lazy, cheating = dynamics(rate)
        print(f"{rate:5.0%}    {lazy:15.0%}   {cheating}")


def dynamics(
    rate: float, slash: float = 200, reward: float = 1.3, bounty: float = 20
) -> tuple[float, int]:
    """Return the share of lazy validators in the end, and epochs with a cheating worker.

    Amounts are in costs of a duty (the validator's) and of a job (the worker's).
    """
    n, size, total = 31, 63, 10_000
    honest_share, stake = 1.2, 2.0
    lazy, seen, cheating = 0.02, 0.0, 0
    shares = [0.0, *np.geomspace(1 / total, 1, 60)]
    for _ in range(200):
        checkers = max(0, round((2 * ((n - 1) // 3) + 1) * (1 - lazy)))

        def gain(share: float, checkers: int = checkers) -> float:
            if not share:
                return honest_share - 1
            found = 1 - missed(total, size, share) ** checkers
            return (1 - found) * (honest_share - (1 - share)) - found * (stake + 1 - share)

        best = max(shares, key=gain)
        cheating += best > 0
        seen = 0.9 * seen + 0.1 * (best > 0)
        hit = 1 - missed(total, size, best) if best else 0.0
        checks = reward - 1 + seen * hit * bounty / max(1, checkers)
        idles = reward - rate * (slash + reward)
        lazy = min(1.0, max(0.0, lazy + 0.05 * float(np.sign(idles - checks))))
    return lazy, cheating


def missed(total: int, size: int, share: float) -> float:
    """Return the chance that a slice holds no forged chunk."""
    return float(miss_probability(total, size, max(1, round(share * total))))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duties", action="store_true", help="only how soon one is found")
    arguments = parser.parse_args()
    show_duties()
    if not arguments.duties:
        show_bytes()
        show_dynamics()
        show_cost()


if __name__ == "__main__":
    main()
