"""Nothing is assumed to have arrived: statuses, what they bring, and asking for blocks."""

import pytest
from agreement_lab import (
    HEIGHT,
    PRECOMMIT,
    PREVOTE,
    TIMEOUTS,
    Node,
    block_of,
    id_of,
    key_of,
    proposal,
    vote,
    votes,
)

from mlchain.consensus.effects import Broadcast, Send
from mlchain.consensus.gossip import LISTED_ROUNDS, MAX_ANSWER_VOTES, make_status, missing_votes
from mlchain.consensus.messages import (
    MAX_STATUS_ENTRIES,
    BlockProposal,
    Have,
    Status,
    Want,
    decode_message,
    encode_message,
)

NOTHING = Status(HEIGHT, 0, 0, ())
HALF_MS = TIMEOUTS.gossip_ms // 2


def bits(names: str) -> bytes:
    return bytes([sum(1 << "abcd".index(name) for name in names)])


def last_status(node: Node) -> Status:
    messages = [decode_message(e.message) for e in node.effects if isinstance(e, Broadcast)]
    return [m for m in messages if isinstance(m, Status)][-1]


# ---- statuses -----------------------------------------------------------------------------


def test_a_status_is_sent_at_every_gossip_interval() -> None:
    node = Node("d")
    assert node.sleep(3 * TIMEOUTS.gossip_ms, quiet=False) == ["all: status 4 -1 propose"] * 3
    node.demand()
    assert node.sleep(TIMEOUTS.gossip_ms, quiet=False) == ["all: status 4 0 propose"]


def test_a_status_lists_every_vote_held_by_round_kind_and_value() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    node.receive(vote("a", PREVOTE, 0, "X"), vote("a", PREVOTE, 0, "Y"))
    node.receive(vote("c", PRECOMMIT, 1, "nil"))
    node.sleep(TIMEOUTS.gossip_ms)
    status = last_status(node)
    assert (status.height, status.round, status.step) == (HEIGHT, 0, PREVOTE)
    wanted = {
        Have(PRECOMMIT, 1, b"", bits("c")),
        Have(PREVOTE, 0, id_of("X"), bits("ad")),
        Have(PREVOTE, 0, id_of("Y"), bits("a")),
    }
    assert set(status.have) == wanted and len(status.have) == len(wanted)


def test_a_status_lists_the_newest_rounds_and_those_of_lock_and_valid_value() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    node.receive(*votes("ab", PREVOTE, 0, "X"))
    for round_ in range(1, 13):
        node.receive(*votes("ab", PREVOTE, round_, "nil"))
    rounds = [have.round for have in make_status(node.engine).have]
    newest = list(range(12, 12 - LISTED_ROUNDS, -1))
    assert sorted(set(rounds), reverse=True) == [*newest, 0]


def test_a_vote_for_a_later_round_hides_no_votes_of_this_one() -> None:
    node, other = Node("d"), Node("d")
    for one in (node, other):
        one.receive(proposal("a", 0, "X"))
        one.checked("X")
        one.receive(*votes("ab", PREVOTE, 0, "X"))
    node.receive(vote("c", PREVOTE, LISTED_ROUNDS + 1, "Y"))
    status = make_status(node.engine)
    assert [have.round for have in status.have] == [0, 0, LISTED_ROUNDS + 1]
    assert missing_votes(other.engine, status) == []


def test_a_status_is_bounded_whatever_equivocators_do() -> None:
    node = Node("d")
    for round_ in range(LISTED_ROUNDS):
        for name, blocks in (("a", "WX"), ("b", "YZ"), ("c", ["nil"])):
            for block in blocks:
                for kind in (PREVOTE, PRECOMMIT):
                    node.engine.add_vote(vote(name, kind, round_, block))
    assert len(node.engine.votes.tallies()) > MAX_STATUS_ENTRIES
    status = make_status(node.engine)
    assert len(status.have) == MAX_STATUS_ENTRIES
    assert decode_message(encode_message(status)) == status


# ---- answers ------------------------------------------------------------------------------


def test_a_status_is_answered_with_everybody_s_votes_that_its_sender_lacks() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    node.receive(vote("a", PREVOTE, 0, "X"), vote("b", PREVOTE, 0, "nil"))
    have = (Have(PREVOTE, 0, id_of("X"), bits("c")), Have(PREVOTE, 0, b"", bits("b")))
    assert sorted(node.receive(Status(HEIGHT, 0, 1, have), peer="c")) == [
        "to c: prevote a 0 X",
        "to c: prevote d 0 X",
    ]


def test_both_votes_of_an_equivocator_are_passed_on() -> None:
    node = Node("d")
    node.receive(vote("a", PREVOTE, 0, "X"), vote("a", PREVOTE, 0, "Y"))
    have = (Have(PREVOTE, 0, id_of("X"), bits("a")),)
    assert node.receive(Status(HEIGHT, 0, 1, have), peer="c") == ["to c: prevote a 0 Y"]


def test_who_has_everything_is_sent_nothing() -> None:
    node, other = Node("d"), Node("c")
    for each in (node, other):
        each.receive(*votes("abc", PREVOTE, 0, "X"), vote("a", PREVOTE, 0, "Y"))
    assert node.receive(make_status(other.engine), peer="c") == []


def test_a_peer_at_another_height_is_sent_no_votes() -> None:
    node = Node("d")
    node.receive(*votes("abc", PREVOTE, 0, "X"))
    assert node.receive(Status(HEIGHT + 1, 0, 0, ()), peer="c") == []


def test_votes_of_this_and_the_last_round_and_of_the_lock_are_sent() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    node.receive(*votes("ab", PREVOTE, 0, "X"))
    for round_ in (1, 2, 3):
        node.receive(*votes("bc", PREVOTE, round_, "nil"))
    assert (node.engine.round, node.lock) == (3, (0, id_of("X")))
    sent = node.receive(NOTHING, peer="c")
    rounds = [int(line.split()[4]) for line in sent]
    assert rounds == sorted(rounds, reverse=True), "newest first"
    assert set(rounds) == {3, 2, 0}
    assert "to c: prevote a 0 X" in sent


def test_one_answer_holds_a_bounded_number_of_votes() -> None:
    node = Node("d")
    for round_ in range(10):
        for name in "abcd":
            for kind in (PREVOTE, PRECOMMIT):
                node.engine.add_vote(vote(name, kind, round_, "X"))
                node.engine.add_vote(vote(name, kind, round_, "Y"))
    node.engine.round = 1
    assert len(missing_votes(node.engine, NOTHING)) == MAX_ANSWER_VOTES


def test_a_peer_is_answered_twice_in_a_gossip_interval_at_most() -> None:
    node = Node("d")
    node.receive(vote("a", PREVOTE, 0, "X"))
    assert node.receive(NOTHING, peer="c") == ["to c: prevote a 0 X"]
    assert node.refuse(NOTHING, peer="c") == "answered a moment ago"
    assert node.receive(NOTHING, peer="b") == ["to b: prevote a 0 X"], "others are"
    node.now += HALF_MS - 1
    assert node.refuse(NOTHING, peer="c") == "answered a moment ago"
    node.now += 1
    assert node.receive(NOTHING, peer="c") == ["to c: prevote a 0 X"]
    assert node.strikes("c") == 0


def test_two_nodes_that_exchange_statuses_come_to_hold_the_same_votes() -> None:
    left, right = Node("c"), Node("d")
    left.receive(vote("a", PREVOTE, 0, "X"), vote("b", PREVOTE, 0, "Y"))
    right.receive(vote("a", PREVOTE, 0, "Y"), vote("b", PRECOMMIT, 0, "nil"))
    for asker, answerer, name in ((left, right, "c"), (right, left, "d")):
        answerer.effects.clear()
        answerer.receive(make_status(asker.engine), peer=name)
        for effect in answerer.effects:
            if isinstance(effect, Send):
                asker.driver.receive(key_of(name), effect.message, 0)
        asker.begun()
    assert left.engine.votes.tallies() == right.engine.votes.tallies()
    assert missing_votes(left.engine, make_status(right.engine)) == []
    assert len(left.engine.votes.tallies()) == 3


# ---- blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["X", "nil"])
def test_a_wish_is_answered_with_the_proposal(wanted: str) -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    assert node.receive(Want(HEIGHT, 0, id_of(wanted)), peer="c") == ["to c: proposal a 0 X"]
    sent = [e for e in node.effects if isinstance(e, Send)][-1]
    answer = decode_message(sent.message)
    assert isinstance(answer, BlockProposal) and answer.block == block_of("X")
    assert node.refuse(Want(HEIGHT, 0, id_of(wanted)), peer="c") == "answered a moment ago"


def test_a_wish_for_a_block_is_answered_with_the_proposal_of_another_round_if_need_be() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    assert node.receive(Want(HEIGHT, 7, id_of("X")), peer="c") == ["to c: proposal a 0 X"]
    node.now += HALF_MS
    assert node.refuse(Want(HEIGHT, 7, b""), peer="c") == "no such proposal"


def test_a_block_with_more_than_a_third_behind_it_is_asked_for_of_one_peer_after_another() -> None:
    node = Node("d")
    for peer in "abc":
        node.receive(NOTHING, peer=peer)
    node.receive(vote("a", PREVOTE, 0, "X"))
    assert node.sleep(TIMEOUTS.gossip_ms) == []
    node.receive(vote("b", PREVOTE, 0, "X"))
    asked = [node.sleep(TIMEOUTS.gossip_ms) for _ in range(3)]
    assert sorted(asked) == [[f"to {peer}: want 0 X"] for peer in "abc"]
    node.receive(proposal("a", 0, "X"))
    assert node.sleep(TIMEOUTS.gossip_ms) == []


def test_only_peers_at_the_same_height_are_asked() -> None:
    node = Node("d")
    node.receive(Status(HEIGHT - 1, 0, 0, ()), peer="a")
    node.receive(NOTHING, peer="c")
    node.receive(*votes("ab", PREVOTE, 0, "X"))
    assert [node.sleep(TIMEOUTS.gossip_ms) for _ in range(2)] == [["to c: want 0 X"]] * 2


def test_a_round_without_a_proposal_asks_for_any_once_it_is_a_gossip_interval_old() -> None:
    node = Node("d")
    node.receive(NOTHING, peer="c")
    node.demand()
    assert node.sleep(TIMEOUTS.gossip_ms) == []
    assert node.sleep(TIMEOUTS.gossip_ms) == ["to c: want 0 nil"]
    node.receive(proposal("a", 0, "X"))
    assert node.sleep(TIMEOUTS.gossip_ms) == []


def test_who_waits_for_demand_asks_for_nothing() -> None:
    node = Node("d")
    node.receive(NOTHING, peer="c")
    assert node.sleep(5 * TIMEOUTS.gossip_ms) == []


def test_nil_is_not_a_block_to_ask_for() -> None:
    node = Node("d")
    node.receive(NOTHING, peer="c")
    node.receive(proposal("a", 0, "X"), *votes("abc", PREVOTE, 0, "nil"))
    assert not any("want" in line for line in node.sleep(3 * TIMEOUTS.gossip_ms))


def test_of_several_blocks_not_at_hand_the_newest_is_asked_for() -> None:
    node = Node("d")
    node.receive(NOTHING, peer="c")
    node.receive(*votes("ab", PREVOTE, 0, "X"), *votes("ab", PREVOTE, 1, "Y"))
    assert node.sleep(TIMEOUTS.gossip_ms) == ["to c: want 1 Y"]
