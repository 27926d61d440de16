"""A crash between any two effects: the same lock, the same round, the same bytes signed again."""

from collections.abc import Callable

import pytest
from agreement_lab import (
    CHAIN_ID,
    HEIGHT,
    PRECOMMIT,
    PREVOTE,
    SECRETS,
    Host,
    Node,
    block_of,
    commit_of,
    describe,
    id_of,
    proposal,
    vote,
    votes,
)

from mlchain.consensus.effects import Effect, Persist, SignMessage
from mlchain.consensus.evidence import DuplicateProposal, DuplicateVote
from mlchain.consensus.journal import Intent, decode_entry, noted_entry
from mlchain.consensus.messages import (
    BlockProposal,
    Proposal,
    Status,
    decode_message,
    encode_message,
)
from mlchain.consensus.safety import Signer
from mlchain.errors import StoreCorrupted
from mlchain.ledger.commit import Vote

Input = Callable[[Node], object]


def hear(*messages: Vote | BlockProposal) -> Input:
    return lambda node: node.receive(*messages)


def on_time(ms: int) -> Input:
    return lambda node: node.sleep(ms)


FOLLOWER: list[Input] = [
    hear(proposal("a", 0, "X")),
    lambda node: node.checked("X"),
    hear(*votes("ab", PREVOTE, 0, "X")),
    hear(*votes("ab", PRECOMMIT, 0, "nil")),
    on_time(600),
    hear(proposal("b", 1, "Y")),
    hear(*votes("bc", PREVOTE, 1, "nil")),
    hear(*votes("bc", PRECOMMIT, 1, "nil")),
]
"""d locks X in round 0, prevotes nil for Y in round 1, and precommits nil there."""

PROPOSER: list[Input] = [
    lambda node: node.demand(),
    lambda node: node.built("X"),
    hear(*votes("bc", PREVOTE, 0, "X")),
    hear(*votes("bc", PRECOMMIT, 0, "nil")),
    on_time(600),
    hear(*votes("bcd", PREVOTE, 1, "nil")),
    on_time(600),
]
"""a proposes X, locks it, and goes on to round 1."""


class Crash(Exception):
    """The process ends here."""


class Fragile(Node):
    """A node whose process ends before its n-th effect is executed."""

    def __init__(self, me: str, host: Host, effects_left: int) -> None:
        self.left = effects_left
        super().__init__(me, host)

    def execute(self, effect: Effect) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1
        super().execute(effect)


def run_until_crash(me: str, script: list[Input], at: int) -> tuple[Fragile, bool]:
    node = Fragile(me, Host(), at)
    try:
        for step in script:
            step(node)
    except Crash:
        node.effects.pop()  # it was listed, but not executed
        return node, True
    return node, False


def last_intent(records: list[bytes]) -> Intent | None:
    entries = [decode_entry(record) for record in records]
    return next((e for e in reversed(entries) if isinstance(e, Intent)), None)


def crash_points(me: str, script: list[Input]) -> int:
    return len(run_until_crash(me, script, 10_000)[0].effects)


def contradictions(messages: list[bytes]) -> list[DuplicateVote | DuplicateProposal]:
    """Return every pair with which somebody could convict the author of `messages`."""
    first: dict[tuple[int, int], Vote | Proposal] = {}
    pairs: list[DuplicateVote | DuplicateProposal] = []
    for data in messages:
        message = decode_message(data)
        if isinstance(message, Vote):
            one = first.setdefault((message.kind, message.round), message)
            if isinstance(one, Vote) and one != message:
                pairs.append(DuplicateVote(one, message))
        elif isinstance(message, BlockProposal):
            head = message.proposal
            one = first.setdefault((0, head.round), head)
            if isinstance(one, Proposal) and one != head:
                pairs.append(DuplicateProposal(one, head))
    return pairs


ALL = [(me, script, keeps) for me, script in (("d", FOLLOWER), ("a", PROPOSER)) for keeps in (0, 1)]
IDS = ["follower, tail lost", "follower", "proposer, tail lost", "proposer"]


@pytest.mark.parametrize(("me", "script", "keeps_tail"), ALL, ids=IDS)
def test_after_a_crash_at_any_point_it_stands_where_its_last_signature_left_it(
    me: str, script: list[Input], keeps_tail: int
) -> None:
    seen = set()
    for at in range(crash_points(me, script)):
        before, crashed = run_until_crash(me, script, at)
        assert crashed
        host = before.host
        host.synced += host.unsynced * keeps_tail
        host.unsynced = []
        after = Node(me, host)
        assert after.engine.height == HEIGHT
        intent = last_intent(host.synced)
        after.begun()
        if intent is None:
            assert (after.lock, after.sent()) == ((-1, b""), [])
            continue
        snapshot = intent.snapshot
        seen.add((snapshot.round, snapshot.step, snapshot.locked_round))
        assert after.lock == (snapshot.locked_round, snapshot.locked_id)
        assert after.engine.valid_id == snapshot.valid_id
        # votes noted behind the last signature may prove that the others are further
        assert after.engine.round == snapshot.round or (keeps_tail and after.engine.round == 1)
        if snapshot.locked_round >= 0:
            assert after.engine.votes.has_quorum(PREVOTE, 0, id_of("X")), "the polka of the lock"
            assert after.engine.knows(id_of("X")), "the block of the lock"
        assert contradictions(before.sent() + after.sent()) == []
    assert {step for _, step, _ in seen} >= {PREVOTE, PRECOMMIT}
    assert {locked for _, _, locked in seen} == {-1, 0}


@pytest.mark.parametrize(("me", "script", "keeps_tail"), ALL, ids=IDS)
def test_what_may_not_have_left_is_signed_again_to_the_same_bytes(
    me: str, script: list[Input], keeps_tail: int
) -> None:
    """Whatever was asked of the signer before the crash is sent after it, if not before."""
    whole = run_until_crash(me, script, 10_000)[0].sent()
    for at in range(crash_points(me, script)):
        before, _ = run_until_crash(me, script, at)
        host = before.host
        host.synced += host.unsynced * keeps_tail
        after = Node(me, host)
        after.begun()
        sent = before.sent() + [m for m in after.sent() if m not in before.sent()]
        assert sent[: len(whole)] == whole[: len(sent)], f"after a crash at effect {at}"
        if last_intent(host.synced) is not None and not keeps_tail:
            wanted = sum(isinstance(decode_entry(r), Intent) for r in host.synced)
            assert len(sent) >= wanted, "each intent on disk became a message"


def test_after_any_crash_the_height_is_still_decided() -> None:
    for at in range(crash_points("d", FOLLOWER)):
        before, _ = run_until_crash("d", FOLLOWER, at)
        node = Node("d", before.host)
        node.begun()
        # the others repeat what they have, as gossip would
        for message in (proposal("a", 0, "X"), *votes("abc", PRECOMMIT, 0, "X")):
            node.driver.receive(b"peer" * 8, encode_message(message), node.now)
        said = node.begun() + node.checked("X")
        assert said[-1].startswith("decide X of round 0 by abc"), f"after a crash at effect {at}"


def test_control_without_its_log_and_last_signature_it_contradicts_itself() -> None:
    node = Node("d")
    for step in FOLLOWER[:2]:
        step(node)
    other = Node("d", Host())  # both are lost
    other.demand()
    other.sleep(1000)
    assert len(contradictions(node.sent() + other.sent())) == 1


def test_a_recovered_validator_does_not_prevote_against_its_lock() -> None:
    node = Node("d")
    for step in FOLLOWER[:3]:
        step(node)
    again = Node("d", node.host)
    again.begun()
    again.receive(*votes("ab", PRECOMMIT, 0, "nil"))
    again.sleep(600)
    assert again.receive(proposal("b", 1, "Y"))[-1] == "all: prevote d 1 nil"


def test_the_precommit_that_is_signed_again_has_the_extension_it_had() -> None:
    node = Node("d", extension=b"work")
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    node.holds_signing = True  # the crash comes before the signer answers
    node.receive(*votes("ab", PREVOTE, 0, "X"))
    again = Node("d", node.host, extension=b"something else by now")
    assert again.begun() == [
        "sign precommit 0 X",
        "log precommit d 0 X",
        "all: precommit d 0 X",
        "check X",
    ]
    precommit = decode_message(again.sent()[-1])
    assert isinstance(precommit, Vote)
    assert precommit.extension == b"work"


def test_a_proposal_that_did_not_leave_is_sent_with_its_block_and_not_built_again() -> None:
    node = Node("a")
    node.demand()
    node.holds_signing = True
    node.built("X")
    again = Node("a", node.host)
    assert again.begun()[:3] == ["sign proposal 0 X", "log proposal a 0 X", "all: proposal a 0 X"]
    sent = decode_message(again.sent()[0])
    assert isinstance(sent, BlockProposal)
    assert sent.block == block_of("X")
    assert "build 0" not in again.demand()


def test_the_log_of_another_height_is_not_used() -> None:
    node = Node("d")
    for step in FOLLOWER[:3]:
        step(node)
    later = Node("d", node.host, height=HEIGHT + 1)
    assert later.begun() == []
    assert (later.lock, later.engine.round) == ((-1, b""), -1)


def lower(host: Host, me: str = "b") -> Node:
    """A validator whose database was fetched anew, a height below its log."""
    node = Node(me, host, height=HEIGHT - 1)
    assert node.engine.round == -1
    node.driver.synced(block_of("Z", HEIGHT - 1), commit_of("acd", "Z", height=HEIGHT - 1), 0)
    node._pump()
    return node


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_lock_waits_in_the_log_until_a_lower_database_has_come_to_its_height(
    is_kept: bool,
) -> None:
    """Control: forgotten, as with a log that is lost, the block of another is prevoted."""
    first = Node("b")
    first.receive(proposal("a", 0, "X"))
    first.checked("X")
    first.receive(*votes("ad", PREVOTE, 0, "X"))
    assert first.lock == (0, id_of("X"))
    if not is_kept:
        first.host.synced = []
    node = lower(first.host)
    assert node.driver.is_recovering is is_kept
    node.driver.start(HEIGHT, node.members, 0)
    node._pump()
    assert not node.driver.is_recovering
    assert (node.lock == first.lock) is is_kept
    node.receive(*votes("acd", PRECOMMIT, 0, "nil"))
    node.sleep(600)  # b proposes in round 1: what it locked, or what it likes
    assert ("build 1" in [describe(effect) for effect in node.effects]) is not is_kept


@pytest.mark.parametrize("is_told", [True, False])
def test_a_vote_that_nobody_heard_is_passed_on_after_its_log_is_lost(is_told: bool) -> None:
    """Control: untold, nobody learns of it, and it can sign no other of this round."""
    first = Node("b")
    first.receive(proposal("a", 0, "X"))
    first.checked("X")
    signer = Signer(SECRETS["b"], CHAIN_ID, first.host.last_sign, first.host.save)
    node = Node("b", Host(), height=HEIGHT - 1)
    node.driver.recover([], signer.last_vote() if is_told else None)
    node.driver.start(HEIGHT, node.members, 0)
    sent = node.receive(Status(HEIGHT, 0, 0, ()), peer="c")
    assert ("to c: prevote b 0 X" in sent) is is_told


def test_a_vote_that_log_and_signer_both_bring_back_counts_once() -> None:
    """The log holds the intent and not yet the note: the vote is signed again, and is known."""
    first = Node("b")
    first.receive(proposal("a", 0, "X"))
    first.checked("X")
    signer = Signer(SECRETS["b"], CHAIN_ID, first.host.last_sign, first.host.save)
    node = Node("b", Host(), height=HEIGHT - 1)
    node.driver._sign = signer.sign
    node.driver.recover(first.host.synced, signer.last_vote())
    node.driver.start(HEIGHT, node.members, 0)
    assert "all: prevote b 0 X" in node._pump()
    assert node.engine.votes.weight(PREVOTE, 0, id_of("X")) == 1


def test_notes_alone_bring_votes_back_but_no_round() -> None:
    host = Host()
    host.synced = [noted_entry(HEIGHT, v) for v in votes("a", PREVOTE, 0, "X")]
    node = Node("d", host)
    assert node.engine.votes.weight(PREVOTE, 0, id_of("X")) == 1
    assert (node.engine.round, node.begun()) == (-1, [])


@pytest.mark.parametrize(
    "record", [b"", b"\x00", b"\x03abc", b"\x01", b"\x02\x90", b"\x01\x92\x04\xc4\x01\x09"]
)
def test_a_record_that_no_driver_wrote_stops_the_start(record: bytes) -> None:
    host = Host()
    host.synced = [noted_entry(HEIGHT, vote("a", PREVOTE, 0, "X")), record]
    with pytest.raises(StoreCorrupted) as caught:
        Node("d", host)
    assert caught.value.hint


def test_every_own_signature_has_its_intent_synced_before() -> None:
    for me, script in (("d", FOLLOWER), ("a", PROPOSER)):
        node, _ = run_until_crash(me, script, 10_000)
        for one, two in zip(node.effects, node.effects[1:], strict=False):
            if isinstance(two, SignMessage):
                assert isinstance(one, Persist) and one.sync


def test_the_same_vote_of_somebody_else_is_not_taken_for_our_own() -> None:
    node = Node("d")
    node.receive(proposal("a", 0, "X"))
    node.holds_signing = True
    node.checked("X")
    node.receive(vote("a", PREVOTE, 0, "X"))
    host = node.host
    host.synced += host.unsynced
    assert Node("d", host).begun()[-1] == "all: prevote d 0 X"


def test_a_proposer_that_proposed_before_its_crash_makes_no_second_proposal() -> None:
    node = Node("a")
    node.demand()
    node.holds_signing = True
    node.built("X")
    again = Node("a", node.host)
    assert again.begun()[-1] == "check X"  # so it is still in the step in which one proposes
    assert again.built("Y") == []


def test_an_old_value_whose_polka_the_log_has_lost_is_not_proposed() -> None:
    """It cannot happen to a sound disk; without its polka everybody would refuse the proposal."""
    node = Node("b")
    node.receive(proposal("a", 0, "X"))
    node.checked("X")
    node.receive(*votes("ac", PREVOTE, 0, "X"), *votes("cd", PRECOMMIT, 0, "nil"))
    node.holds_signing = True
    assert node.sleep(600)[-1] == "sign proposal 1 X pol 0"
    host = node.host
    host.synced = host.synced[-1:]
    again = Node("b", host)
    assert again.begun() == ["sign proposal 1 X pol 0"]
    assert again.sleep(1100)[-1] == "all: prevote b 1 nil"
