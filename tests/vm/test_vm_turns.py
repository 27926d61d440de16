"""Whose turn it is to propose: a floor, a cap, and nobody twice within f + 1 blocks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mlchain.ledger.validators import Validator, ValidatorSet, make_schedule
from mlchain.vm.turns import BONUS, CAP, FLOOR, share_turns

units = st.lists(st.integers(0, 10**15), min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@given(units)
def test_turns_have_a_floor_and_a_cap_and_use_the_whole_pool(work):
    turns, count = share_turns(work), len(work)
    scale = (FLOOR + BONUS) * count // sum(turns)
    assert sum(turns) * scale == (FLOOR + BONUS) * count
    assert min(turns) * scale >= FLOOR
    if count >= 3:
        assert max(turns) * scale <= FLOOR + BONUS * count // CAP


@settings(deadline=None, max_examples=60)
@given(units)
def test_nobody_proposes_twice_within_f_plus_1_slots(work):
    """Else f validators could make all f + 1 blocks in which a claim has to find its place."""
    slots, faults = make_schedule(share_turns(work)), (len(work) - 1) // 3
    for first in range(len(slots)):
        window = [slots[(first + i) % len(slots)] for i in range(faults + 1)]
        assert len(set(window)) == len(window)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_any_turns_make_a_schedule_even_those_that_a_removal_left(turns):
    slots, faults = make_schedule(tuple(turns)), (len(turns) - 1) // 3
    assert len(slots) == sum(turns)
    last = slots[-faults:] + slots if faults else slots
    for first in range(len(last) - faults):
        assert len(set(last[first : first + faults + 1])) == faults + 1


def test_without_work_all_take_turns_in_key_order():
    keys = [bytes([i]) * 32 for i in range(5)]
    found = ValidatorSet(tuple(Validator(key, 1) for key in keys))
    assert share_turns([0] * 5) == (1,) * 5
    assert [found.proposer(7, r) for r in range(5)] == [keys[(7 + r) % 5] for r in range(5)]


def test_equal_work_is_equal_turns():
    assert share_turns([5] * 7) == (1,) * 7
