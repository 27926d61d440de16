"""Who gets how much: nothing is created, nothing vanishes, nothing is negative (section 11)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlchain.consensus.work.rewards import segment_fee, split_fee, split_slash, trapped_fee

AMOUNTS = st.integers(0, 2**62)


@given(AMOUNTS, st.integers(0, 200))
def test_the_shares_of_a_fee_and_what_is_burned_add_up_to_it(fee, verifiers):
    share = split_fee(fee, verifiers)
    assert share.worker + share.verifier * verifiers + share.proposer + share.burned == fee
    assert min(share) >= 0


def test_a_fee_is_split_80_15_3_2():
    assert split_fee(1000, 3) == (800, 50, 30, 20)


@given(AMOUNTS, st.integers(1, 200))
def test_nobody_gets_more_than_the_split_says(fee, verifiers):
    share = split_fee(fee, verifiers)
    assert share.worker * 100 <= fee * 80
    assert share.verifier * verifiers * 100 <= fee * 15
    assert share.proposer * 100 <= fee * 3
    roundings = verifiers + 3
    assert 100 * share.burned <= 2 * fee + 100 * roundings, "only roundings are burned on top"


def test_without_verifiers_their_share_is_burned():
    assert split_fee(1000, 0) == (800, 0, 30, 170)


@given(AMOUNTS, st.integers(1, 500), st.integers(1, 60))
def test_the_parts_of_consecutive_segments_add_up_to_the_fee(fee, total, segment):
    ranges = [(first, min(segment, total - first)) for first in range(0, total, segment)]
    parts = [segment_fee(fee, first, count, total) for first, count in ranges]
    assert sum(parts) == fee
    assert min(parts) >= 0


@given(AMOUNTS, st.integers(1, 60))
def test_equal_segments_earn_equal_parts_up_to_one(fee, segments):
    parts = [segment_fee(fee, 10 * i, 10, 10 * segments) for i in range(segments)]
    assert max(parts) - min(parts) <= 1


@given(AMOUNTS, st.integers(1, 50), st.integers(1, 20), st.data())
def test_what_traps_earns_less_the_sooner_it_traps_and_never_more_than_it_would_whole(
    fee, total, chunk, data
):
    first = data.draw(st.integers(0, total - 1))
    steps = range(1, chunk * (total - first) + 1)
    earned = [
        trapped_fee(fee, first, (run - 1) // chunk, total, (run - 1) % chunk + 1, chunk)
        for run in steps
    ]
    assert earned == sorted(earned)
    assert earned[-1] == segment_fee(fee, first, total - first, total)


@given(AMOUNTS)
def test_half_of_a_slash_goes_to_the_finder_and_the_rest_is_burned(amount):
    finder, burned = split_slash(amount)
    assert finder + burned == amount
    assert 0 <= finder <= burned <= finder + 1
