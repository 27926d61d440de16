"""Whole nodes in invented time: the promises hold, and equal scenarios are equal runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlchain.sim.run import run
from mlchain.sim.scenario import Outcome, Scenario


def is_kept(seed: int, nodes: int = 4, adversary: str = "", **how: int) -> Outcome:
    scenario = Scenario(seed, nodes, adversary, world="work", **how)
    outcome = run(scenario)
    assert not outcome.violation, f"{scenario.command} -v: {outcome.violation}"
    return outcome


def test_in_fair_weather_a_job_is_trained_audited_and_paid():
    outcome = is_kept(1, adversary="none", calm=True)
    assert outcome.jobs["SETTLED"] and outcome.hard and "EXPIRED" not in outcome.jobs
    assert (outcome.crashes, outcome.claims, outcome.convicted) == (0, 0, 0)


def test_in_bad_weather_nodes_crash_and_every_job_ends_as_it_should():
    outcomes = [is_kept(seed, adversary="none") for seed in (0, 2)]
    assert sum(outcome.crashes for outcome in outcomes) > 0, "the weather was bad indeed"


def test_a_segment_that_ends_in_a_lie_does_not_fail_the_worker_of_the_next():
    """For long its deadline ran, and the job ended with both workers excluded: 16 falls."""
    assert is_kept(5001).jobs == {"SETTLED": 1}


def test_the_same_seed_gives_the_same_run():
    assert is_kept(2).digest == is_kept(2).digest != is_kept(3).digest


def test_a_transcript_tells_the_run_and_does_not_change_it():
    silent = is_kept(7, adversary="skip")
    told = run(Scenario(7, 4, "skip", world="work", transcript=True))
    assert told.digest == silent.digest and not silent.transcript
    kinds = {happening.kind for happening in told.story}
    assert {"proposal", "prevote", "precommit", "decided", "commit", "attested", "HARD"} <= kinds


def digests(seeds: list[tuple[int, str]], salt: str) -> list[str]:
    """Return what another process gives, in which sets have another order."""
    program = (
        "from mlchain.sim.run import run; from mlchain.sim.scenario import Scenario;"
        f"print(*[run(Scenario(s, 4, a, world='work')).digest for s, a in {seeds}])"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": salt, "PYTHONPATH": "."},
        capture_output=True, text=True, check=True, timeout=300,
    ).stdout.split()  # fmt: skip


def test_one_seed_is_one_run_in_every_process():
    """Whatever the order of sets, and whatever ran before. Here a forgery is disputed."""
    seed, name = 7, "skip"
    here = is_kept(seed, adversary=name).digest
    assert digests([(seed, name)], "1") == [here]


@pytest.mark.slow
def test_many_seeds_are_one_run_each_in_every_process():
    seeds = [(seed, "") for seed in range(5, 13)] + [(1, "skip"), (1, "lie"), (0, "selective")]
    assert digests(seeds, "1") == digests(seeds[::-1], "2")[::-1]


@pytest.mark.parametrize(("nodes", "adversary"), [(7, "skip+drop-votes"), (10, "lie")])
def test_more_validators_of_whom_f_lie_keep_the_promises_too(nodes: int, adversary: str):
    assert is_kept(1, nodes, adversary, calm=True, orders=1).jobs == {"SETTLED": 1}


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize(("nodes", "seeds"), [(4, 300), (7, 40), (10, 10), (31, 1)])
def test_the_promises_hold_over_hundreds_of_seeds(nodes: int, seeds: int):
    for seed in range(5000, 5000 + seeds):
        is_kept(seed, nodes)
