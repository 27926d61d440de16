"""Secret slices: who re-executes what, and how much is enough (sections 7 and 12)."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlchain import crypto
from mlchain.consensus.work.sampling import (
    AUDITED_MISS,
    TIERS,
    draw_slice,
    miss_probability,
    slice_size,
)
from mlchain.crypto import digest

ROOT = digest("test-root")
CHI_SQUARE_999 = {39: 72.1, 9: 27.9}
"""Quantile 0.999 of the chi-square distribution, by degrees of freedom."""


def ticket(number: int) -> bytes:
    return digest("test-ticket", number.to_bytes(8, "little"))


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 500), st.integers(0, 2**32))
def test_a_slice_is_distinct_sorted_in_range_and_of_the_size_asked_for(total, size, number):
    drawn = draw_slice(ticket(number), ROOT, total, size)
    assert list(drawn) == sorted(set(drawn))
    assert len(drawn) == min(size, total)
    assert all(0 <= chunk < total for chunk in drawn)


def test_a_slice_depends_on_ticket_and_root_alone():
    assert draw_slice(ticket(1), ROOT, 500, 20) == draw_slice(ticket(1), ROOT, 500, 20)
    assert draw_slice(ticket(1), ROOT, 500, 20) != draw_slice(ticket(2), ROOT, 500, 20)
    assert draw_slice(ticket(1), ROOT, 500, 20) != draw_slice(ticket(1), ticket(1), 500, 20)


def test_a_larger_slice_holds_the_smaller_one():
    """What was announced as a validator's own chunk stays one when the set of validators shrinks.

    Up to half of the chunks the drawn are counted, above half those left out: each side grows.
    """
    for low, high in ((5, 50), (51, 99)):
        small, large = (set(draw_slice(ticket(3), ROOT, 100, size)) for size in (low, high))
        assert small < large


def test_words_that_would_make_the_remainder_uneven_are_skipped(monkeypatch):
    """2^64 - 1 is 0 modulo 3, and one too many of them."""
    blocks = iter([b"\xff" * 32, (1).to_bytes(8, "little") * 4])
    monkeypatch.setattr(crypto, "digest", lambda *parts: next(blocks))
    assert draw_slice(b"", b"", 3, 1) == (1,)


@pytest.mark.parametrize("total, size", [(40, 6), (40, 34), (10, 3)])
def test_every_chunk_is_equally_likely_to_be_drawn(total, size):
    """Chi-square over fixed tickets; drawing without replacement scales it by (total-size)."""
    rounds = 4000
    counts = [0] * total
    for number in range(rounds):
        for chunk in draw_slice(ticket(number), ROOT, total, size):
            counts[chunk] += 1
    expected = rounds * size / total
    statistic = sum((count - expected) ** 2 for count in counts) / expected
    assert statistic * (total - 1) / (total - size) < CHI_SQUARE_999[total - 1]


def test_two_chunks_are_drawn_together_as_often_as_chance_says():
    rounds, total, size = 4000, 12, 4
    counts = dict.fromkeys(combinations(range(total), 2), 0)
    for number in range(rounds):
        for pair in combinations(draw_slice(ticket(number), ROOT, total, size), 2):
            counts[pair] += 1
    expected = rounds * comb(size, 2) / comb(total, 2)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


@pytest.mark.parametrize("total", range(1, 9))
def test_the_chance_to_miss_is_exact(total):
    """Against counting every possible slice."""
    for rerun in range(total + 1):
        slices = list(combinations(range(total), rerun))
        for forged in range(total + 1):
            blind = sum(1 for drawn in slices if not any(chunk < forged for chunk in drawn))
            assert miss_probability(total, rerun, forged) == Fraction(blind, len(slices))


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 300), st.integers(0, 300))
def test_the_chance_to_miss_falls_with_every_further_chunk(total, rerun, forged):
    miss = miss_probability(total, rerun, forged)
    assert 0 <= miss <= 1
    assert miss_probability(total, rerun + 1, forged) <= miss
    assert miss_probability(total, rerun, forged + 1) <= miss


TABLE = {10_000: "9.8", 30_000: "3.3", 100_000: "1.0"}


@pytest.mark.parametrize("total", TABLE)
def test_the_network_cost_is_the_one_the_protocol_promises(total):
    cost = 10 * TIERS["audited"](total, 10) / total
    assert f"{100 * cost:.1f}" == TABLE[total]


@pytest.mark.parametrize("validators", [1, 4, 7, 10, 128])
@pytest.mark.parametrize("total", [1, 2, 7, 99, 1000, 20_000])
def test_an_audited_slice_is_the_smallest_that_suffices(total, validators):
    size = TIERS["audited"](total, validators)
    forged, honest = -(-total // 100), 2 * ((validators - 1) // 3) + 1
    assert miss_probability(total, size, forged) ** honest <= AUDITED_MISS
    assert size == 1 or miss_probability(total, size - 1, forged) ** honest > AUDITED_MISS


def test_more_validators_need_smaller_slices():
    sizes = [TIERS["audited"](10_000, n) for n in (1, 4, 7, 10, 31, 100)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_replicated_slice_is_everything():
    assert slice_size("replicated", 1000, 40, 4) == 40
    assert draw_slice(ticket(1), ROOT, 40, 40) == tuple(range(40))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5000), st.integers(1, 500), st.sampled_from([1, 4, 7, 10]))
def test_the_segments_of_a_job_bear_at_least_its_whole_slice(total, segment, validators):
    segment = min(segment, total)
    counts = [min(segment, total - first) for first in range(0, total, segment)]
    size_of = {n: slice_size("audited", total, n, validators) for n in set(counts)}
    shares = [size_of[count] for count in counts]
    assert sum(shares) >= TIERS["audited"](total, validators)
    assert all(1 <= share <= count for share, count in zip(shares, counts, strict=True))


@pytest.mark.parametrize("validators", [4, 7, 10])
@pytest.mark.parametrize("total, segments", [(1000, 2), (1000, 10), (10_000, 10), (10_000, 100)])
def test_cutting_a_job_into_segments_hardly_helps_a_faker(total, segments, validators):
    """Each segment is drawn from alone. Forgeries spread evenly are then the worst case."""
    count, honest = total // segments, 2 * ((validators - 1) // 3) + 1
    size, forged = slice_size("audited", total, count, validators), total // 100
    each, rest = divmod(forged, segments)
    miss = miss_probability(count, size, each) ** (segments - rest)
    miss *= miss_probability(count, size, each + 1) ** rest
    assert miss**honest < 2 * AUDITED_MISS


def test_a_job_of_a_billion_chunks_is_sized_in_few_multiplications():
    """Sizing is work that a submitter causes on every node; counting down from above took hours."""
    assert TIERS["audited"](2**32, 4) == 230
    assert TIERS["audited"](2**32, 1) == 688, "the N of the table in section 12"
