"""How a round begins: demand, the proposer's duty, and skipping ahead (L11 to L21, L55)."""

import pytest
from engine_play import TIMEOUTS, Play, members

from mlchain.consensus.actions import Step


def test_nothing_happens_before_anybody_wants_a_block() -> None:
    Play("a")("""
        = round -1 propose, locked -, valid -
        > prevote b 0 nil
        > timeout propose 0
        = round -1 propose, locked -, valid -
    """)


def test_demand_makes_the_proposer_build_and_the_others_wait() -> None:
    Play("a")("""
        > demand
        wait propose 0 1000
        build 0
        = round 0 propose, locked -, valid -
        > demand
    """)
    Play("d")("""
        > demand
        wait propose 0 1000
        = round 0 propose, locked -, valid -
    """)


def test_a_proposal_of_round_0_says_that_its_proposer_has_demand() -> None:
    Play("d")("""
        > proposal 0 X
        wait propose 0 1000
        check X
        = round 0 propose, locked -, valid -
    """)


def test_more_than_a_third_in_round_0_wakes_who_waits() -> None:
    Play("d")("""
        > prevote a 0 nil
        > prevote b 0 nil
        wait propose 0 1000
    """)


def test_the_proposer_prevotes_its_own_new_block_without_checking_it() -> None:
    Play("a")("""
        > demand
        wait propose 0 1000
        build 0
        > built X
        prevote 0 X
        = round 0 prevote, locked -, valid -
    """)


def test_a_proposer_that_locked_a_block_proposes_it_again_with_the_round_of_its_polka() -> None:
    Play("b")("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > valid X
        prevote 0 X
        > prevote ac 0 X
        wait prevote 0 500
        precommit 0 X
        > precommit cd 0 nil
        wait precommit 0 500
        > timeout precommit 0
        wait propose 1 1100
        propose 1 X pol 0
        prevote 1 X
        = round 1 prevote, locked 0 X, valid 0 X
    """)


def test_a_proposer_that_saw_a_polka_too_late_to_lock_proposes_that_block_all_the_same() -> None:
    Play("b")("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > valid X
        prevote 0 X
        > prevote cd 0 nil
        wait prevote 0 500
        > timeout prevote 0
        precommit 0 nil
        # the votes of an equivocator, and of one that was slow, make the polka
        > prevote ac 0 X
        = round 0 precommit, locked -, valid 0 X
        > precommit cd 0 nil
        wait precommit 0 500
        > timeout precommit 0
        wait propose 1 1100
        propose 1 X pol 0
        prevote 1 X
    """)


def test_a_proposer_without_a_valid_value_builds_a_new_block_in_a_later_round() -> None:
    Play("b")("""
        > demand
        wait propose 0 1000
        > timeout propose 0
        prevote 0 nil
        > prevote cd 0 nil
        wait prevote 0 500
        precommit 0 nil
        > precommit cd 0 nil
        wait precommit 0 500
        > timeout precommit 0
        wait propose 1 1100
        build 1
    """)


# ---- L55: skipping ------------------------------------------------------------------------


def test_one_of_four_in_a_later_round_moves_nobody_two_do() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > prevote a 1 nil
        > precommit a 2 nil
        = round 0 propose, locked -, valid -
        > prevote b 2 nil
        wait propose 2 1200
        = round 2 propose, locked -, valid -
    """)


@pytest.mark.parametrize(
    ("weights", "a_third", "one_more"),
    [
        ((1, 1, 1), "a", "b"),
        ((1,) * 6, "ab", "c"),
        ((2, 2, 1, 1), "a", "b"),
        ((1,) * 9, "abc", "d"),
    ],
)
def test_exactly_a_third_is_not_more_than_a_third(
    weights: tuple[int, ...], a_third: str, one_more: str
) -> None:
    play = Play(None, weights)
    assert 3 * sum(members(*weights).weight(n.encode() * 32) for n in a_third) == sum(weights)
    play(f"""
        > demand
        wait propose 0 1000
        > prevote {a_third} 1 nil
        = round 0 propose, locked -, valid -
        > prevote {one_more} 1 nil
        wait propose 1 1100
    """)


def test_it_skips_to_the_latest_round_that_more_than_a_third_reached() -> None:
    Play("d", (1,) * 7)("""
        > demand
        wait propose 0 1000
        > prevote a 9 nil
        > prevote b 5 nil
        > prevote c 4 nil
        wait propose 4 1250
        > prevote c 6 nil
        wait propose 5 1250
    """)


def test_who_votes_in_many_later_rounds_still_counts_once() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > prevote a 1 nil
        > prevote a 1 X
        > precommit a 1 nil
        > prevote a 2 nil
        = round 0 propose, locked -, valid -
    """)


def test_the_proposer_of_a_later_round_counts_as_being_there() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > proposal 1 X
        > prevote c 1 nil
        wait propose 1 1100
        check X
    """)


def test_a_later_round_forgets_the_step_but_not_the_lock() -> None:
    Play("d")("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > valid X
        prevote 0 X
        > prevote ab 0 X
        wait prevote 0 500
        precommit 0 X
        > prevote ab 6 nil
        wait propose 6 1250
        = round 6 propose, locked 0 X, valid 0 X
    """)


# ---- timeouts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_ms", "round_", "delay_ms"),
    [(1000, 0, 1000), (1000, 2, 1200), (1000, 3, 1250), (1000, 10_000, 1250), (500, 1, 600)],
)
def test_timeouts_grow_by_a_step_each_round_up_to_a_cap(
    base_ms: int, round_: int, delay_ms: int
) -> None:
    assert TIMEOUTS.delay_ms(base_ms, round_) == delay_ms


def test_a_timeout_of_another_round_or_step_does_nothing() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > timeout prevote 0
        > timeout propose 1
        = round 0 propose, locked -, valid -
        > timeout propose 0
        prevote 0 nil
        > timeout propose 0
        = round 0 prevote, locked -, valid -
        > timeout prevote 0
        precommit 0 nil
        > timeout prevote 0
        > timeout propose 0
        = round 0 precommit, locked -, valid -
        > timeout precommit 1
        = round 0 precommit, locked -, valid -
    """)


def test_the_last_round_of_all_never_ends() -> None:
    play = Play("d")
    play("""
        > prevote ab 10000 nil
        wait propose 10000 1250
        > timeout precommit 10000
        = round 10000 propose, locked -, valid -
    """)
    assert play.engine.step is Step.PROPOSE
