"""The checkers see what they are there to see: each is shown the thing it forbids."""

from __future__ import annotations

import pytest

from mlchain.consensus.evidence import vote_evidence
from mlchain.ledger.commit import NIL, Commit, Vote, VoteKind, make_commit, sign_bytes
from mlchain.ledger.validators import Validator, ValidatorSet
from mlchain.sim.adversary import CHAIN_ID
from mlchain.sim.application import ToyKey
from mlchain.sim.checkers import Checkers, Violation

KEYS = sorted((ToyKey(str(i)) for i in range(4)), key=lambda key: key.public)
VALIDATORS = ValidatorSet(tuple(Validator(key.public, 1) for key in KEYS))
BLOCK, OTHER = b"a" * 32, b"b" * 32


def vote(signer: int, block_id: bytes, height: int = 1) -> Vote:
    key = KEYS[signer]
    message = sign_bytes(CHAIN_ID, VoteKind.PRECOMMIT, height, 0, block_id)
    return Vote(2, height, 0, block_id, key.public, b"", key.sign(message))


def commit(block_id: bytes, signers: int = 3, height: int = 1) -> Commit:
    return make_commit([vote(i, block_id, height) for i in range(signers)])


@pytest.fixture
def checkers() -> Checkers:
    return Checkers(VALIDATORS, faulty=(KEYS[3].public,))


def test_two_decisions_of_one_height_break_agreement(checkers: Checkers) -> None:
    checkers.on_decide(1, BLOCK, commit(BLOCK), True)
    checkers.on_decide(1, BLOCK, commit(BLOCK, 4), True)
    checkers.on_decide(2, OTHER, commit(OTHER, height=2), True)
    with pytest.raises(Violation, match="agreement: height 1"):
        checkers.on_decide(1, OTHER, commit(OTHER), True)


def test_a_decision_for_an_invalid_block_breaks_validity(checkers: Checkers) -> None:
    with pytest.raises(Violation, match="validity"):
        checkers.on_decide(1, BLOCK, commit(BLOCK), False)


def test_a_certificate_without_a_quorum_convinces_nobody(checkers: Checkers) -> None:
    with pytest.raises(Violation, match="weight 2, a quorum is 3"):
        checkers.on_decide(1, BLOCK, commit(BLOCK, 2), True)


def test_a_second_different_vote_is_a_double_signature(checkers: Checkers) -> None:
    key = KEYS[0].public
    checkers.on_signed(key, vote(0, BLOCK))
    checkers.on_signed(key, vote(0, BLOCK))
    checkers.on_signed(key, vote(0, OTHER, height=2))
    with pytest.raises(Violation, match="double signature"):
        checkers.on_signed(key, vote(0, NIL))


def test_evidence_convicts_the_guilty_only(checkers: Checkers) -> None:
    checkers.on_evidence(vote_evidence(vote(3, BLOCK), vote(3, OTHER)))
    assert checkers.convicted == {KEYS[3].public: 1}
    with pytest.raises(Violation, match="against a correct validator"):
        checkers.on_evidence(vote_evidence(vote(0, BLOCK), vote(0, OTHER)))
    with pytest.raises(Violation, match="does not verify"):
        checkers.on_evidence(b"\x01nonsense")


def test_a_chain_that_stands_still_is_not_live(checkers: Checkers) -> None:
    checkers.on_end([4, 5, 4], 4, ())
    with pytest.raises(Violation, match="liveness"):
        checkers.on_end([4, 3, 4], 4, ())


def test_an_equivocator_that_got_away_is_missed(checkers: Checkers) -> None:
    with pytest.raises(Violation, match="1 equivocator"):
        checkers.on_end([4], 4, (KEYS[3].public,))
