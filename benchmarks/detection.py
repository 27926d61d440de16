"""How often forged work is caught, measured beside predicted: the figures behind the tiers.

python benchmarks/detection.py [jobs]        default 2000, about a minute

A worker forges 1 % of a job's chunks; f of n validators collude and see nothing. The jobs are
simulated as tests/attacks/arena.py says: training, forgeries and slices are real, and every drawn
chunk is re-executed. `predicted` is the hypergeometric formula; `sigma` is how far apart the two
are, in standard deviations of the measurement.
"""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from attacks.arena import CHUNKS, Tally, detection, outvoted, size_of, survey

from mlchain.consensus.work.assurance import Assurance, Shape, Tier

VALIDATORS = (4, 7, 10)
FORGED = CHUNKS // 100
LONG_JOBS = (10_000, 30_000, 100_000)
HONEST_JOBS = 200


def main() -> None:
    """Print the tables."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"{platform.node()}, {platform.machine()}, Python {platform.python_version()}")
    print(f"\n{jobs:,} jobs of {CHUNKS} chunks, {FORGED} of them forged, tier audited")
    print(f"{'n':>4}{'f':>4}{'slice':>7}  {'':<38}{'measured':>10}{'predicted':>11}{'sigma':>8}")
    started = time.perf_counter()
    for n in VALIDATORS:
        row = f"{n:>4}{(n - 1) // 3:>4}{size_of(n):>7}  "
        show(row, "anybody honest finds it", detection(n, FORGED, jobs))
        show(" " * len(row), "with slices of 3 chunks", detection(n, FORGED, jobs, size=3))
        show(" " * len(row), "2f+1 attest all the same (no veto)", outvoted(n, FORGED, jobs))
        false = sum(survey(n, 0, HONEST_JOBS, size_of(n)))
        print(f"{'':<17}{f'honest workers accused in {HONEST_JOBS} jobs':<38}{false:>10}{0:>11}")
    print(f"{time.perf_counter() - started:.0f} s")
    print("\nWhat tier audited costs the network, as a share of the training itself")
    print(f"{'chunks':>10}" + "".join(f"{f'n = {n}':>10}" for n in VALIDATORS))
    for chunks in LONG_JOBS:
        costs = (
            float(Assurance(Tier("audited"), Shape(chunks, chunks, n)).cost) for n in VALIDATORS
        )
        print(f"{chunks:>10,}" + "".join(f"{cost:>10.1%}" for cost in costs))


def show(row: str, what: str, tally: Tally) -> None:
    print(f"{row}{what:<38}{tally.rate:>10.2%}{float(tally.predicted):>11.2%}{tally.sigmas:>+8.1f}")


if __name__ == "__main__":
    main()
