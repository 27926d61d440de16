"""The promises hold in every weather, against every adversary; equal scenarios are equal runs."""

from __future__ import annotations

import pytest

from mlchain.sim.adversary import ADVERSARIES
from mlchain.sim.run import run
from mlchain.sim.scenario import Outcome, Scenario

ANYBODY = (*ADVERSARIES, "none")


def is_kept(scenario: Scenario) -> Outcome:
    outcome = run(scenario)
    assert not outcome.violation, f"mlchain sim --seed {scenario.seed} --nodes {scenario.nodes} -v"
    assert min(outcome.heights) >= scenario.heights
    return outcome


@pytest.mark.parametrize("adversary", ANYBODY)
def test_four_validators_agree_and_go_on_with_one_faulty(adversary: str) -> None:
    outcomes = [is_kept(Scenario(seed, 4, adversary)) for seed in range(24)]
    # Controls: the weather was bad indeed.
    assert sum(o.crashes for o in outcomes) > 24
    assert sum(o.events for o in outcomes) > 24 * 200


@pytest.mark.parametrize("adversary", ANYBODY)
def test_seven_validators_agree_and_go_on_with_two_faulty(adversary: str) -> None:
    for seed in range(3):
        is_kept(Scenario(seed, 7, adversary))


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_few_validators_survive_crashes_but_no_liar(nodes: int) -> None:
    for seed in range(10):
        assert is_kept(Scenario(seed, nodes, "twins")).adversary == "none"


def test_an_equivocator_is_always_convicted() -> None:
    assert all(is_kept(Scenario(s, 7, "equivocator")).convicted == 2 for s in range(20, 24))


def test_nobody_is_convicted_where_nobody_lied() -> None:
    for adversary in ("none", "silent", "spoiler"):
        assert all(is_kept(Scenario(s, 4, adversary)).convicted == 0 for s in range(20, 26))


def test_the_same_seed_gives_the_same_run() -> None:
    for seed in range(5):
        once, again = run(Scenario(seed)), run(Scenario(seed))
        assert once.digest == again.digest
        assert (once.events, once.virtual_ms) == (again.events, again.virtual_ms)


def test_other_seeds_other_sizes_and_other_adversaries_give_other_runs() -> None:
    scenarios = [Scenario(0), Scenario(1), Scenario(0, 7), Scenario(0, 4, "liar")]
    assert len({run(scenario).digest for scenario in scenarios}) == 4


def test_a_transcript_tells_the_run_and_does_not_change_it() -> None:
    silent, told = run(Scenario(3)), run(Scenario(3, transcript=True))
    assert silent.digest == told.digest and not silent.transcript
    assert any("prevote 1/0 for" in line for line in told.transcript)
    assert any("proposal 1/0 of" in line for line in told.transcript)
    times = [int(line.split()[0]) for line in told.transcript]
    assert times == sorted(times)


CHUNK = 240
SIZES = [(4, 100 + CHUNK * part, CHUNK) for part in range(7)]
SIZES += [(7, 100, 60), (10, 100, 12), (31, 100, 1)]
"""With the named adversaries above more than 2,000 seeds; `--night` runs as many as one likes."""


@pytest.mark.parametrize(("nodes", "first", "seeds"), SIZES)
def test_the_promises_hold_over_thousands_of_seeds(nodes: int, first: int, seeds: int) -> None:
    for seed in range(first, first + seeds):
        is_kept(Scenario(seed, nodes))


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "seeds"), [(4, 4000), (5, 500), (7, 500), (10, 100)])
def test_the_promises_hold_over_thousands_more(nodes: int, seeds: int) -> None:
    for seed in range(10_000, 10_000 + seeds):
        is_kept(Scenario(seed, nodes))
