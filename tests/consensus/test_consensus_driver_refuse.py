"""What a driver lets in, what it refuses and why, and when it stops listening to a peer."""

from dataclasses import dataclass

import pytest
from agreement_lab import (
    HEIGHT,
    PRECOMMIT,
    PREVOTE,
    Node,
    block_of,
    commit_of,
    id_of,
    key_of,
    proposal,
    vote,
    votes,
)
from base.record_strategies import values
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mlchain.consensus.gossip import EARLY_ROUNDS, MAX_PEERS, MAX_STRIKES
from mlchain.consensus.height import MAX_REFUSED, ROUNDS_AHEAD
from mlchain.consensus.messages import (
    MAX_MESSAGE_BYTES,
    BlockProposal,
    Decided,
    Message,
    Status,
    Want,
    encode_message,
)
from mlchain.ledger.commit import MAX_EXTENSION_BYTES, Vote


@dataclass(frozen=True, slots=True)
class Case:
    about: str
    message: Message | bytes
    reason: str
    is_strike: bool = True


GOOD_VOTE = vote("b", PREVOTE, 0, "X")
GOOD = proposal("a", 0, "X")
POLKA = tuple(votes("abc", PREVOTE, 0, "X"))


def with_block(block: bytes) -> BlockProposal:
    return replace(GOOD, block=block)


STRIKES = [
    Case("no bytes", b"", "unknown tag"),
    Case("an unknown tag", b"\x09" + bytes(40), "unknown tag"),
    Case("garbage behind a tag", b"\x02" + bytes(40), "Vote"),
    Case("a message cut short", encode_message(GOOD_VOTE)[:-1], "Vote"),
    Case("a byte too many", encode_message(GOOD_VOTE) + b"\x00", "Vote"),
    Case("a vote that is too large", b"\x02" + bytes(MAX_EXTENSION_BYTES + 300), "at most"),
    Case("a message that is too large", b"\x01" + bytes(MAX_MESSAGE_BYTES), "at most"),
    Case("a forged vote", replace(GOOD_VOTE, signature=bytes(64)), "wrong signature"),
    Case("a vote under another name", replace(GOOD_VOTE, validator=key_of("c")), "wrong signature"),
    Case("a changed vote", replace(GOOD_VOTE, block_id=id_of("Y")), "wrong signature"),
    Case("a vote of a stranger", vote("s", PREVOTE, 0, "X"), "not a validator"),
    Case("a vote of another chain", vote("b", PREVOTE, 0, "X", chain_id="else"), "wrong signature"),
    Case("a bad extension", vote("b", PRECOMMIT, 0, "X", extension=b"lie"), "bad extension"),
    Case("no extension", vote("b", PRECOMMIT, 0, "X", extension=b""), "bad extension"),
    Case("an extended prevote", vote("b", PREVOTE, 0, "X", extension=b"work"), "extension"),
    Case("an extended nil", vote("b", PRECOMMIT, 0, "nil", extension=b"work"), "extension"),
    Case("a proposal out of turn", proposal("b", 0, "X"), "turn"),
    Case("a proposal of a stranger", proposal("s", 0, "X"), "turn"),
    Case("a proposal of another chain", proposal("a", 0, "X", chain_id="else"), "wrong signature"),
    Case("another block than proposed", with_block(block_of("Y")), "another block id"),
    Case("no block at all", with_block(b"rubbish"), "not a block"),
    Case("a polka without a quorum", proposal("b", 1, "X", 0, POLKA[:2]), "no quorum"),
    Case(
        "a polka with a forged vote",
        proposal("b", 1, "X", 0, [*POLKA[:2], replace(POLKA[2], signature=bytes(64))]),
        "wrong signature",
    ),
    Case(
        "a polka filled up by strangers",
        proposal(
            "b",
            1,
            "X",
            0,
            sorted([*POLKA[:2], vote("s", PREVOTE, 0, "X")], key=lambda v: v.validator),
        ),
        "no quorum",
    ),
    Case("a polka of other votes", proposal("b", 1, "Y", 0, POLKA), "something else"),
    Case("a polka twice the same", proposal("b", 1, "X", 0, POLKA[:1] * 3), "key order"),
    Case("a polka without a round", proposal("b", 1, "X", -1, POLKA), "polka"),
    Case("a round without a polka", proposal("b", 1, "X", 0), "polka"),
    Case("a polka not from before", proposal("a", 0, "X", 0, POLKA), "earlier round"),
    Case("a certificate without a quorum", Decided(commit_of("ab", "X")), "quorum"),
    Case(
        "a forged certificate",
        Decided(replace(commit_of("abc", "X"), round=1)),
        "signature",
    ),
    Case("a certificate of strangers", Decided(commit_of("abs", "X")), "quorum"),
]

REFUSALS = [
    Case("a vote far ahead", vote("b", PREVOTE, 0, "X", height=6), "another height", False),
    Case("a vote long past", vote("b", PREVOTE, 0, "X", height=2), "another height", False),
    Case("a block far ahead", proposal("c", 0, "X", height=6), "another height", False),
    Case("a proposal two rounds ahead", proposal("c", 2, "X"), "too far ahead", False),
    Case("a wish for another height", Want(HEIGHT + 1, 0, b""), "another height", False),
    Case("a wish for what is not here", Want(HEIGHT, 0, b""), "no such proposal", False),
    Case("an old certificate", Decided(commit_of("abc", "X", height=3)), "another height", False),
]


@pytest.mark.parametrize("case", STRIKES + REFUSALS, ids=lambda case: case.about)
def test_it_is_refused_with_a_reason_and_changes_nothing(case: Case) -> None:
    node = Node("d")
    node.demand()
    assert case.reason in node.refuse(case.message)
    assert node.strikes("a") == int(case.is_strike)


def test_sixty_four_strikes_and_a_peer_is_not_heard_until_the_next_height() -> None:
    node = Node("d")
    node.demand()
    forged = replace(GOOD_VOTE, signature=bytes(64))
    for _ in range(MAX_STRIKES):
        assert "wrong signature" in node.refuse(forged, peer="c")
    assert node.refuse(GOOD_VOTE, peer="c") == "not listening"
    assert node.receive(GOOD_VOTE, peer="b") == ["log prevote b 0 X"], "others are heard"
    node.receive(proposal("a", 0, "X"), *votes("abc", PRECOMMIT, 0, "X"))
    node.checked("X")
    node.start(HEIGHT + 1)
    assert node.receive(vote("b", PREVOTE, 0, "Y", height=HEIGHT + 1), peer="c")


def test_repetitions_are_of_no_use_but_no_offence() -> None:
    node = Node("d")
    node.receive(GOOD, GOOD_VOTE)
    for _ in range(MAX_STRIKES + 1):
        assert node.refuse(GOOD_VOTE) == "known"
        assert node.refuse(GOOD) == "known, or an old round"
    assert node.strikes("a") == 0


def test_before_the_first_height_nobody_is_heard() -> None:
    node = Node("d")
    node.driver._current = None
    assert node.driver.receive(key_of("a"), encode_message(GOOD_VOTE), 0) == "not listening"


def test_the_table_of_peers_is_bounded() -> None:
    node = Node("d")
    status = encode_message(Status(HEIGHT, 0, 0, ()))
    peers = [i.to_bytes(32, "big") for i in range(MAX_PEERS + 1)]
    reasons = [node.driver.receive(peer, status, 0) for peer in peers]
    assert reasons == [None] * MAX_PEERS + ["not listening"]


# ---- rounds ahead and behind --------------------------------------------------------------


def test_votes_of_far_rounds_are_not_kept_but_say_where_their_voters_are() -> None:
    node = Node("d")
    node.demand()
    far = ROUNDS_AHEAD + 1
    assert node.receive(vote("a", PREVOTE, far, "X")) == []
    assert node.engine.votes.tallies() == []
    assert node.refuse(vote("a", PRECOMMIT, far, "X")) == "known to be there"
    node.receive(vote("b", PREVOTE, far + 5, "nil"))
    assert node.engine.round == far
    assert "wrong signature" in node.refuse(
        replace(vote("c", PREVOTE, 90, "X"), signature=bytes(64))
    )


def test_votes_of_rounds_within_reach_are_kept() -> None:
    node = Node("d")
    node.demand()
    said = node.receive(vote("a", PREVOTE, ROUNDS_AHEAD, "X"))
    assert said == [f"log prevote a {ROUNDS_AHEAD} X"]


def test_votes_of_rounds_long_past_are_refused() -> None:
    node = Node("d")
    node.receive(*votes("ab", PREVOTE, 20, "nil"))
    assert node.engine.round == 20
    assert node.refuse(vote("a", PREVOTE, 3, "X")) == "an old round"


def test_a_proposal_from_far_ahead_is_taken_if_more_than_a_third_voted_for_it() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    node.holds_signing = True  # so that it stays in round 0
    node.checked("X")
    far = proposal("c", 6, "Y")
    node.receive(vote("a", PREVOTE, 6, "Y"))
    assert node.refuse(far) == "a round too far ahead"
    node.receive(vote("b", PREVOTE, 6, "Y"))
    assert node.engine.round == 0
    assert node.receive(far) == ["log proposal c 6 Y"]


def test_of_the_next_height_a_little_is_kept_for_later() -> None:
    node = Node("d")
    early = HEIGHT + 1
    for message in (
        proposal("b", 0, "Y", height=early),
        vote("a", PREVOTE, 0, "Y", height=early),
        vote("a", PREVOTE, 0, "Z", height=early),
    ):
        assert node.receive(message) == []
    over = vote("a", PREVOTE, 0, "nil", height=early)
    assert node.refuse(over) == "known, or more than is kept"
    late_round = vote("a", PREVOTE, EARLY_ROUNDS, "Y", height=early)
    assert node.refuse(late_round) == "known, or more than is kept"
    assert "not a validator" in node.refuse(vote("s", PREVOTE, 0, "Y", height=early))
    assert "turn" in node.refuse(proposal("a", 0, "Y", height=early))
    forged = replace(vote("b", PREVOTE, 0, "Y", height=early), signature=bytes(64))
    assert "wrong signature" in node.refuse(forged)
    assert node.engine.votes.tallies() == []

    node.receive(GOOD, *votes("abc", PRECOMMIT, 0, "X"))
    assert node.checked("X")[-1] == "decide X of round 0 by abc"
    # the pair of prevotes becomes evidence as soon as the height begins
    assert node.start(early) == [
        "log proposal b 0 Y",
        "log prevote a 0 Y",
        "report a",
        "log prevote a 0 Z",
        "check Y",
    ]


# ---- equivocators -------------------------------------------------------------------------


def test_two_votes_are_reported_once_and_both_count() -> None:
    node = Node("d")
    assert node.receive(*votes("a", PREVOTE, 0, "X")) == ["log prevote a 0 X"]
    assert node.receive(*votes("a", PREVOTE, 0, "Y")) == ["report a", "log prevote a 0 Y"]
    assert node.refuse(vote("a", PREVOTE, 0, "Z")) == "more votes of this validator than are kept"
    assert node.refuse(vote("a", PREVOTE, 0, "X")) == "known"
    assert node.engine.votes.weight(PREVOTE, 0, id_of("X")) == 1
    assert node.engine.votes.weight(PREVOTE, 0, id_of("Y")) == 1
    node.receive(vote("a", PRECOMMIT, 0, "Y"))
    assert "report a" in node.receive(vote("a", PRECOMMIT, 0, "nil")), "another pair"


ONE, TWO = (vote("a", PRECOMMIT, 0, "X", extension=e) for e in (b"one", b"two"))
UNKEPT = "more votes of this validator than are kept"


def test_the_same_block_with_another_extension_is_an_offence_too() -> None:
    node = Node("d", takes_any_extension=True)
    node.receive(ONE)
    assert node.driver.receive(key_of("b"), encode_message(TWO), 0) == UNKEPT
    assert node.begun() == ["report a"]
    assert node.refuse(TWO) == UNKEPT
    assert node.engine.votes.weight(PRECOMMIT, 0, id_of("X")) == 1


def test_forgeries_do_not_hide_an_offence() -> None:
    node = Node("d", takes_any_extension=True)
    node.receive(ONE)
    for _ in range(MAX_REFUSED + 1):
        assert "wrong signature" in node.refuse(replace(TWO, signature=bytes(64)), peer="c")
    assert node.driver.receive(key_of("b"), encode_message(TWO), 0) == UNKEPT
    assert node.begun() == ["report a"]


def test_a_second_vote_that_comes_inside_a_polka_is_reported() -> None:
    node = Node("d")
    node.demand()
    node.receive(vote("a", PREVOTE, 0, "Y"))
    said = node.receive(proposal("b", 1, "X", 0, POLKA))
    assert said == ["report a", "log proposal b 1 X pol 0 by abc"]
    assert node.refuse(POLKA[0]) == "known"


def test_two_proposals_are_reported_once_and_both_are_kept() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    assert node.receive(proposal("a", 0, "Y"))[0] == "report a"
    assert node.engine.knows(id_of("Y"))
    assert node.refuse(proposal("a", 0, "Z")) == "more proposals of this round than are kept"


def test_offences_in_different_rounds_are_reported_each() -> None:
    node = Node("d")
    for round_ in range(3):
        node.receive(vote("a", PREVOTE, round_, "X"))
        assert "report a" in node.receive(vote("a", PREVOTE, round_, "Y"))


# ---- fuzz ---------------------------------------------------------------------------------

ANY_MESSAGE = st.one_of(*(values(kind) for kind in (BlockProposal, Vote, Status, Want, Decided)))


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY_MESSAGE | st.binary(max_size=80), max_size=12))
def test_whatever_comes_nothing_is_raised_signed_or_taken(messages: list[Message | bytes]) -> None:
    node = Node("d", has_signer=False)
    for message in messages:
        data = message if isinstance(message, bytes) else encode_message(message)
        node.driver.receive(key_of("b"), data, 0)
        node.begun()
    assert node.engine.votes.tallies() == []
    assert node.engine.proposals == {}
    assert node.asked == []
