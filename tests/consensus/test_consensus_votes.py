"""How votes are counted and bounded (`consensus/votes.py`)."""

from itertools import permutations

import pytest
from engine_play import id_of, key_of, members, vote_of

from mlchain.consensus.votes import MAX_VALUES, VoteBook
from mlchain.ledger.commit import NIL, VoteKind

PREVOTE, PRECOMMIT = VoteKind.PREVOTE, VoteKind.PRECOMMIT
X, Y = id_of("X"), id_of("Y")


def test_a_vote_seen_before_changes_nothing() -> None:
    book = VoteBook(members(1, 1, 1, 1))
    assert book.add(vote_of("a", PREVOTE, 0, "X"), False)
    assert not book.add(vote_of("a", PREVOTE, 0, "X"), True)
    assert book.weight(PREVOTE, 0, X) == 1


@pytest.mark.parametrize("order", list(permutations(["aX", "aY", "bX", "cY", "dX"])))
def test_both_votes_of_an_equivocator_count_whatever_comes_first(order: tuple[str, ...]) -> None:
    book = VoteBook(members(1, 1, 1, 1))
    for voter, block in order:
        assert book.add(vote_of(voter, PRECOMMIT, 0, block), False)
    assert book.has_quorum(PRECOMMIT, 0, X)
    assert not book.has_quorum(PRECOMMIT, 0, Y)
    assert (book.weight(PRECOMMIT, 0, X), book.weight(PRECOMMIT, 0, Y)) == (3, 2)


def test_an_equivocator_counts_once_among_those_who_voted_at_all() -> None:
    book = VoteBook(members(1, 1, 1, 1))
    for voter, block in ("aX", "aY", "bX"):
        book.add(vote_of(voter, PREVOTE, 0, block), False)
    assert not book.has_any_quorum(PREVOTE, 0)
    book.add(vote_of("c", PREVOTE, 0, "nil"), False)
    assert book.has_any_quorum(PREVOTE, 0)
    assert not any(book.has_quorum(PREVOTE, 0, block) for block in (X, Y, NIL))


def test_kinds_and_rounds_are_counted_apart() -> None:
    book = VoteBook(members(1, 1, 1, 1))
    for voter, kind, round_ in (("a", PREVOTE, 0), ("b", PRECOMMIT, 0), ("c", PREVOTE, 1)):
        book.add(vote_of(voter, kind, round_, "X"), False)
    assert [book.weight(*key, X) for key in ((PREVOTE, 0), (PRECOMMIT, 0), (PREVOTE, 1))] == [1] * 3


def test_of_one_validator_only_two_values_of_unknown_blocks_are_kept() -> None:
    book = VoteBook(members(1, 1, 1, 1))
    for block in "PQRSTUVW":
        book.add(vote_of("a", PREVOTE, 0, block), False)
    assert [v.block_id for v in book.of(PREVOTE, 0, key_of("a"))] == [id_of("P"), id_of("Q")]
    assert len(book.tallies()) == MAX_VALUES


def test_a_vote_for_a_block_at_hand_is_kept_beyond_that() -> None:
    book = VoteBook(members(1, 1, 1, 1))
    for block in "PQ":
        book.add(vote_of("a", PREVOTE, 0, block), False)
    assert not book.add(vote_of("a", PREVOTE, 0, "X"), False)
    assert book.add(vote_of("a", PREVOTE, 0, "X"), True)
    assert book.weight(PREVOTE, 0, X) == 1


def test_a_quorum_is_of_weight_and_not_of_heads() -> None:
    book = VoteBook(members(5, 1, 1, 1))
    for voter in "bcd":
        book.add(vote_of(voter, PRECOMMIT, 0, "X"), False)
    assert not book.has_quorum(PRECOMMIT, 0, X)
    book.add(vote_of("a", PRECOMMIT, 0, "X"), False)
    assert book.has_quorum(PRECOMMIT, 0, X)


def test_votes_for_one_value_come_in_key_order() -> None:
    book = VoteBook(members(1, 1, 1, 1))
    for voter in "dbca":
        book.add(vote_of(voter, PREVOTE, 0, "X"), False)
    assert [v.validator for v in book.cast_for(PREVOTE, 0, X)] == [key_of(n) for n in "abcd"]
    assert book.cast_for(PREVOTE, 1, X) == book.cast_for(PREVOTE, 0, Y) == []


def test_decisions_are_quorums_of_precommits_in_the_order_they_came() -> None:
    book = VoteBook(members(1, 1, 1, 1))
    for kind, round_, block in ((PREVOTE, 0, "X"), (PRECOMMIT, 3, "X"), (PRECOMMIT, 1, "nil")):
        for voter in "abc":
            book.add(vote_of(voter, kind, round_, block), False)
    assert book.decisions() == [(3, X), (1, NIL)]


def test_forgetting_spares_the_rounds_to_keep() -> None:
    book = VoteBook(members(1, 1, 1, 1))
    for round_ in range(5):
        for voter in "abc":
            book.add(vote_of(voter, PRECOMMIT, round_, "X"), False)
    book.forget(4, (1, -1))
    assert book.tallies() == [(1, PRECOMMIT, X), (4, PRECOMMIT, X)]
    assert book.decisions() == [(1, X), (4, X)]
    assert not book.has_quorum(PRECOMMIT, 0, X)
