"""One scenario of either world, or many of them in several processes."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mlchain.sim.scenario import Outcome, Scenario


def run(scenario: Scenario) -> Outcome:
    """Run one scenario; the same scenario gives the same outcome, digest included."""
    if scenario.world == "work":
        from mlchain.sim.work.world import run_work

        return run_work(scenario)
    from mlchain.sim.cluster import Cluster

    with _no_collection():
        return Cluster(scenario).run()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Leave cycles alone for one short run: to look for them takes a tenth of it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def run_many(scenarios: Iterable[Scenario], jobs: int) -> Iterator[Outcome]:
    """Run them in `jobs` processes; outcomes come as they are done, in any order."""
    if jobs <= 1:
        yield from map(run, scenarios)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run, scenarios, chunksize=4)


def names_of_adversaries(world: str) -> list[str]:
    """Return the adversaries that may be named in a world."""
    if world == "work":
        from mlchain.sim.work.cheats import CHEATS

        return list(CHEATS)
    from mlchain.sim.adversary import ADVERSARIES

    return list(ADVERSARIES)


def names_of_mutants(world: str) -> list[str]:
    """Return the deliberate bugs that may be named in a world."""
    if world == "work":
        from mlchain.sim.work.mutants import MUTANTS as WORK_MUTANTS

        return list(WORK_MUTANTS)
    from mlchain.sim.mutants import MUTANTS

    return list(MUTANTS)
