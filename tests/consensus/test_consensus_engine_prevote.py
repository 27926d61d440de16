"""What a validator prevotes: L22 for new blocks, L28 for old ones, and the veto between the two."""

import pytest
from engine_play import Play

LOCKED_ON_X_IN_ROUND_0 = """
    > proposal 0 X
    wait propose 0 1000
    check X
    > valid X
    prevote 0 X
    > prevote ab 0 X
    wait prevote 0 500
    precommit 0 X
    > precommit ab 0 nil
    wait precommit 0 500
    > timeout precommit 0
    wait propose 1 1100
    = round 1 propose, locked 0 X, valid 0 X
"""
"""The rounds that follow belong to b, c and, from round 3 on, to d itself."""


@pytest.mark.parametrize(
    ("verdict", "vote"), [("valid", "X"), ("unwanted", "nil"), ("invalid", "nil")]
)
def test_a_new_block_is_prevoted_only_if_it_is_valid_and_wanted(verdict: str, vote: str) -> None:
    Play("d")(f"""
        > proposal 0 X
        wait propose 0 1000
        check X
        > {verdict} X
        prevote 0 {vote}
        = round 0 prevote, locked -, valid -
    """)


def test_a_locked_validator_prevotes_nil_for_another_new_block_unchecked() -> None:
    play = Play("d")
    play(LOCKED_ON_X_IN_ROUND_0)
    play("""
        > proposal 1 Y
        prevote 1 nil
    """)


def test_a_locked_validator_prevotes_its_block_when_it_comes_as_a_new_one() -> None:
    play = Play("d")
    play(LOCKED_ON_X_IN_ROUND_0)
    play("""
        > proposal 1 X
        prevote 1 X
    """)


def test_a_block_is_checked_once_in_all_rounds() -> None:
    Play("d")("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > timeout propose 0
        prevote 0 nil
        > at ab 1
        wait propose 1 1100
        > proposal 1 X
        > valid X
        prevote 1 X
    """)


def test_only_the_first_proposal_that_can_be_judged_gets_the_prevote() -> None:
    Play("d")("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > proposal 0 Y
        check Y
        > valid Y
        prevote 0 Y
        > valid X
        = round 0 prevote, locked -, valid -
    """)


def test_a_proposal_of_a_round_not_reached_waits_for_it() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > proposal 1 X
        > timeout propose 0
        prevote 0 nil
        > at ab 1
        wait propose 1 1100
        check X
        > valid X
        prevote 1 X
    """)


# ---- L28: a block that claims an earlier polka --------------------------------------------


def test_a_polka_not_older_than_the_lock_undoes_it() -> None:
    play = Play("d")
    play(LOCKED_ON_X_IN_ROUND_0)
    play("""
        > prevote abc 1 Y
        > at ab 2
        wait propose 2 1200
        > proposal 2 Y pol 1
        check Y
        > valid Y
        prevote 2 Y
        # the lock itself moves with the next precommit
        = round 2 prevote, locked 0 X, valid 0 X
    """)


def test_a_polka_of_the_lock_s_own_round_is_not_older() -> None:
    play = Play("d")
    play(LOCKED_ON_X_IN_ROUND_0)
    play("""
        # a and b equivocate: two polkas in one round
        > prevote abc 0 Y
        > proposal 1 Y pol 0
        check Y
        > valid Y
        prevote 1 Y
    """)


LOCKED_ON_X_IN_ROUND_1 = """
    > demand
    wait propose 0 1000
    > timeout propose 0
    prevote 0 nil
    > prevote ab 1 X
    wait propose 1 1100
    > proposal 1 X
    check X
    > valid X
    prevote 1 X
    wait prevote 1 600
    precommit 1 X
    > at ab 2
    wait propose 2 1200
    = round 2 propose, locked 1 X, valid 1 X
"""


def test_a_polka_older_than_the_lock_does_not_undo_it() -> None:
    play = Play("d")
    play(LOCKED_ON_X_IN_ROUND_1)
    play("""
        > prevote abc 0 Y
        > proposal 2 Y pol 0
        prevote 2 nil
        = round 2 prevote, locked 1 X, valid 1 X
    """)


def test_the_locked_block_itself_needs_no_newer_polka() -> None:
    play = Play("d")
    play(LOCKED_ON_X_IN_ROUND_1)
    play("""
        > prevote abc 0 X
        > proposal 2 X pol 0
        prevote 2 X
    """)


def test_without_the_polka_it_claims_an_old_block_gets_no_prevote_until_the_polka_is_there() -> (
    None
):
    Play("d")("""
        > demand
        wait propose 0 1000
        > at ab 1
        wait propose 1 1100
        > proposal 1 X pol 0
        > prevote ab 0 X
        = round 1 propose, locked -, valid -
        > prevote c 0 X
        check X
        > valid X
        prevote 1 X
    """)


def test_a_polka_for_another_block_does_not_count() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > prevote abc 0 Y
        > at ab 1
        wait propose 1 1100
        > proposal 1 X pol 0
        > timeout propose 1
        prevote 1 nil
    """)


def test_a_polka_of_the_same_round_justifies_nothing() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > prevote abc 1 X
        wait propose 1 1100
        > proposal 1 X pol 1
        > valid X
        = round 1 propose, locked -, valid -
    """)


@pytest.mark.parametrize(
    ("verdict", "vote"), [("valid", "X"), ("unwanted", "X"), ("invalid", "nil")]
)
def test_a_veto_gives_way_to_a_polka_an_invalid_block_never_does(verdict: str, vote: str) -> None:
    Play("d")(f"""
        > demand
        wait propose 0 1000
        > prevote abc 0 X
        > at ab 1
        wait propose 1 1100
        > proposal 1 X pol 0
        check X
        > {verdict} X
        prevote 1 {vote}
    """)
