"""Row 27: a forged chain of headers, signed by a minority or by those who left long ago."""

from __future__ import annotations

import pytest
from headers import CHAIN, Headers, certify, members

from mlchain.consensus import light
from mlchain.consensus.light import TooFar, advance
from mlchain.errors import MlchainError, VerificationFailed
from mlchain.ledger.block import header_id

OLD, NEW = ("a", "b", "c", "d"), ("e", "f", "g", "h")
THIEVES = ("x", "y", "z")


@pytest.fixture
def chain():
    """The old members have handed over to new ones, one after the other."""
    chain = Headers(*OLD)
    chain.grow(2)
    for left in range(1, 5):
        chain.grow(2, then=OLD[left:] + NEW[:left])
    chain.grow(3)
    return chain


def forged_by(chain, names, height):
    """A later header that names `names` as its voters, and whom all of them sign."""
    voters = members(*names)
    header = chain.header(voters, height=height, validators_hash=voters.hash)
    return certify(header, voters, voters, *names)


def test_a_set_of_strangers_is_not_believed_however_many_sign(chain):
    with pytest.raises(TooFar):
        advance(chain.trusted(5), forged_by(chain, THIEVES, 90), CHAIN)


def test_a_third_of_the_trusted_set_and_any_number_of_strangers_is_too_few(chain):
    """One of four: no more than a third may be hostile, and this much may be."""
    for height in (chain.blocks[-1].header.height + 1, 90):
        names = (NEW[0], *THIEVES)
        with pytest.raises(VerificationFailed):
            advance(chain.trusted(len(chain.blocks) - 1), forged_by(chain, names, height), CHAIN)


def test_those_who_left_cannot_speak_for_the_chain_any_more(chain):
    """Their keys may have been sold; whoever trusts a block after they left does not hear them."""
    with pytest.raises(TooFar):
        advance(chain.trusted(len(chain.blocks) - 1), forged_by(chain, OLD, 90), CHAIN)


def test_a_forged_chain_that_hands_over_to_thieves_breaks_at_its_first_link(chain):
    """Each block of it is signed by all it names; the first is not by who was named before."""
    forged = Headers(*OLD)
    forged.blocks, forged.parent = chain.blocks[:2], header_id(chain.blocks[1].header)
    forged.time_ms = chain.blocks[1].header.time_ms + 1
    forged.names, forged.voters = THIEVES, members(*THIEVES)
    forged.grow(3)
    for block in forged.blocks[2:]:
        with pytest.raises(MlchainError):
            advance(chain.trusted(1), block, CHAIN)


def test_control_without_the_overlap_rule_the_forged_chain_is_accepted(chain, monkeypatch):
    monkeypatch.setattr(light, "_require_overlap", lambda known, block: None)
    for names in (THIEVES, OLD, (NEW[0], *THIEVES)):
        trusted = chain.trusted(len(chain.blocks) - 1)
        assert advance(trusted, forged_by(chain, names, 90), CHAIN).height == 90


def test_control_whoever_starts_at_the_beginning_still_believes_those_of_the_beginning(chain):
    """Why there is --trust: from an old block, its members are all there is to go by."""
    assert advance(chain.trusted(0), forged_by(chain, OLD, 90), CHAIN).height == 90
