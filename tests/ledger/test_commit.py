"""Votes and certificates: what a quorum is, and everything that is not one."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from ledger_factory import CHAIN, FOUR, KEYS, STRANGER, certificate, validator_set, vote
from msgspec.structs import replace

from mlchain.errors import InvalidBlock, InvalidSignature
from mlchain.ledger.commit import (
    NIL,
    Commit,
    CommitSignature,
    VoteKind,
    make_commit,
    sign_bytes,
    verify_commit,
)
from mlchain.ledger.validators import Validator, ValidatorSet

BLOCK = b"b" * 32
HEIGHT = 5


def check(commit: Commit, validators=None, chain=CHAIN, height=HEIGHT, block=BLOCK, **options):
    verify_commit(commit, chain, validators or validator_set(), height, block, **options)


def yes(*_) -> bool:
    return True


# Quorums


@pytest.mark.parametrize(
    "weights, quorum, third, faults",
    [
        ((1,), 1, 1, 0),
        ((1, 1), 2, 1, 0),
        ((1, 1, 1), 3, 2, 0),
        ((1, 1, 1, 1), 3, 2, 1),
        ((1,) * 5, 4, 2, 1),
        ((1,) * 6, 5, 3, 1),
        ((1,) * 7, 5, 3, 2),
        ((3, 1, 1, 1), 5, 3, 1),
        ((10**12, 10**12, 10**12, 1), 2 * 10**12 + 1, 10**12 + 1, 1),
    ],
)
def test_a_quorum_is_more_than_two_thirds_and_a_third_more_than_one(weights, quorum, third, faults):
    found = validator_set(KEYS[: len(weights)], weights)
    assert (found.quorum, found.third, found.faults) == (quorum, third, faults)


@given(st.integers(1, 2**47))
def test_two_quorums_share_more_than_a_third_and_the_rest_cannot_block_one(total):
    found = ValidatorSet((Validator(bytes(32), 1),))
    found.total = total
    quorum, third = 2 * total // 3 + 1, total // 3 + 1
    assert 3 * quorum > 2 * total >= 3 * (quorum - 1)
    assert 3 * third > total >= 3 * (third - 1)
    assert 2 * quorum - total >= third  # so a fork needs more than a third of liars
    assert quorum <= total


@pytest.mark.parametrize(
    "signers, enough", [(0, False), (1, False), (2, False), (3, True), (4, True)]
)
def test_three_of_four_decide(signers, enough):
    votes = [vote(key) for key in FOUR[:signers]]
    commit = make_commit(votes) if votes else Commit(HEIGHT, 0, BLOCK, ())
    if enough:
        check(commit)
    else:
        with pytest.raises(InvalidBlock, match="quorum"):
            check(commit)


def test_weight_decides_not_heads():
    heavy = validator_set(FOUR, (7, 1, 1, 1))
    with pytest.raises(InvalidBlock, match="quorum"):
        check(certificate(HEIGHT, BLOCK, FOUR[1:]), heavy)  # three heads, weight 3 of 10
    check(certificate(HEIGHT, BLOCK, FOUR[:1]), heavy)  # one head, weight 7


def test_a_certificate_may_be_of_a_later_round():
    check(make_commit([vote(key, round_=3) for key in FOUR[:3]]))


# What is no certificate


def test_a_certificate_for_another_height_or_block_is_refused():
    commit = certificate(HEIGHT, BLOCK)
    for other in ({"height": HEIGHT + 1}, {"block": b"c" * 32}):
        with pytest.raises(InvalidBlock, match="commit is for height 5"):
            check(commit, **other)


def rows(*keys, block=BLOCK, **options) -> tuple[CommitSignature, ...]:
    votes = [vote(key, block, **options) for key in keys]
    return tuple(CommitSignature(v.validator, v.extension, v.signature) for v in votes)


def test_one_validator_counts_once():
    twice = Commit(HEIGHT, 0, BLOCK, rows(FOUR[0], FOUR[0], FOUR[1]))
    with pytest.raises(InvalidBlock, match="signs twice"):
        check(twice)
    # Control: by weight and signatures alone the three rows would pass.
    assert sum(validator_set().weight(s.validator) for s in twice.signatures) >= 3


def test_signatures_stand_in_key_order_so_one_set_has_one_certificate():
    with pytest.raises(InvalidBlock, match="key order"):
        check(Commit(HEIGHT, 0, BLOCK, rows(FOUR[1], FOUR[0], FOUR[2])))
    assert make_commit([vote(key) for key in FOUR[:3]]) == make_commit(
        [vote(key) for key in reversed(FOUR[:3])]
    )


def test_a_stranger_spoils_a_certificate_even_beside_a_quorum():
    four = sorted([*FOUR[:3], STRANGER], key=lambda key: key.public)
    with pytest.raises(InvalidBlock):
        check(Commit(HEIGHT, 0, BLOCK, rows(*four)))


FORGED = {  # what the three signed instead
    "another chain": {"chain": "dev-other"},
    "another height": {"height": HEIGHT + 1},
    "another round": {"round_": 1},
    "a prevote": {"kind": int(VoteKind.PREVOTE)},
    "a proposal": {"kind": int(VoteKind.PROPOSAL)},
    "another block": {"block": b"c" * 32},
    "nil": {"block": NIL},
}


@pytest.mark.parametrize("what", FORGED)
def test_a_signature_over_something_else_does_not_count(what):
    honest = rows(*FOUR[:2])
    forged = Commit(HEIGHT, 0, BLOCK, honest + rows(FOUR[2], **FORGED[what]))
    with pytest.raises(InvalidSignature):
        check(forged)
    check(forged, is_signed=yes)  # control: nothing but the signature stands against it
    check(Commit(HEIGHT, 0, BLOCK, honest + rows(FOUR[2])))


def test_an_extension_is_vouched_for_by_the_signature_beside_it():
    votes = [vote(key, extension=b"attested %d" % n) for n, key in enumerate(FOUR[:3])]
    commit = make_commit(votes)
    check(commit)
    assert [s.extension for s in commit.signatures] == [b"attested 0", b"attested 1", b"attested 2"]
    first, *others = commit.signatures
    for extension in (b"attested 9", b""):
        changed = (replace(first, extension=extension), *others)
        with pytest.raises(InvalidSignature):
            check(replace(commit, signatures=changed))
        check(replace(commit, signatures=changed), is_signed=yes)  # control


def test_every_part_of_a_vote_changes_what_is_signed():
    base = (CHAIN, 2, HEIGHT, 0, BLOCK, -1, b"")
    others = ("dev-u", 1, HEIGHT + 1, 1, NIL, 0, b"x")
    signed = [sign_bytes(*base)]
    for place, other in enumerate(others):
        signed.append(sign_bytes(*base[:place], other, *base[place + 1 :]))
    assert len(dict.fromkeys(signed)) == len(others) + 1
    assert vote().sign_bytes(CHAIN) == signed[0]


# The set


def test_the_hash_of_a_set_knows_members_and_weights_but_no_order():
    one = validator_set()
    turned = ValidatorSet(tuple(reversed(one.validators)))
    assert one == turned and one.hash == turned.hash and hash(one) == hash(turned)
    assert one.hash != validator_set(FOUR, (1, 1, 1, 2)).hash
    assert one.hash != validator_set(KEYS[1:5]).hash
    assert one != "something else"


def test_each_member_proposes_in_its_turn():
    found = validator_set()
    turns = [found.proposer(height, 0) for height in range(8)]
    assert turns[:4] == turns[4:] and sorted(turns[:4]) == list(found.keys)
    assert [found.proposer(3, round_) for round_ in range(4)] == [
        found.proposer(3 + round_, 0) for round_ in range(4)
    ]


def test_members_are_known_and_strangers_weigh_nothing():
    found = validator_set(FOUR, (1, 2, 3, 4))
    assert [found.weight(key.public) for key in FOUR] == [1, 2, 3, 4]
    assert found.weight(STRANGER.public) == 0 and STRANGER.public not in found
    assert FOUR[0].public in found and len(found) == 4


def test_a_set_with_a_member_twice_or_without_members_is_a_bug():
    twice = (Validator(bytes(32), 1), Validator(bytes(32), 2))
    for members in (twice, ()):
        with pytest.raises(AssertionError):
            ValidatorSet(members)
