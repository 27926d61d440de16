"""Row 1: a worker does not compute some chunks and repeats an old state."""

from __future__ import annotations

import pytest
from attacks.arena import CHUNKS, detection, forge, run, size_of, survey
from factories import make_chain

from mlchain.consensus.work.sampling import miss_probability
from mlchain.vm.families.jobs import JobState

JOBS = 2000
ONE_PERCENT = CHUNKS // 100


@pytest.mark.parametrize("validators", [4, 7, pytest.param(10, marks=pytest.mark.slow)])
def test_a_one_percent_faker_is_found_as_often_as_the_formula_says(validators):
    tally = detection(validators, ONE_PERCENT, JOBS)
    assert tally.predicted >= 0.999, "which is what tier `audited` promises"
    assert abs(tally.sigmas) < 3, tally


@pytest.mark.parametrize("validators", [4, 7, pytest.param(10, marks=pytest.mark.slow)])
def test_each_single_validator_finds_it_as_often_as_the_formula_says(validators):
    """A sharper look at the same jobs: the rate of one slice is far from 0 and from 1."""
    size, honest = size_of(validators), 2 * ((validators - 1) // 3) + 1
    found = sum(survey(validators, ONE_PERCENT, JOBS, size))
    p = float(1 - miss_probability(CHUNKS, size, ONE_PERCENT))
    trials = JOBS * honest
    assert abs(found - trials * p) < 3 * (trials * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("size, forged", [(3, 5), (10, 5), (10, 25)])
def test_smaller_slices_and_greater_greed_follow_the_formula_too(size, forged):
    tally = detection(4, forged, 1000, size)
    assert 0.05 < tally.predicted < 0.9
    assert abs(tally.sigmas) < 3, tally


def test_honest_work_is_never_accused():
    assert sum(survey(4, 0, 300, size_of(4))) == 0
    assert all(run().is_right(chunk) for chunk in range(CHUNKS))


def test_of_a_forged_run_exactly_the_forged_chunks_are_wrong():
    """What is counted above: chunks built on a forged one are right, from where they start."""
    work = forge(ONE_PERCENT)
    wrong = {chunk for chunk in range(CHUNKS) if not work.is_right(chunk)}
    assert wrong == work.forged and len(wrong) == ONE_PERCENT
    assert work.digests[-1] != run().digests[-1]


def test_control_without_re_execution_the_forgery_is_paid_for():
    """Validators that attest whatever is committed: the chain itself notices nothing."""
    assert detection(4, ONE_PERCENT, 50, size=0).predicted > 0.999  # 0 means: the tier's own
    assert sum(survey(4, ONE_PERCENT, 50, 0)) == 0
    chain = make_chain(4, 2)
    stale = {}

    def repeat(chunk, state):
        return stale.setdefault("state", state)

    job = chain.run_job(forge=repeat)
    assert chain.job(job).state == JobState.SETTLED
