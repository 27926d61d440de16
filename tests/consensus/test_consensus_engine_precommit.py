"""What a validator locks and precommits (L34 to L46), and how its round ends (L47, L65)."""

import pytest
from engine_play import PREVOTED_X, Play, play_from

# ---- L36: a polka -------------------------------------------------------------------------


def test_a_polka_locks_the_block_and_precommits_it_once() -> None:
    play_from(PREVOTED_X)("""
        > prevote a 0 X
        = round 0 prevote, locked -, valid -
        > prevote b 0 X
        wait prevote 0 500
        precommit 0 X
        = round 0 precommit, locked 0 X, valid 0 X
        > prevote c 0 X
        > prevote abc 0 X
        not new from a
        not new from b
        not new from c
    """)


def test_a_polka_after_precommitting_nil_makes_a_valid_value_but_no_lock() -> None:
    play_from(PREVOTED_X)("""
        > prevote ab 0 nil
        wait prevote 0 500
        > timeout prevote 0
        precommit 0 nil
        > prevote ab 0 X
        = round 0 precommit, locked -, valid 0 X
    """)


def test_a_polka_waits_for_one_s_own_prevote() -> None:
    Play("d")("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > prevote abc 0 X
        = round 0 propose, locked -, valid -
        > valid X
        prevote 0 X
        wait prevote 0 500
        precommit 0 X
        = round 0 precommit, locked 0 X, valid 0 X
    """)


def test_a_polka_waits_for_the_block_and_for_its_verdict() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > timeout propose 0
        prevote 0 nil
        > prevote abc 0 X
        wait prevote 0 500
        = round 0 prevote, locked -, valid -
        > proposal 0 X
        check X
        = round 0 prevote, locked -, valid -
        > valid X
        precommit 0 X
        = round 0 precommit, locked 0 X, valid 0 X
    """)


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        ("unwanted", "precommit 0 X\n = round 0 precommit, locked 0 X, valid 0 X"),
        ("invalid", "= round 0 prevote, locked -, valid -"),
    ],
)
def test_who_vetoed_a_block_follows_its_polka_but_an_invalid_block_has_no_followers(
    verdict: str, outcome: str
) -> None:
    Play("d")(f"""
        > proposal 0 X
        wait propose 0 1000
        check X
        > {verdict} X
        prevote 0 nil
        > prevote ab 0 X
        wait prevote 0 500
        > prevote c 0 X
        {outcome}
    """)


def test_a_polka_of_an_earlier_round_locks_nothing() -> None:
    Play("d")("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > valid X
        prevote 0 X
        > at ab 1
        wait propose 1 1100
        > timeout propose 1
        prevote 1 nil
        > prevote abc 0 X
        = round 1 prevote, locked -, valid -
    """)


def test_a_newer_polka_moves_the_lock() -> None:
    play_from(PREVOTED_X)("""
        > prevote ab 0 X
        wait prevote 0 500
        precommit 0 X
        > at ab 1
        wait propose 1 1100
        > proposal 1 Y
        prevote 1 nil
        > prevote abc 1 Y
        wait prevote 1 600
        check Y
        > valid Y
        precommit 1 Y
        = round 1 precommit, locked 1 Y, valid 1 Y
    """)


# ---- L34, L44, L57, L61: no polka ---------------------------------------------------------


def test_a_quorum_of_prevotes_for_different_values_starts_one_timeout() -> None:
    play_from(PREVOTED_X)("""
        > prevote a 0 nil
        > prevote b 0 Y
        wait prevote 0 500
        > prevote c 0 Y
        = round 0 prevote, locked -, valid -
        > timeout prevote 0
        precommit 0 nil
        = round 0 precommit, locked -, valid -
    """)


def test_a_quorum_of_prevotes_starts_no_timeout_before_the_own_prevote() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > prevote abc 0 nil
        = round 0 propose, locked -, valid -
        > timeout propose 0
        prevote 0 nil
        wait prevote 0 500
        precommit 0 nil
    """)


def test_a_nil_polka_precommits_nil_once() -> None:
    play_from(PREVOTED_X)("""
        > prevote ab 0 nil
        wait prevote 0 500
        > prevote c 0 nil
        precommit 0 nil
        = round 0 precommit, locked -, valid -
        > timeout prevote 0
    """)


def test_a_nil_polka_does_not_undo_a_lock() -> None:
    play_from(PREVOTED_X)("""
        > prevote ab 0 X
        wait prevote 0 500
        precommit 0 X
        > at ab 1
        wait propose 1 1100
        > timeout propose 1
        prevote 1 nil
        > prevote ab 1 nil
        wait prevote 1 600
        precommit 1 nil
        = round 1 precommit, locked 0 X, valid 0 X
    """)


# ---- L47, L65: the end of a round ---------------------------------------------------------


def test_a_quorum_of_precommits_for_different_values_starts_one_timeout_that_ends_the_round() -> (
    None
):
    Play("d")("""
        > demand
        wait propose 0 1000
        > precommit a 0 X
        > precommit b 0 nil
        > precommit c 0 Y
        wait precommit 0 500
        > precommit c 0 nil
        # it ends the round in whichever step one is
        = round 0 propose, locked -, valid -
        > timeout precommit 0
        wait propose 1 1100
        = round 1 propose, locked -, valid -
    """)


def test_each_round_has_its_own_timeouts() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > precommit abc 0 nil
        wait precommit 0 500
        > timeout precommit 0
        wait propose 1 1100
        > precommit abc 1 nil
        wait precommit 1 600
        > timeout precommit 0
        = round 1 propose, locked -, valid -
        > timeout precommit 1
        wait propose 2 1200
    """)
