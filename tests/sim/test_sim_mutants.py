"""The simulator sees: every deliberate bug breaks a promise, and without the bug the seed is fine.

The seeds are remembered so that this is quick. When the engine or the simulator changes, another
seed may be needed; the slow test looks for one, and says which it found.
"""

from __future__ import annotations

import pytest

from mlchain.sim.mutants import MUTANTS
from mlchain.sim.run import run
from mlchain.sim.scenario import Scenario

KILLED_BY = {
    "no-lock": (31, "agreement"),
    "late-lock": (35, "agreement"),
    "no-valid-value": (7, "liveness"),
    "no-polka-check": (242, "agreement"),
    "small-quorum": (0, "certificate"),
    "first-vote-only": (14, "liveness"),
    "own-gossip-only": (9, "liveness"),
    "log-lost": (4, "liveness"),
    "log-and-signer-lost": (1, "double signature"),
    "log-of-now": (386, "liveness"),
    "log-without-lock": (35, "agreement"),
    "log-without-polka": (36, "liveness"),
    "sign-before-log": (4, "liveness"),
}
"""Mutant: the first seed that kills it, and the promise it breaks."""

SEEDS_AT_MOST = 1000


def test_every_mutant_has_its_seed() -> None:
    assert sorted(KILLED_BY) == sorted(MUTANTS)


@pytest.mark.parametrize("name", KILLED_BY)
def test_the_mutant_is_killed(name: str) -> None:
    seed, promise = KILLED_BY[name]
    violation = run(Scenario(seed, mutant=name)).violation
    assert violation.startswith(promise), f"{name} survived; find a new seed with the slow test"


@pytest.mark.parametrize("name", KILLED_BY)
def test_the_same_seed_without_the_mutant_is_fine(name: str) -> None:
    seed, _ = KILLED_BY[name]
    adversary = MUTANTS[name].adversary
    assert not run(Scenario(seed, adversary=adversary)).violation


def test_a_lost_log_costs_progress_but_a_lost_signature_costs_honesty() -> None:
    """The signer's own file is the defence; without it (the control) the validator equivocates."""
    assert KILLED_BY["log-lost"][1] == "liveness"
    assert KILLED_BY["log-and-signer-lost"][1] == "double signature"
    for seed in range(20):
        assert "double" not in run(Scenario(seed, mutant="log-lost")).violation


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_found_from_scratch(name: str) -> None:
    for seed in range(SEEDS_AT_MOST):
        outcome = run(Scenario(seed, mutant=name))
        if outcome.violation:
            print(f"{name}: ({seed}, {outcome.violation.split(':')[0]!r})")
            return
    pytest.fail(f"{name} survived {SEEDS_AT_MOST} seeds")
