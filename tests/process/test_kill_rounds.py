"""Validators of a running network are killed: nothing that anybody was told is lost."""

import pytest
from kill_rounds import attack


def check(report, rounds: int) -> None:
    assert report.complaints == []
    assert len(report.recovery) == rounds
    assert report.transactions > 20 * rounds
    assert report.jobs and report.votes and report.together


def test_killed_validators_come_back_and_vote(tmp_path):
    check(attack(tmp_path, 3, 1, print), 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_rounds(tmp_path):
    check(attack(tmp_path, 50, 2, print), 50)
