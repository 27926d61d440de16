"""Tiers: who re-runs how much, what slips by, what it costs, which stakes it takes (section 12)."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlchain.consensus.work.assurance import (
    AUDITED_MISS,
    NAMES,
    Assurance,
    Shape,
    Tier,
    assess_stakes,
    bound_miss,
    check_tier,
    deterrent,
    parse_tier,
    slice_size,
    worst_miss,
)
from mlchain.consensus.work.sampling import draw_slice, miss_probability
from mlchain.crypto import digest
from mlchain.errors import InvalidTransaction

AUDITED, REPLICATED, ECONOMIC = (Tier(name) for name in ("audited", "replicated", "economic"))


def audited(total: int, validators: int) -> int:
    return slice_size(AUDITED, total, total, validators)


@pytest.mark.parametrize("text", ["economic", "audited", "covered:1", "covered:12", "replicated"])
def test_a_tier_is_written_as_it_is_read(text):
    assert str(parse_tier(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "Audited", "audited:", "audited:1", "covered", "covered:", "covered:0", "covered:02",
     "covered:-1", "covered:2.0", "covered:²", "covered: 2", "covered:2:2", "replicated:4"],
)  # fmt: skip
def test_any_other_spelling_is_refused_with_the_list(text):
    with pytest.raises(InvalidTransaction) as refused:
        parse_tier(text)
    assert all(name in refused.value.hint for name in NAMES)


def test_nobody_can_ask_for_more_validators_than_there_are():
    check_tier(Tier("covered", 4), 4)
    with pytest.raises(InvalidTransaction, match="the chain has 4"):
        check_tier(Tier("covered", 5), 4)
    with pytest.raises(InvalidTransaction):
        check_tier(parse_tier("covered:" + "9" * 40), 4)


TABLE = {10_000: "9.8", 30_000: "3.3", 100_000: "1.0"}


@pytest.mark.parametrize("total", TABLE)
def test_the_network_cost_is_the_one_the_protocol_promises(total):
    cost = Assurance(AUDITED, Shape(total, total, 10)).cost
    assert f"{float(100 * cost):.1f}" == TABLE[total]


@pytest.mark.parametrize("total", [10_000, 1_000_000])
def test_economic_costs_less_than_a_percent_of_a_long_job(total):
    cost = Assurance(ECONOMIC, Shape(total, total // 10, 4)).cost
    assert Fraction(1, 200) <= cost <= Fraction(1, 100)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_covered_costs_as_much_work_as_its_depth_says(depth):
    found = Assurance(Tier("covered", depth), Shape(1000, 200, 4))
    assert found.cost == depth and found.rerun == 250 * depth


def test_replicated_costs_everything_once_for_everybody():
    found = Assurance(REPLICATED, Shape(1000, 200, 4))
    assert found.cost == 4 and found.miss(1) == 0


@pytest.mark.parametrize("validators", [1, 4, 7, 10, 128])
@pytest.mark.parametrize("total", [1, 2, 7, 99, 1000, 20_000])
def test_an_audited_slice_is_the_smallest_that_suffices(total, validators):
    size = audited(total, validators)
    forged, honest = -(-total // 100), 2 * ((validators - 1) // 3) + 1
    assert miss_probability(total, size, forged) ** honest <= AUDITED_MISS
    assert size == 1 or miss_probability(total, size - 1, forged) ** honest > AUDITED_MISS


def test_more_validators_need_smaller_slices():
    sizes = [audited(10_000, n) for n in (1, 4, 7, 10, 31, 100)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_replicated_slice_is_everything():
    assert slice_size(REPLICATED, 1000, 40, 4) == 40
    assert draw_slice(digest("test-ticket"), digest("test-root"), 40, 40) == tuple(range(40))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5000), st.integers(1, 500), st.sampled_from([1, 4, 7, 10]))
def test_the_segments_of_a_job_bear_at_least_its_whole_slice(total, segment, validators):
    shape = Shape(total, min(segment, total), validators)
    found = Assurance(AUDITED, shape)
    assert found.rerun >= audited(total, validators)
    pairs = zip(found.slices, shape.segments, strict=True)
    assert all(1 <= share <= count for share, count in pairs)


@pytest.mark.parametrize("validators", [4, 7, 10])
@pytest.mark.parametrize("total, segments", [(1000, 2), (1000, 10), (10_000, 10), (10_000, 100)])
def test_cutting_a_job_into_segments_does_not_help_a_faker(total, segments, validators):
    """Each segment is drawn from alone, and who forges spreads its chunks evenly over them."""
    found = Assurance(AUDITED, Shape(total, total // segments, validators))
    assert found.miss(total // 100) <= AUDITED_MISS


def test_control_slices_sized_for_the_whole_miss_more_than_promised_once_the_job_is_cut():
    size = audited(1000, 4)
    assert size % 5 == 0, "no rounding up hides it"
    assert worst_miss([(1000, size)], 10) ** 3 <= AUDITED_MISS
    assert worst_miss([(200, size // 5)] * 5, 10) ** 3 > AUDITED_MISS


PARTS = [(6, 2), (6, 2), (4, 1), (3, 2)]


@pytest.mark.parametrize("forged", range(8))
def test_the_forger_is_given_the_best_places_there_are(forged):
    """Against trying every way to spread the chunks."""
    ways = [w for w in product(*(range(n + 1) for n, _ in PARTS)) if sum(w) == forged]
    best = max(
        prod((miss_probability(n, s, b) for (n, s), b in zip(PARTS, way, strict=True)), start=1)
        for way in ways
    )
    assert worst_miss(PARTS, forged) == best


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 60), st.integers(1, 6), st.integers(1, 30), st.integers(1, 30))
def test_the_bound_holds_however_a_job_is_cut(count, segments, size, forged):
    size, total = min(size, count), count * segments
    exact = worst_miss([(count, size)] * segments, min(forged, total))
    assert exact <= bound_miss(total, size * segments, forged)


def test_a_job_of_a_billion_chunks_is_sized_in_few_multiplications():
    """Sizing is work that a submitter causes on every node; counting down from above took hours."""
    assert audited(2**32, 4) == 230
    assert audited(2**32, 1) == 688, "the N of the table in section 12"
    assert Assurance(AUDITED, Shape(2**32, 2**20, 4)).miss_share(100) <= AUDITED_MISS


@pytest.mark.parametrize("validators, depth", [(4, 1), (4, 2), (7, 2), (7, 3), (10, 2), (10, 4)])
def test_a_covered_chunk_is_missed_if_only_colluders_hold_it(validators, depth):
    """Against counting every possible hand."""
    found = Assurance(Tier("covered", depth), Shape(100, 100, validators))
    colluders = set(range((validators - 1) // 3))
    hands = list(combinations(range(validators), depth))
    blind = Fraction(sum(1 for hand in hands if colluders.issuperset(hand)), len(hands))
    assert found.miss(1) == blind
    assert found.miss(3) == blind**3


def test_more_colluders_miss_more():
    for tier in (AUDITED, ECONOMIC, Tier("covered", 2)):
        found = Assurance(tier, Shape(1000, 100, 10))
        misses = [found.miss(3, colluders) for colluders in range(8)]
        assert misses == sorted(misses) and misses[0] < misses[-1]


# ---- stakes -----------------------------------------------------------------------------------


def loss(found: Assurance, skipped: int, stake: int, cost: Fraction, pay: Fraction) -> Fraction:
    """What a worker loses by skipping chunks of its one segment, beside doing its work."""
    caught = 1 - found.miss(skipped)
    return caught * (stake + pay) - skipped * cost


@pytest.mark.parametrize("tier", [ECONOMIC, AUDITED, Tier("covered", 1), Tier("covered", 2)])
@pytest.mark.parametrize("pay", [Fraction(0), Fraction(900), Fraction(4000)])
def test_with_the_stake_named_no_number_of_skipped_chunks_pays(tier, pay):
    shape, cost = Shape(40, 40, 7), Fraction(101, 2)
    found = Assurance(tier, shape)
    stake = assess_stakes(found, cost, pay, Fraction(1), Fraction(1, 20), 0).worker
    assert all(loss(found, skipped, stake, cost, pay) > 0 for skipped in range(1, 41))


@pytest.mark.parametrize("tier", [ECONOMIC, AUDITED, Tier("covered", 1), Tier("covered", 2)])
def test_control_with_less_it_pays_to_skip_everything(tier):
    shape, cost, pay = Shape(40, 40, 7), Fraction(101, 2), Fraction(900)
    found = Assurance(tier, shape)
    stake = assess_stakes(found, cost, pay, Fraction(1), Fraction(1, 20), 0).worker
    assert stake > 0 and loss(found, 40, stake - 1, cost, pay) <= 0


def test_a_lazy_validator_needs_a_stake_too():
    """One chunk of cost 1 at an audit rate of 5 %: twenty times what it saves, less its pay."""
    found = Assurance(ECONOMIC, Shape(100, 100, 4))
    stakes = assess_stakes(found, Fraction(1), Fraction(0), Fraction(0), Fraction(1, 20), 0)
    assert stakes.validator == 21
    paid = assess_stakes(found, Fraction(1), Fraction(0), Fraction(5), Fraction(1, 20), 0)
    assert paid.validator == 16
    never = assess_stakes(found, Fraction(1), Fraction(0), Fraction(5), Fraction(0), 0)
    assert never.validator is None, "whom nobody audits, no stake deters"


def test_what_one_spoiled_chunk_may_be_worth_depends_on_the_tier():
    def gain(tier: Tier) -> int | None:
        found = Assurance(tier, Shape(1000, 1000, 7))
        return assess_stakes(
            found, Fraction(1), Fraction(0), Fraction(0), Fraction(1, 20), 10**6
        ).deterred_gain

    assert gain(ECONOMIC) == 5015, "0.999^-5 - 1"
    assert gain(Tier("covered", 2)) == 20 * 10**6
    assert gain(Tier("covered", 3)) is gain(REPLICATED) is None


@given(
    st.fractions(0, 1000, max_denominator=50),
    st.fractions("1/50", 1, max_denominator=50),
    st.fractions(0, 1000, max_denominator=50),
)
def test_a_deterrent_is_the_least_stake_that_deters(saved, caught, pay):
    stake = deterrent(saved, caught, pay)
    assert saved < caught * (stake + pay)
    assert stake == 0 or saved >= caught * (stake - 1 + pay)
