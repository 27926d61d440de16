"""The simulation of whole nodes sees: every deliberate bug in the rules of work breaks a promise.

The seeds are remembered so that this is quick; the slow test looks for one, and says which.
"""

from __future__ import annotations

import pytest

from mlchain.sim.run import run
from mlchain.sim.scenario import Scenario
from mlchain.sim.work.mutants import MUTANTS

KILLED_BY = {
    "no-audit": (0, "fraud"),
    "any-ticket": (0, "attestation"),
    "early-attestations": (0, "attestation"),
    "public-slice": (0, "fraud"),
    "one-verdict": (0, "slashed"),
    "one-unserved": (0, "slashed"),
    "double-pay": (0, "supply"),
    "refund-all": (0, "supply"),
    "slash-kept": (0, "supply"),
    "any-nonce": (0, "replay"),
    "no-age": (0, "age"),
    "drowsy": (0, "liveness"),
    "own-work": (1, "attestation"),
    "paid-in-advance": (0, "refused"),
}
"""Mutant: a seed that kills it, and the promise it breaks."""

LONG = {
    "no-evidence": (0, "liveness"),
    "no-deadline": (1, "liveness"),
    "late-heir": (8, "job"),
    "no-objection": (4, "fraud"),
    "no-patience": (4, "fraud"),
    "no-claim-in-veto": (3, "fraud"),
}
"""The same, of those that take long to show."""

TRIES = 4
"""Seeds from the remembered one on: which worker is given a segment first is drawn anew whenever
the genesis changes."""
SEEDS_AT_MOST = 100


def scenario(name: str, seed: int, mutant: bool) -> Scenario:
    kind = MUTANTS[name]
    return Scenario(
        seed, kind.nodes, kind.adversary, name if mutant else "", world="work",
        calm=kind.is_calm, orders=int(kind.is_calm),
    )  # fmt: skip


def is_killed(name: str, first: int, promise: str) -> None:
    for seed in range(first, first + TRIES):
        violation = run(scenario(name, seed, True)).violation
        if violation.startswith(promise):
            assert not run(scenario(name, seed, False)).violation, "without it the seed is fine"
            return
        assert not violation, violation
    pytest.fail(f"{name} survived; find a new seed with the slow test")


def test_every_mutant_has_its_seed():
    assert sorted(KILLED_BY | LONG) == sorted(MUTANTS)


@pytest.mark.parametrize("name", KILLED_BY)
def test_the_mutant_is_killed_and_the_same_seed_without_it_is_fine(name: str):
    is_killed(name, *KILLED_BY[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_the_mutant_that_takes_long_is_killed(name: str):
    is_killed(name, *LONG[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_found_from_scratch(name: str):
    for seed in range(SEEDS_AT_MOST):
        outcome = run(scenario(name, seed, True))
        if outcome.violation:
            print(f"{name}: ({seed}, {outcome.violation.split(':')[0]!r})")
            return
    pytest.fail(f"{name} survived {SEEDS_AT_MOST} seeds")
