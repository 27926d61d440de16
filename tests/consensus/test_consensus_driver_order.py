"""Persist, then sign, then send: the order of effects for everything a validator signs."""

import pytest
from agreement_lab import (
    HEIGHT,
    PRECOMMIT,
    PREVOTE,
    Host,
    Node,
    block_of,
    id_of,
    key_of,
    proposal,
    vote,
    votes,
)

from mlchain.consensus.effects import Broadcast, Persist, SignMessage
from mlchain.consensus.journal import Intent, decode_entry
from mlchain.consensus.messages import BlockProposal, Status, decode_message
from mlchain.consensus.safety import SignRequest
from mlchain.ledger.commit import Vote


def locked_on_x(me: str = "d") -> Node:
    node = Node(me)
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    node.receive(*votes("abc".replace(me, "d"), PREVOTE, 0, "X"))
    assert node.lock == (0, id_of("X"))
    return node


def test_a_proposal_is_logged_synced_signed_and_then_sent() -> None:
    node = Node("a")
    assert node.demand() == ["build 0"]
    assert node.built("X") == [
        "log intent proposal 0 X, synced",
        "sign proposal 0 X",
        "log proposal a 0 X",
        "all: proposal a 0 X",
        "log intent prevote 0 X, synced",
        "sign prevote 0 X",
        "log prevote a 0 X",
        "all: prevote a 0 X",
    ]


def test_a_prevote_is_logged_synced_signed_and_then_sent() -> None:
    node = Node("d")
    assert node.receive(proposal("a", 0, "X")) == ["log proposal a 0 X", "check X"]
    assert node.checked("X") == [
        "log intent prevote 0 X, synced",
        "sign prevote 0 X",
        "log prevote d 0 X",
        "all: prevote d 0 X",
    ]


def test_a_precommit_is_logged_behind_the_polka_of_its_lock() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    assert node.receive(*votes("ab", PREVOTE, 0, "X")) == [
        "log prevote a 0 X",
        "log prevote b 0 X",
        "log intent precommit 0 X, synced",
        "sign precommit 0 X",
        "log precommit d 0 X",
        "all: precommit d 0 X",
    ]
    synced = [decode_entry(record) for record in node.host.synced]
    polka = [e.validator for e in synced if isinstance(e, Vote) and e.kind == PREVOTE]
    assert polka == [key_of(name) for name in "dab"]
    intent = synced[-1]
    assert isinstance(intent, Intent)
    assert (intent.snapshot.locked_round, intent.snapshot.locked_id) == (0, id_of("X"))
    assert (intent.snapshot.valid_round, intent.snapshot.valid_id) == (0, id_of("X"))


def test_precommits_for_nil_and_prevotes_carry_no_extension() -> None:
    node = Node("d")
    node.demand()
    node.sleep(1000)
    node.receive(*votes("ab", PREVOTE, 0, "nil"))
    node.receive(*votes("ab", PRECOMMIT, 0, "nil"))
    sent = [decode_message(data) for data in node.sent()]
    assert [(v.kind, v.block_id, v.extension) for v in sent if isinstance(v, Vote)] == [
        (PREVOTE, b"", b""),
        (PRECOMMIT, b"", b""),
    ]


def test_a_precommit_for_a_block_carries_the_extension_of_the_host() -> None:
    node = locked_on_x()
    precommit = decode_message(node.sent()[-1])
    assert isinstance(precommit, Vote)
    assert (precommit.kind, precommit.extension) == (PRECOMMIT, b"work")


def test_an_old_value_is_proposed_together_with_its_polka() -> None:
    node = locked_on_x("b")
    node.receive(*votes("cd", PRECOMMIT, 0, "nil"))
    assert node.sleep(500) == [
        "log intent proposal 1 X pol 0, synced",
        "sign proposal 1 X pol 0",
        "log proposal b 1 X pol 0 by abcd",
        "all: proposal b 1 X pol 0 by abcd",
        "log intent prevote 1 X, synced",
        "sign prevote 1 X",
        "log prevote b 1 X",
        "all: prevote b 1 X",
    ]
    sent = decode_message(node.sent()[-2])
    assert isinstance(sent, BlockProposal)
    assert sent.block == block_of("X")


def test_nothing_of_our_own_leaves_before_it_is_on_disk_and_signed() -> None:
    """The same, for every message of a whole height, as an invariant."""
    node = locked_on_x("b")
    node.receive(*votes("cd", PRECOMMIT, 0, "nil"))
    node.sleep(500)
    node.receive(*votes("acd", PREVOTE, 1, "X"))
    assert node.receive(*votes("ac", PRECOMMIT, 1, "X"))[-1] == "decide X of round 1 by abc"
    written: list[SignRequest] = []
    asked: list[tuple[int, int]] = []
    for effect in node.effects:
        if isinstance(effect, Persist):
            entry = decode_entry(effect.record)
            assert effect.sync == isinstance(entry, Intent)
            written += [entry.request] if isinstance(entry, Intent) else []
        elif isinstance(effect, SignMessage):
            assert effect.request == written[-1]
            asked.append((effect.request.kind, effect.request.round))
        elif isinstance(effect, Broadcast):
            message = decode_message(effect.message)
            if isinstance(message, Vote):
                assert (message.kind, message.round) == asked[-1]
            elif not isinstance(message, Status):
                assert isinstance(message, BlockProposal)
                assert (0, message.proposal.round) == asked[-1]
    assert asked == [(PREVOTE, 0), (PRECOMMIT, 0), (0, 1), (PREVOTE, 1), (PRECOMMIT, 1)]


# ---- the signer's answer ------------------------------------------------------------------


def test_until_the_signature_comes_no_rule_is_applied_but_messages_are_heard() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    node.holds_signing = True
    assert node.checked("X") == ["log intent prevote 0 X, synced", "sign prevote 0 X"]
    heard = node.receive(*votes("abc", PREVOTE, 0, "X"), *votes("abc", PRECOMMIT, 0, "X"))
    assert [line.split()[0] for line in heard] == ["log"] * 6
    node.holds_signing = False
    node.driver.sign(SignRequest(PREVOTE, HEIGHT, 0, id_of("X"), -1, b""), node.now)
    assert node.begun() == [
        "log prevote d 0 X",
        "all: prevote d 0 X",
        "decide X of round 0 by abc",
    ]


def test_a_signature_that_was_not_asked_for_is_not_used() -> None:
    node = Node("d")
    node.driver.sign(SignRequest(PREVOTE, HEIGHT, 0, id_of("X"), -1, b""), node.now)
    assert node.begun() == []
    assert node.engine.votes.tallies() == []


def test_when_the_signer_refuses_nothing_is_sent_and_agreement_goes_on_without_us() -> None:
    host = Host()
    first = Node("d", host)
    first.demand()
    first.sleep(1000)  # signs nil in round 0
    host.synced = []  # the log is lost, the last signature is not
    node = Node("d", host)
    node.receive(proposal("a", 0, "X"))
    assert node.checked("X") == ["log intent prevote 0 X, synced", "sign prevote 0 X"]
    assert node.driver.abstained == 1
    decided = node.receive(*votes("abc", PRECOMMIT, 0, "X"))
    assert decided[-1] == "decide X of round 0 by abc"
    assert node.sent() == []


def test_after_losing_its_log_a_validator_takes_part_again_from_the_next_round_on() -> None:
    host = Host()
    first = Node("d", host)
    first.demand()
    first.sleep(1000)
    host.synced = []
    node = Node("d", host)
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    node.receive(*votes("abc", PRECOMMIT, 0, "nil"))
    node.sleep(500)
    assert node.receive(proposal("b", 1, "X"))[-1] == "all: prevote d 1 X"


def test_an_error_of_the_signer_that_is_no_refusal_reaches_the_host() -> None:
    class DiskFull(Exception):
        pass

    node = Node("d")

    def fail(request: SignRequest) -> bytes:
        raise DiskFull

    node.driver._sign = fail
    node.receive(proposal("a", 0, "X"))
    with pytest.raises(DiskFull):
        node.checked("X")
    assert node.sent() == []


# ---- the host's answers -------------------------------------------------------------------


def test_a_block_built_too_late_is_not_proposed() -> None:
    node = Node("a")
    node.demand()
    node.sleep(1000)
    assert node.engine.step > 0
    assert node.built("X") == []


def test_with_nothing_to_propose_the_round_runs_into_its_timeout() -> None:
    node = Node("a")
    node.demand()
    node.driver.built(HEIGHT, 0, None, b"", node.now)
    assert node.begun() == []
    assert node.sleep(1000)[-1] == "all: prevote a 0 nil"


def test_a_second_block_built_for_a_round_is_not_proposed() -> None:
    node = Node("a")
    node.demand()
    assert "all: proposal a 0 X" in node.built("X")
    assert node.built("Y") == []


def test_a_verdict_on_an_unknown_block_is_ignored() -> None:
    node = Node("d")
    node.demand()
    assert node.checked("X") == []
    assert node.receive(proposal("a", 0, "X"))[-1] == "check X", "it is still to be checked"


def test_a_veto_gives_a_prevote_for_nil_and_follows_the_quorum() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    assert node.checked("X", wanted=False)[-1] == "all: prevote d 0 nil"
    assert node.receive(*votes("abc", PREVOTE, 0, "X"))[-1] == "all: precommit d 0 X"


def test_timers_are_set_by_the_round_and_cleared_by_the_decision() -> None:
    node = Node("d")
    node.driver._gossip_at = None
    assert node.driver.next_timer() is None
    node.demand()
    assert node.driver.next_timer() == 1000
    node.receive(*votes("ab", PREVOTE, 3, "nil"))
    assert node.engine.round == 3
    assert sorted(node.driver._timers.values()) == [1000, 1300]
    node.receive(*votes("abc", PRECOMMIT, 3, "X"), proposal("d", 3, "X"))
    assert node.checked("X") == ["decide X of round 3 by abc"]
    assert node.driver.next_timer() is None


def test_a_verdict_on_a_block_dropped_in_the_meantime_serves_when_the_block_returns() -> None:
    """Checking may take longer than a few rounds; nobody would ask for it again."""
    node = Node("d")
    assert "check X" in node.receive(proposal("a", 0, "X"))
    node.receive(*votes("ab", PREVOTE, 4, "nil"))
    node.sleep(200)
    assert not node.engine.knows(id_of("X"))
    assert node.checked("X") == []
    polka = votes("abc", PREVOTE, 0, "X")
    said = node.receive(proposal("a", 4, "X", 0, polka))
    assert said[-1] == "all: prevote d 4 X"


def test_a_proposal_that_waits_for_the_signature_before_it_is_made_all_the_same() -> None:
    """Two timers fall due together: c precommits nil in round 1, and proposes X in round 2."""
    node = Node("c")
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    node.receive(*votes("ab", PREVOTE, 0, "X"), *votes("ab", PRECOMMIT, 0, "nil"))
    node.sleep(600)
    node.receive(proposal("b", 1, "Y"))
    node.checked("Y")
    node.receive(vote("a", PREVOTE, 1, "nil"), vote("b", PREVOTE, 1, "Y"))
    node.receive(*votes("abd", PRECOMMIT, 1, "nil"))
    node.now += 700  # both were due, in one moment that was slow to come
    node.driver.handle_timer(node.now)
    said = node._pump()
    assert "all: precommit c 1 nil" in said
    assert "all: proposal c 2 X pol 0 by abc" in said
