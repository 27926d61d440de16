"""Certificates: how laggards catch up, and how a certificate grows after its decision."""

import pytest
from agreement_lab import (
    CHAIN_ID,
    HEIGHT,
    MEMBERS,
    PRECOMMIT,
    PREVOTE,
    TIMEOUTS,
    Node,
    block_of,
    commit_of,
    id_of,
    key_of,
    proposal,
    vote,
    votes,
)
from msgspec.structs import replace

from mlchain.consensus.effects import Decide, ReportEvidence
from mlchain.consensus.evidence import verify_evidence
from mlchain.consensus.messages import Decided, Status, encode_message
from mlchain.errors import CodecError, InvalidBlock, InvalidSignature, MlchainError
from mlchain.ledger.commit import Commit, verify_commit

AHEAD = Status(HEIGHT + 1, 0, 0, ())


def decided(me: str | None = "d") -> Node:
    """Return a node that decided X by the precommits of a, b and c, and is at the next height."""
    node = Node(me)
    node.receive(proposal("a", 0, "X"), *votes("abc", PRECOMMIT, 0, "X"))
    assert node.checked("X") == ["decide X of round 0 by abc"]
    node.start(HEIGHT + 1)
    return node


def signers(node: Node) -> str:
    commit = node.driver.last_commit()
    assert commit is not None
    verify_commit(commit, "test", MEMBERS, commit.height, commit.block_id)
    return "".join(n for n in "abcd" if key_of(n) in {s.validator for s in commit.signatures})


# ---- a peer that is behind ----------------------------------------------------------------


def test_a_peer_at_the_height_just_decided_is_told_so() -> None:
    node = decided()
    said = node.receive(Status(HEIGHT, 0, 0, ()), peer="c")
    assert said == ["to c: decided X of round 0 by abc"]


def test_it_is_told_already_before_we_begin_the_next_height() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"), *votes("abc", PRECOMMIT, 0, "X"))
    node.checked("X")
    assert "to c: decided X of round 0 by abc" in node.receive(Status(HEIGHT, 0, 0, ()), peer="c")


def test_a_peer_further_behind_has_to_fetch_blocks() -> None:
    assert decided().receive(Status(HEIGHT - 1, 0, 0, ()), peer="c") == []


def test_a_second_precommit_that_comes_after_the_decision_convicts_its_signer_once() -> None:
    node = decided()
    for late in (
        *[vote("c", PRECOMMIT, 0, "nil")] * 2,
        vote("b", PRECOMMIT, 1, "Y"),  # of another round: it may have moved on
        vote("d", PRECOMMIT, 0, "Y"),  # we do not hold what it signed for X, if it did
    ):
        assert node.driver.receive(key_of("a"), encode_message(late), 0) == "height is decided"
        node._pump()
    (found,) = [effect for effect in node.effects if isinstance(effect, ReportEvidence)]
    keys = {key_of(name) for name in "abcd"}
    assert verify_evidence(found.evidence, CHAIN_ID, keys).offender == key_of("c")


# ---- ourselves behind ---------------------------------------------------------------------


def test_a_certificate_decides_if_the_block_is_at_hand_whatever_we_think_of_it() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    said = node.receive(Decided(commit_of("abc", "X", 5)))
    assert said == ["decide X of round 5 by abc"]


def test_a_certificate_for_a_block_not_at_hand_makes_us_fetch_it_from_its_sender() -> None:
    node = Node("d")
    assert node.receive(Decided(commit_of("abc", "X")), peer="b") == ["fetch from b at 4"]


def test_a_peer_that_stays_ahead_is_asked_for_blocks_from_the_second_interval_on() -> None:
    node = Node("d")
    for peer in "ab":
        node.receive(AHEAD, peer=peer)
    assert node.sleep(TIMEOUTS.gossip_ms) == []
    fetches = [node.sleep(TIMEOUTS.gossip_ms) for _ in range(4)]
    assert sorted(f for [f] in fetches) == ["fetch from a at 4"] * 2 + ["fetch from b at 4"] * 2
    assert fetches[0] != fetches[1], "each time another peer"


def test_nobody_is_asked_for_blocks_once_the_height_is_decided() -> None:
    node = Node("d")
    node.receive(AHEAD, peer="a")
    node.synced("X", commit_of("abc", "X"))
    assert node.sleep(5 * TIMEOUTS.gossip_ms) == []


def test_a_fetched_block_with_its_certificate_decides_the_height() -> None:
    node = Node("d")
    commit = commit_of("bcd", "X", 3)
    assert node.driver.synced(block_of("X"), commit, 0) is True
    assert node.begun() == ["decide X of round 3 by bcd"]
    decision = node.effects[-1]
    assert isinstance(decision, Decide)
    wanted = (HEIGHT, id_of("X"), block_of("X"), commit)
    assert (decision.height, decision.block_id, decision.block, decision.commit) == wanted
    assert node.driver.last_commit() == commit
    assert node.driver.synced(block_of("X"), commit, 0) is False, "it is decided"


@pytest.mark.parametrize("height", [HEIGHT - 1, HEIGHT + 1])
def test_a_fetched_block_of_another_height_is_left_alone(height: int) -> None:
    node = Node("d")
    assert node.driver.synced(block_of("X", height), commit_of("abc", "X", 0, height), 0) is False
    assert node.begun() == []


FORGED = replace(commit_of("abc", "X"), round=2)


@pytest.mark.parametrize(
    ("about", "block", "commit", "error"),
    [
        ("no quorum", block_of("X"), commit_of("ab", "X"), InvalidBlock),
        ("a stranger", block_of("X"), commit_of("abs", "X"), InvalidBlock),
        ("a vote twice", block_of("X"), commit_of("aab", "X"), InvalidBlock),
        ("forged", block_of("X"), FORGED, InvalidSignature),
        ("another block", block_of("Y"), commit_of("abc", "X"), InvalidBlock),
        ("no block", b"rubbish", commit_of("abc", "X"), CodecError),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_false_certificate_or_block_names_a_liar_and_decides_nothing(
    about: str, block: bytes, commit: Commit, error: type[MlchainError]
) -> None:
    node = Node("d")
    with pytest.raises(error):
        node.driver.synced(block, commit, 0)
    assert node.begun() == []
    assert not node.engine.decided
    assert node.driver.last_commit() is None


def test_what_was_not_decided_by_this_height_s_members_is_no_certificate() -> None:
    node = Node("d", members=type(MEMBERS)(MEMBERS.validators[1:]))
    with pytest.raises(InvalidBlock):
        node.driver.synced(block_of("X"), commit_of("abc", "X"), 0)


# ---- the certificate after the decision ---------------------------------------------------


def test_precommits_that_come_late_join_the_certificate() -> None:
    node = decided()
    assert signers(node) == "abc"
    assert node.receive(vote("d", PRECOMMIT, 0, "X")) == []
    assert signers(node) == "abcd"
    commit = node.driver.last_commit()
    assert commit is not None
    assert [s.extension for s in commit.signatures] == [b"work"] * 4


def test_they_join_between_the_decision_and_the_next_height_too() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"), *votes("abc", PRECOMMIT, 0, "X"))
    node.checked("X")
    node.receive(vote("d", PRECOMMIT, 0, "X"))
    node.start(HEIGHT + 1)
    assert signers(node) == "abcd"


@pytest.mark.parametrize(
    ("about", "late", "reason", "strikes"),
    [
        ("forged", replace(vote("d", PRECOMMIT, 0, "X"), signature=bytes(64)), "wrong", 1),
        ("bad extension", vote("d", PRECOMMIT, 0, "X", extension=b"lie"), "bad extension", 1),
        ("a stranger", vote("s", PRECOMMIT, 0, "X"), "not a validator", 1),
        ("known", vote("a", PRECOMMIT, 0, "X"), "known", 0),
        ("a prevote", vote("d", PREVOTE, 0, "X"), "height is decided", 0),
        ("nil", vote("d", PRECOMMIT, 0, "nil"), "height is decided", 0),
        ("another block", vote("d", PRECOMMIT, 0, "Y"), "height is decided", 0),
        ("another round", vote("d", PRECOMMIT, 1, "X"), "height is decided", 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_else_joins_it(about: str, late: object, reason: str, strikes: int) -> None:
    node = decided()
    assert reason in node.refuse(late)  # type: ignore[arg-type]
    assert signers(node) == "abc"
    assert node.strikes("a") == strikes


def test_the_stored_certificate_of_a_restarted_node_serves_but_does_not_grow() -> None:
    stored = commit_of("abc", "X")
    node = Node("d", height=HEIGHT + 1, last_commit=stored)
    assert node.driver.last_commit() == stored
    assert node.refuse(vote("d", PRECOMMIT, 0, "X")) == "height is decided"
    said = node.receive(Status(HEIGHT, 0, 0, ()), peer="c")
    assert said == ["to c: decided X of round 0 by abc"]


def test_before_the_first_block_there_is_no_certificate() -> None:
    assert Node("d", height=1).driver.last_commit() is None


def test_a_certificate_belongs_to_the_height_before_and_to_no_other() -> None:
    node = decided()
    node.driver.start(HEIGHT + 3, MEMBERS, 0)
    assert node.driver.last_commit() is None


def test_messages_after_a_decision_and_before_the_next_height_change_nothing() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"), *votes("abc", PRECOMMIT, 0, "X"))
    node.checked("X")
    for late in (vote("d", PREVOTE, 0, "X"), proposal("b", 1, "Y"), Decided(commit_of("abc", "X"))):
        reason = node.driver.receive(key_of("a"), encode_message(late), 0)
        assert reason in ("another height", "height is decided")
    node.demand()
    assert node.sleep(10_000) == []
