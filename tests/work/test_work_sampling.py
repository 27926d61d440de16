"""Who re-executes what: secret slices, and chunks dealt in public (section 7)."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlchain import crypto
from mlchain.consensus.work.sampling import draw_checkers, draw_slice, miss_probability
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


def everybody_of(depth: int, seed: bytes = ROOT, **how: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [draw_checkers(seed, chunk, 7, depth, **how) for chunk in range(2000)]


@pytest.mark.parametrize("depth", range(1, 8))
def test_every_chunk_is_dealt_to_as_many_different_validators_as_was_asked(depth):
    assert all(len(set(dealt)) == depth for dealt in everybody_of(depth))
    assert all(0 <= number < 7 for dealt in everybody_of(depth) for number in dealt)


def test_every_pair_of_validators_is_dealt_a_chunk_as_often_as_any_other():
    """So f colluders hold a chunk alone with chance C(f, r) / C(n, r), and know not which."""
    counts = dict.fromkeys(combinations(range(7), 2), 0)
    for dealt in everybody_of(2):
        counts[dealt] += 1
    expected = 2000 / comb(7, 2)
    assert sum((c - expected) ** 2 for c in counts.values()) / expected < 45.3, "0.999, 20 degrees"


def test_another_seed_deals_otherwise():
    assert everybody_of(2) != everybody_of(2, seed=digest("test-other"))


def test_who_is_absent_is_replaced_and_nobody_else_loses_a_chunk():
    before, after = everybody_of(2), everybody_of(2, absent=(3,))
    for dealt, again in zip(before, after, strict=True):
        assert len(again) == 2 and 3 not in again
        assert set(dealt) - {3} <= set(again)
    assert all(len(dealt) == 1 for dealt in everybody_of(2, absent=(0, 1, 2, 4, 5, 6)))
