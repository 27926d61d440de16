"""What convicts a validator of equivocation, and what proves nothing (`consensus/evidence.py`)."""

import pytest
from agreement_lab import (
    CHAIN_ID,
    HEIGHT,
    MEMBERS,
    NAMES,
    PRECOMMIT,
    PREVOTE,
    SECRETS,
    key_of,
    proposal,
    vote,
)
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mlchain import codec
from mlchain.consensus.evidence import (
    DuplicateProposal,
    DuplicateVote,
    Offence,
    decode_evidence,
    proposal_evidence,
    verify_evidence,
    vote_evidence,
)
from mlchain.consensus.messages import Proposal
from mlchain.errors import CodecError, InvalidEvidence
from mlchain.ledger.block import MAX_EVIDENCE_BYTES
from mlchain.ledger.commit import MAX_EXTENSION_BYTES, Vote, VoteKind, sign_bytes
from mlchain.ledger.validators import Validator, ValidatorSet


def extended(extension: bytes, name: str = "b") -> Vote:
    return vote(name, PRECOMMIT, 0, "X", extension=extension)


def propose(round_: int, block: str, pol_round: int = -1, name: str = "a") -> Proposal:
    return proposal(name, round_, block, pol_round).proposal


GUILTY_VOTES = {
    "two blocks": (vote("b", PREVOTE, 0, "X"), vote("b", PREVOTE, 0, "Y")),
    "a block and nil": (vote("b", PREVOTE, 0, "X"), vote("b", PREVOTE, 0, "nil")),
    "two precommits": (vote("b", PRECOMMIT, 7, "X"), vote("b", PRECOMMIT, 7, "Y")),
    "one block, two extensions": (extended(b"one"), extended(b"two")),
    "one block, with and without extension": (extended(b"one"), extended(b"")),
    "two long extensions": (extended(b"1" * MAX_EXTENSION_BYTES), extended(b"2" * 16_000)),
}
GUILTY_PROPOSALS = {
    "two blocks": (propose(0, "X"), propose(0, "Y")),
    "one block, two polka rounds": (propose(5, "X", 2), propose(5, "X", 3)),
    "as a new block and as an old one": (propose(5, "X", -1), propose(5, "X", 3)),
}


@pytest.mark.parametrize("about", GUILTY_VOTES)
def test_two_different_votes_for_one_place_convict(about: str) -> None:
    one, other = GUILTY_VOTES[about]
    data = vote_evidence(one, other)
    assert verify_evidence(data, CHAIN_ID, MEMBERS) == Offence(key_of("b"), HEIGHT)
    assert len(data) <= MAX_EVIDENCE_BYTES


@pytest.mark.parametrize("about", GUILTY_PROPOSALS)
def test_two_different_proposals_for_one_round_convict(about: str) -> None:
    one, other = GUILTY_PROPOSALS[about]
    data = proposal_evidence(one, other)
    assert verify_evidence(data, CHAIN_ID, MEMBERS) == Offence(key_of("a"), HEIGHT)


def test_a_pair_has_one_encoding_in_whichever_order_it_came() -> None:
    for one, other in GUILTY_VOTES.values():
        assert vote_evidence(one, other) == vote_evidence(other, one)
    for first, second in GUILTY_PROPOSALS.values():
        assert proposal_evidence(first, second) == proposal_evidence(second, first)


def test_the_other_order_is_not_accepted() -> None:
    data = vote_evidence(*GUILTY_VOTES["two blocks"])
    pair = decode_evidence(data)
    turned = data[:1] + codec.encode(DuplicateVote(pair.second, pair.first))  # type: ignore[arg-type]
    with pytest.raises(InvalidEvidence, match="order"):
        verify_evidence(turned, CHAIN_ID, MEMBERS)


X = vote("b", PREVOTE, 0, "X")
Y = vote("b", PREVOTE, 0, "Y")
OTHER_HEIGHT = vote("b", PREVOTE, 0, "Y", height=HEIGHT + 1)


@pytest.mark.parametrize(
    ("about", "one", "other", "why"),
    [
        ("one vote", X, X, "order"),
        ("two validators", X, vote("c", PREVOTE, 0, "Y"), "not of one"),
        ("two heights", X, OTHER_HEIGHT, "not of one"),
        ("two rounds", X, vote("b", PREVOTE, 1, "Y"), "not of one"),
        ("two kinds", X, vote("b", PRECOMMIT, 0, "Y"), "not of one"),
        ("a stranger", vote("s", PREVOTE, 0, "X"), vote("s", PREVOTE, 0, "Y"), "not a validator"),
        ("a forged first", replace(X, signature=bytes(64)), Y, "signature"),
        ("a forged second", X, replace(Y, signature=bytes(64)), "signature"),
        ("another chain", X, vote("b", PREVOTE, 0, "Y", chain_id="other"), "signature"),
        ("a strange id", X, replace(Y, block_id=b"short"), "0 or 32 bytes"),
        ("an extended prevote", X, vote("b", PREVOTE, 0, "X", extension=b"e"), "extension"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_these_votes_prove_nothing(about: str, one: Vote, other: Vote, why: str) -> None:
    with pytest.raises(InvalidEvidence, match=why):
        verify_evidence(vote_evidence(one, other), CHAIN_ID, MEMBERS)


@pytest.mark.parametrize(
    ("about", "one", "other", "why"),
    [
        ("one proposal", propose(0, "X"), propose(0, "X"), "order"),
        ("two rounds", propose(0, "X"), propose(4, "Y"), "not of one"),
        ("two proposers", propose(0, "X"), propose(0, "Y", name="b"), "not of one"),
        ("a forged one", propose(0, "X"), replace(propose(0, "Y"), signature=bytes(64)), "signat"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_these_proposals_prove_nothing(
    about: str, one: Proposal, other: Proposal, why: str
) -> None:
    with pytest.raises(InvalidEvidence, match=why):
        verify_evidence(proposal_evidence(one, other), CHAIN_ID, MEMBERS)


def test_two_signatures_of_the_same_words_are_no_offence() -> None:
    """Ed25519 as honest keys use it has one signature per message; a liar's may have more."""
    other = replace(X, signature=bytes(64))
    with pytest.raises(InvalidEvidence, match="say the same"):
        verify_evidence(vote_evidence(X, other), CHAIN_ID, MEMBERS, lambda *parts: True)


def test_evidence_counts_on_its_own_chain_only() -> None:
    data = vote_evidence(X, Y)
    verify_evidence(data, CHAIN_ID, MEMBERS)
    with pytest.raises(InvalidEvidence):
        verify_evidence(data, "other", MEMBERS)


def test_evidence_counts_among_its_own_members_only() -> None:
    others = ValidatorSet(tuple(Validator(k, 1) for k in MEMBERS.keys if k != key_of("b")))
    with pytest.raises(InvalidEvidence, match="not a validator"):
        verify_evidence(vote_evidence(X, Y), CHAIN_ID, others)


def test_votes_do_not_pass_for_proposals() -> None:
    data = vote_evidence(X, Y)
    with pytest.raises(InvalidEvidence):
        verify_evidence(b"\x02" + data[1:], CHAIN_ID, MEMBERS)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x03" + bytes(9), b"\x01" * MAX_EVIDENCE_BYTES * 2]
)
def test_what_is_no_evidence_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode_evidence(data)
    with pytest.raises(InvalidEvidence):
        verify_evidence(data, CHAIN_ID, MEMBERS)


def test_every_changed_byte_makes_evidence_worthless() -> None:
    for data in (vote_evidence(X, Y), proposal_evidence(propose(0, "X"), propose(0, "Y"))):
        for at in range(len(data)):
            for change in (0x01, 0x80):
                spoilt = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
                with pytest.raises(InvalidEvidence):
                    verify_evidence(spoilt, CHAIN_ID, MEMBERS)


@given(st.binary(max_size=400))
def test_garbage_convicts_nobody(data: bytes) -> None:
    for tag in (b"", b"\x01", b"\x02"):
        with pytest.raises(InvalidEvidence):
            verify_evidence(tag + data, CHAIN_ID, MEMBERS)


SIGNED = st.tuples(
    st.sampled_from("abcs"),
    st.sampled_from([PREVOTE, PRECOMMIT]),
    st.integers(HEIGHT, HEIGHT + 1),
    st.integers(0, 1),
    st.sampled_from(["X", "Y", "nil"]),
)


@given(SIGNED, SIGNED)
def test_two_genuine_votes_convict_exactly_if_they_contradict(
    one: tuple[str, VoteKind, int, int, str], other: tuple[str, VoteKind, int, int, str]
) -> None:
    first, second = (vote(n, k, r, b, height=h) for n, k, h, r, b in (one, other))
    guilty = one[:4] == other[:4] and one[4] != other[4] and one[0] != "s"
    try:
        offence = verify_evidence(vote_evidence(first, second), CHAIN_ID, MEMBERS)
    except InvalidEvidence:
        assert not guilty
    else:
        assert guilty
        assert (NAMES[offence.offender], offence.height) == (one[0], one[2])


def test_nobody_is_convicted_by_what_somebody_else_signed() -> None:
    """The pair is well-formed and names b, but c made both signatures."""

    def by_c(block: str) -> Vote:
        genuine = vote("b", PREVOTE, 0, block)
        message = sign_bytes(CHAIN_ID, PREVOTE, HEIGHT, 0, genuine.block_id)
        return replace(genuine, signature=SECRETS["c"].sign(message))

    with pytest.raises(InvalidEvidence, match="signature"):
        verify_evidence(vote_evidence(by_c("X"), by_c("Y")), CHAIN_ID, MEMBERS)


def test_the_two_kinds_of_evidence_decode_to_what_they_were_made_of() -> None:
    assert isinstance(decode_evidence(vote_evidence(X, Y)), DuplicateVote)
    pair = decode_evidence(proposal_evidence(propose(0, "X"), propose(0, "Y")))
    assert isinstance(pair, DuplicateProposal)
    assert {pair.first, pair.second} == {propose(0, "X"), propose(0, "Y")}
