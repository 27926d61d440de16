"""Who has no key, or no longer a seat, follows and decides but never signs."""

import pytest
from agreement_lab import (
    HEIGHT,
    MEMBERS,
    PRECOMMIT,
    PREVOTE,
    TIMEOUTS,
    Node,
    id_of,
    proposal,
    vote,
    votes,
)

from mlchain.consensus.messages import Status
from mlchain.ledger.validators import Validator, ValidatorSet

WITHOUT_D = ValidatorSet(tuple(Validator(key, 1) for key in MEMBERS.keys[:3]))


def watcher(kind: str) -> Node:
    """Return a node that would fail if it were asked to sign."""
    if kind == "observer":
        return Node(None, has_signer=False)
    if kind == "stranger":
        return Node("s", has_signer=False)
    return Node("d", members=WITHOUT_D, height=3, has_signer=False)


KINDS = ["observer", "stranger", "removed"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_decides_with_the_others(kind: str) -> None:
    node = watcher(kind)
    height = node.engine.height
    node.receive(proposal("a", 0, "X", height=height))
    node.driver.checked(id_of("X", height), True, 0)
    node.receive(*votes("abc", PREVOTE, 0, "X", height))
    said = node.receive(*votes("abc", PRECOMMIT, 0, "X", height))
    assert said[-1] == "decide X of round 0 by abc"


@pytest.mark.parametrize("kind", KINDS)
def test_it_neither_proposes_nor_votes_in_any_step_of_any_round(kind: str) -> None:
    node = watcher(kind)
    node.demand()
    for _ in range(20):
        node.sleep(TIMEOUTS.cap_ms)
        round_ = node.engine.round
        for vote_kind in (PREVOTE, PRECOMMIT):
            node.receive(*votes("abc", vote_kind, round_, "nil", node.engine.height))
    assert node.engine.round > 10
    assert node.sent() == node.asked == node.host.synced == []
    assert node.driver.abstained == 0


@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_votes_on(kind: str) -> None:
    node = watcher(kind)
    height = node.engine.height
    node.receive(vote("a", PREVOTE, 0, "X", height=height))
    said = node.receive(Status(height, 0, 0, ()), peer="c")
    assert said == ["to c: prevote a 0 X"]


def test_a_validator_removed_by_a_block_stops_signing_at_the_next_height() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    assert node.checked("X")[-1] == "all: prevote d 0 X"
    node.receive(*votes("abc", PRECOMMIT, 0, "X"))
    node.members = WITHOUT_D
    before = node.sent()
    node.start(HEIGHT + 1)
    node.demand()
    node.sleep(20_000)
    assert node.sent() == before


def test_control_a_validator_with_its_seat_votes_under_the_same_inputs() -> None:
    node = Node("d")
    node.demand()
    node.sleep(TIMEOUTS.cap_ms)
    assert node.sent() != []
    assert node.host.synced != []
