"""Light verification: one sentence of `consensus/light.py`, one test."""

from __future__ import annotations

import pytest
from factories import make_key, make_slashed_chain
from headers import CHAIN, Headers, certify, members
from msgspec.structs import replace

from mlchain.consensus import light
from mlchain.consensus.evidence import verify_evidence
from mlchain.consensus.light import (
    Conflict,
    LightPath,
    LightQuestion,
    TooFar,
    advance,
    find_equivocation,
    follow,
    make_answer,
    make_path,
    trust_block,
    verify_answer,
)
from mlchain.errors import InvalidBlock, InvalidSignature, MlchainError, VerificationFailed
from mlchain.ledger.block import header_id
from mlchain.vm.families.accounts import ACCOUNTS
from mlchain.vm.families.members import VALIDATORS

FOUR = ("a", "b", "c", "d")


@pytest.fixture
def chain():
    chain = Headers(*FOUR)
    chain.grow(3)
    return chain


def test_one_follows_block_after_block_across_changes_of_the_set(chain):
    chain.grow(1, then=("b", "c", "d", "e"))
    chain.grow(2, then=("e", "f", "g", "h"))
    chain.grow(2)
    trusted = chain.trusted(0)
    for block in chain.blocks[1:]:
        trusted = advance(trusted, block, CHAIN)
    assert trusted == chain.trusted(len(chain.blocks) - 1)


def test_one_skips_as_far_as_more_than_a_third_still_votes(chain):
    chain.grow(1, then=("c", "d", "e", "f"))
    chain.grow(5)
    assert advance(chain.trusted(0), chain.blocks[-1], CHAIN).height == 8
    chain.grow(1, then=("d", "e", "f", "g"))
    chain.grow(2)
    with pytest.raises(TooFar, match="weight 1 of the trusted"):
        advance(chain.trusted(0), chain.blocks[-1], CHAIN)


def test_where_too_few_are_left_one_follows_the_changes(chain):
    changes = []
    for step in range(6):
        names = tuple(f"v{step + i}" for i in range(4))
        chain.grow(1, then=names)
        changes.append(chain.blocks[-1])
        chain.grow(2)
    target = chain.blocks[-1]
    with pytest.raises(TooFar):
        advance(chain.trusted(0), target, CHAIN)
    path = LightPath((*changes, target))
    assert follow(chain.trusted(0), path, CHAIN).id == header_id(target.header)


def test_a_next_block_is_signed_by_exactly_those_who_were_named(chain):
    chain.grow(1, then=("a", "b", "c", "e"))
    trusted, voters = chain.trusted(3), members("a", "b", "c", "d")
    header = chain.header(voters, validators_hash=voters.hash)
    forged = certify(header, voters, voters, *FOUR)
    with pytest.raises(VerificationFailed, match="other validators"):
        advance(trusted, forged, CHAIN)
    orphan = chain.header(chain.voters, parent=bytes([1]) * 32)
    with pytest.raises(VerificationFailed, match="no child"):
        advance(trusted, certify(orphan, chain.voters, chain.voters, *chain.names), CHAIN)


@pytest.mark.parametrize("signers", [("a", "b"), ()])
def test_without_a_quorum_of_its_own_voters_a_block_is_nothing(chain, signers):
    header = chain.header(chain.voters)
    block = certify(header, chain.voters, chain.voters, *(signers or ("a", "b", "x")))
    with pytest.raises(InvalidBlock):
        advance(chain.trusted(2), block, CHAIN)


def test_a_wrong_signature_a_wrong_set_another_chain_and_an_earlier_time_are_refused(chain):
    good = chain.grow()
    trusted = chain.trusted(0)
    first = replace(good.commit.signatures[0], signature=bytes(64))
    spoilt = replace(good.commit, signatures=(first, *good.commit.signatures[1:]))
    wrong = [
        (replace(good, commit=spoilt), CHAIN, InvalidSignature),
        (replace(good, validators=members("a", "b", "c", "x").validators), CHAIN, MlchainError),
        (replace(good, validators=tuple(reversed(good.validators))), CHAIN, VerificationFailed),
        (replace(good, validators=()), CHAIN, VerificationFailed),
        (replace(good, next_validators=members("a").validators), CHAIN, VerificationFailed),
        (good, "another-chain", VerificationFailed),
        (chain.blocks[0], CHAIN, VerificationFailed),
    ]
    for block, chain_id, error in wrong:
        with pytest.raises(error):
            advance(trusted, block, chain_id)
    early = chain.header(chain.voters, time_ms=1)
    with pytest.raises(VerificationFailed, match="not later"):
        advance(trusted, certify(early, chain.voters, chain.voters, *FOUR), CHAIN)
    assert advance(trusted, good, CHAIN).id == header_id(good.header)


def test_weights_count_and_not_heads(chain):
    heavy = members("a", "b", x=5)
    header = chain.header(heavy, height=9, validators_hash=heavy.hash)
    with pytest.raises(TooFar):
        advance(chain.trusted(2), certify(header, heavy, heavy, "a", "x"), CHAIN)
    with pytest.raises(InvalidBlock):
        advance(chain.trusted(2), certify(header, heavy, heavy, "a", "b"), CHAIN)
    assert advance(chain.trusted(2), certify(header, heavy, heavy, "a", "b", "x"), CHAIN)


def test_a_block_may_be_trusted_for_its_hash_alone(chain):
    block = chain.blocks[2]
    assert trust_block(block, 2, header_id(block.header), CHAIN) == chain.trusted(2)
    for height, block_id in ((2, bytes(32)), (1, header_id(block.header))):
        with pytest.raises(VerificationFailed):
            trust_block(block, height, block_id, CHAIN)


def test_two_certified_blocks_of_one_height_convict_who_signed_both(chain):
    one = certify(chain.header(chain.voters), chain.voters, chain.voters, "a", "b", "c")
    other = certify(
        chain.header(chain.voters, gas_used=1), chain.voters, chain.voters, "b", "c", "d"
    )
    found = find_equivocation(Conflict(one, other))
    offenders = [verify_evidence(e, CHAIN, chain.voters).offender for e in found]
    assert sorted(offenders) == sorted(make_key(name).public for name in "bc")
    later = certify(
        chain.header(chain.voters, gas_used=1), chain.voters, chain.voters, "b", "c", "d", round_=1
    )
    assert find_equivocation(Conflict(one, later)) == ()
    assert find_equivocation(Conflict(one, one)) == ()


# ---- against a real store


@pytest.fixture(scope="module")
def real():
    """Four validators, one of which is slashed out of the set on the way."""
    return make_slashed_chain(5)


def test_a_store_leads_anybody_from_block_1_to_its_head(real):
    store = real.store
    assert len(store.set_changes) == 2, "genesis, and the slash"
    path = make_path(store, LightQuestion(1, 0))
    assert [b.header.height for b in path.blocks] == [store.set_changes[1], store.height]
    start = light.check_sets(make_path(store, LightQuestion(1, 1)).blocks[0], "test-1")
    assert follow(start, path, "test-1").id == store.head_id


def test_what_a_store_proves_is_believed_and_nothing_else(real):
    key = ACCOUNTS.key(real.alice.public)
    answer = make_answer(real.store, key)
    trusted = light.check_sets(answer.block, "test-1")
    assert verify_answer(answer, trusted, key) == real.store.state().get(key)
    nobody = ACCOUNTS.key(bytes(32))
    assert verify_answer(make_answer(real.store, nobody), trusted, nobody) is None
    member = VALIDATORS.key(make_key("validator-0").public)
    for wrong in (
        replace(answer, value=b"more"),
        replace(answer, value=None),
        replace(answer, block=light.make_light_block(real.store, 3)),
    ):
        with pytest.raises(VerificationFailed):
            verify_answer(wrong, trusted, key)
    with pytest.raises(VerificationFailed):
        verify_answer(answer, trusted, member)
