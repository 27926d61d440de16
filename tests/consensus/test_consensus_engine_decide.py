"""How a height is decided (L49), and how weights make a quorum."""

import pytest
from engine_play import PREVOTED_X, Play, members, play_from


def test_a_quorum_of_precommits_decides_and_ends_all() -> None:
    play_from(PREVOTED_X)("""
        > prevote ab 0 X
        wait prevote 0 500
        precommit 0 X
        > precommit a 0 X
        > precommit b 0 X
        decide 0 X
        > precommit c 0 X
        > at abc 5
        > timeout precommit 0
        = round 0 precommit, locked 0 X, valid 0 X
    """)


def test_a_decision_needs_no_prevotes_and_not_even_demand() -> None:
    Play("d")("""
        > precommit a 0 X
        > precommit b 0 X
        wait propose 0 1000
        > precommit c 0 X
        wait precommit 0 500
        > proposal 0 X
        check X
        > valid X
        decide 0 X
    """)


def test_precommits_of_an_older_round_decide_in_any_later_one() -> None:
    play_from(PREVOTED_X)("""
        > at ab 2
        wait propose 2 1200
        > precommit ab 0 X
        > precommit c 0 X
        decide 0 X
    """)


def test_precommits_of_a_later_round_decide_too() -> None:
    play_from(PREVOTED_X)("""
        > precommit a 2 X
        > precommit b 2 X
        wait propose 2 1200
        > precommit c 2 X
        decide 2 X
    """)


@pytest.mark.parametrize(
    ("verdict", "said"), [("valid", "decide 0 X"), ("unwanted", "decide 0 X"), ("invalid", "")]
)
def test_a_decision_waits_for_the_block_and_needs_it_to_be_correct(verdict: str, said: str) -> None:
    Play("d")(f"""
        > demand
        wait propose 0 1000
        > precommit abc 0 X
        wait precommit 0 500
        > proposal 0 X
        check X
        > {verdict} X
        {said or "prevote 0 nil"}
    """)


def test_precommits_of_different_rounds_do_not_add_up() -> None:
    play_from(PREVOTED_X)("""
        > precommit ab 0 X
        > precommit a 1 X
        > precommit c 1 X
        wait propose 1 1100
        = round 1 propose, locked -, valid -
    """)


def test_a_quorum_of_nil_decides_nothing() -> None:
    Play("d")("""
        > demand
        wait propose 0 1000
        > precommit abc 0 nil
        wait precommit 0 500
        = round 0 propose, locked -, valid -
    """)


def test_both_votes_of_an_equivocator_count_each_for_its_value() -> None:
    play_from(PREVOTED_X)("""
        > precommit a 0 Y
        > precommit a 0 X
        > precommit bc 0 X
        decide 0 X
    """)


# ---- weights ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "quorum", "third"),
    [
        ((1,) * 1, 1, 1),
        ((1,) * 2, 2, 1),
        ((1,) * 3, 3, 2),
        ((1,) * 4, 3, 2),
        ((1,) * 5, 4, 2),
        ((1,) * 6, 5, 3),
        ((1,) * 7, 5, 3),
        ((1,) * 10, 7, 4),
        ((3, 1, 1, 1), 5, 3),
        ((2, 2, 2), 5, 3),
        ((2**40,) * 4, 2**43 // 3 + 1, 2**42 // 3 + 1),
    ],
)
def test_a_quorum_is_more_than_two_thirds_of_the_weight(
    weights: tuple[int, ...], quorum: int, third: int
) -> None:
    validators = members(*weights)
    assert (validators.quorum, validators.third) == (quorum, third)
    assert 3 * (quorum - 1) <= 2 * sum(weights) < 3 * quorum
    assert 3 * (third - 1) <= sum(weights) < 3 * third


@pytest.mark.parametrize(
    ("weights", "too_few", "last"),
    [
        ((1,), "", "a"),
        ((1,) * 2, "a", "b"),
        ((1,) * 3, "ab", "c"),
        ((1,) * 4, "ab", "c"),
        ((1,) * 5, "abc", "d"),
        ((1,) * 7, "abcd", "e"),
        ((1,) * 10, "abcdef", "g"),
        ((3, 1, 1, 1), "bcd", "a"),
        ((3, 1, 1, 1), "ad", "c"),
        ((1, 1, 1, 9), "abc", "d"),
    ],
)
def test_the_vote_that_completes_a_quorum_decides(
    weights: tuple[int, ...], too_few: str, last: str
) -> None:
    play = Play(None, weights)
    play.tell("proposal 0 X")
    play.tell("valid X")
    for voter in too_few:
        assert not any("decide" in said for said in play.tell(f"precommit {voter} 0 X"))
    assert play.tell(f"precommit {last} 0 X")[-1] == "decide 0 X"


def test_a_validator_alone_decides_alone() -> None:
    Play("a", (1,))("""
        > demand
        wait propose 0 1000
        build 0
        > built X
        prevote 0 X
        wait prevote 0 500
        precommit 0 X
        decide 0 X
    """)


def test_two_validators_need_each_other() -> None:
    Play("a", (1, 1))("""
        > demand
        wait propose 0 1000
        build 0
        > built X
        prevote 0 X
        > prevote b 0 X
        wait prevote 0 500
        precommit 0 X
        > precommit b 0 X
        decide 0 X
    """)


def test_a_heavy_validator_counts_with_its_weight_in_polkas_too() -> None:
    Play("b", (3, 1, 1, 1))("""
        > proposal 0 X
        wait propose 0 1000
        check X
        > valid X
        prevote 0 X
        > prevote a 0 X
        = round 0 prevote, locked -, valid -
        > prevote c 0 X
        wait prevote 0 500
        precommit 0 X
    """)
