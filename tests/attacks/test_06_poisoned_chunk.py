"""Row 6: a worker spoils one chunk and computes all others; which tier finds it, and how often."""

from __future__ import annotations

import pytest
from attacks.arena import CHUNKS, Tally, detection, faults, run

from mlchain.consensus.work.assurance import Assurance, Shape, Tier
from mlchain.consensus.work.sampling import draw_checkers
from mlchain.crypto import digest

JOBS = 1500
SPOILED = 123


def covered(validators: int, depth: int, jobs: int = JOBS) -> Tally:
    """How often somebody honest is dealt the spoiled chunk, while f of the validators help."""
    work, hits = run(frozenset({SPOILED})), 0
    for job in range(jobs):
        seed = digest("test-cover", job.to_bytes(8, "little"))
        dealt = draw_checkers(seed, SPOILED, validators, depth)
        honest = [number for number in dealt if number >= faults(validators)]
        hits += any(not work.is_right(SPOILED) for _ in honest)
    shape = Shape(CHUNKS, CHUNKS, validators)
    return Tally(jobs, hits, 1 - Assurance(Tier("covered", depth), shape).miss(1))


@pytest.mark.parametrize("validators, depth", [(4, 1), (7, 1), (7, 2), (10, 2), (10, 3)])
def test_covered_finds_it_as_often_as_the_formula_says(validators, depth):
    tally = covered(validators, depth)
    assert abs(tally.sigmas) < 3, tally


@pytest.mark.parametrize("validators, depth", [(4, 2), (7, 3), (10, 4)])
def test_dealt_to_one_more_than_can_collude_it_is_always_found(validators, depth):
    tally = covered(validators, depth)
    assert tally.hits == tally.jobs and tally.predicted == 1


@pytest.mark.parametrize("validators", [4, 7])
def test_control_a_sample_sized_for_one_percent_misses_it_as_often_as_the_formula_says(validators):
    tally = detection(validators, 1, 600)
    assert abs(tally.sigmas) < 3, tally
    assert tally.predicted < 0.95 and tally.hits < tally.jobs, "so it does get through"


def test_control_a_worker_that_knew_the_hands_would_never_be_found():
    """Hands that were public before the commit: it spoils a chunk that only colluders hold."""
    seed, helpers = digest("test-known"), set(range(faults(10)))
    alone = [j for j in range(CHUNKS) if helpers.issuperset(draw_checkers(seed, j, 10, 2))]
    assert len(alone) > 10, "there is always one to choose"


def test_control_a_proposer_that_may_choose_among_quorums_finds_a_seed_that_misses():
    """176 quorums of ten: as if the seed came from whose precommits a proposer includes."""
    helpers, tries = set(range(faults(10))), 176
    escaped = 0
    for commit in range(50):
        seeds = (digest("test-quorum", bytes([commit, i])) for i in range(tries))
        escaped += any(helpers.issuperset(draw_checkers(s, SPOILED, 10, 2)) for s in seeds)
    assert escaped == 50
