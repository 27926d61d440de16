"""Tickets and beacon elements: hash chains whose elements are shown one by one (section 7)."""

from __future__ import annotations

from hashlib import blake2s

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlchain.consensus.work.tickets import (
    PURPOSES,
    TICKETS,
    Reveal,
    TicketChain,
    check_reveal,
    hash_down,
    make_chain,
    strides,
)
from mlchain.crypto import SecretKey

LENGTH = 3000  # longer than two strides of kept elements
CHAIN = TicketChain(LENGTH, dict(strides(b"s" * 32, LENGTH)))
OTHER = TicketChain(LENGTH, dict(strides(b"o" * 32, LENGTH)))
TIP = Reveal(CHAIN.tip, 0)


def test_an_element_is_the_tagged_hash_of_the_one_above_it():
    assert CHAIN.at(6) == blake2s(b"mlchain/ticket:" + CHAIN.at(7)).digest()


def test_the_top_of_a_chain_is_the_secret_and_the_bottom_the_registered_tip():
    assert CHAIN.at(LENGTH) == b"s" * 32
    assert CHAIN.at(0) == CHAIN.tip == hash_down(b"s" * 32, LENGTH)


@pytest.mark.parametrize("length", [1, 2, 1023, 1024, 1025, 2048])
def test_every_element_is_found_whatever_the_length(length):
    chain = TicketChain(length, dict(strides(b"x" * 32, length)))
    for height in {0, 1, length // 2, max(length - 1, 0), length}:
        assert hash_down(chain.at(height), height) == chain.tip


@pytest.mark.parametrize("height", [-1, LENGTH + 1, 2**62])
def test_there_is_no_element_beyond_the_ends(height):
    assert CHAIN.at(height) is None


def test_the_chains_of_a_key_of_two_ledgers_and_two_generations_have_nothing_in_common():
    key = SecretKey(b"k" * 32)
    tips = [
        make_chain(key, purpose, chain_id, 10, generation).tip
        for purpose in PURPOSES
        for chain_id in ("one", "two")
        for generation in (0, 1, 2)
    ]
    assert len(set(tips)) == 18
    assert make_chain(key, TICKETS, "one", 10).tip == tips[0], "and they are the same again"


@settings(deadline=None, max_examples=60)
@given(st.integers(0, LENGTH), st.integers(0, LENGTH))
def test_an_element_is_accepted_above_and_below_what_is_known(known, height):
    before = Reveal(CHAIN.at(known), known)
    after = check_reveal(before, CHAIN.at(height), height)
    assert after == max(before, Reveal(CHAIN.at(height), height), key=lambda reveal: reveal.height)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 200), st.integers(0, 200), st.sampled_from(["foreign", "above", "below"]))
def test_a_wrong_element_is_refused_above_and_below_what_is_known(known, height, kind):
    wrong = {
        "foreign": OTHER.at(height),
        "above": CHAIN.at(height + 1),  # would also show a ticket too early
        "below": CHAIN.at(height - 1) or bytes(32),
    }[kind]
    assert check_reveal(Reveal(CHAIN.at(known), known), wrong, height) is None


def test_what_is_public_never_goes_back():
    late = check_reveal(TIP, CHAIN.at(50), 50)
    assert check_reveal(late, CHAIN.at(20), 20) is late
