"""A smaller run that breaks the same promise, for a person to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from mlchain.sim.run import run
from mlchain.sim.scenario import Scenario

NEIGHBOURS = 40
"""Other seeds tried for a run with fewer events."""


def shrink(scenario: Scenario, tell: Callable[[Scenario], None] = lambda s: None) -> Scenario:
    """Return the smallest scenario found whose violation begins as that of `scenario` does.

    Fewer adversaries, jobs, heights and nodes, and fair weather are tried first; then other seeds.
    """
    outcome = run(scenario)
    promise, fewest = outcome.violation.split(":")[0], outcome.events
    if not promise:
        return scenario
    names = [n for n in outcome.adversary.split("+") if n != "none"]
    best = replace(scenario, adversary=scenario.adversary or "+".join(names) or "none")
    best = best if _breaks(best, promise) else scenario
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for smaller in _smaller(best):
            tell(smaller)
            if (events := _breaks(smaller, promise)) and events <= fewest:
                best, fewest, is_smaller = smaller, events, True
                break
    for seed in range(NEIGHBOURS):
        other = replace(best, seed=seed)
        tell(other)
        if (events := _breaks(other, promise)) and events < fewest:
            best, fewest = other, events
    return best


def _breaks(scenario: Scenario, promise: str) -> int:
    """Return how many events a run took that breaks the promise, 0 if it does not."""
    outcome = run(scenario)
    return outcome.events if outcome.violation.split(":")[0] == promise else 0


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    names = scenario.adversary.split("+")
    for name in names if len(names) > 1 else ():
        yield replace(scenario, adversary="+".join(n for n in names if n != name))
    if scenario.world == "work" and scenario.orders != 1:
        yield replace(scenario, orders=1)
    if scenario.world == "work" and not scenario.calm:
        yield replace(scenario, calm=True)
    if scenario.world == "agreement" and scenario.heights > 1:
        yield replace(scenario, heights=scenario.heights - 1)
    if scenario.nodes > 4:
        yield replace(scenario, nodes=4)
