"""How a claim about one chunk ends (section 10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.dispute import Ruling, settle
from mlchain.crypto import digest
from mlchain.ledger.validators import Validator, ValidatorSet

KEYS = tuple(digest("test-validator", bytes([i])) for i in range(10))
OUTCOMES = {"=": Outcome.EQUAL, "x": Outcome.DIFFERS, "?": Outcome.UNSERVED}


def members(count: int) -> ValidatorSet:
    return ValidatorSet(tuple(Validator(key, 1) for key in KEYS[:count]))


def rule(ballots: str, count: int, is_due: bool) -> Ruling:
    """`ballots` has a letter for each validator: "=" equal, "x" differs, "?" unserved, "." none."""
    votes = [(KEYS[i], OUTCOMES[b]) for i, b in enumerate(ballots) if b != "."]
    return settle(votes, members(count), is_due)


RULINGS = [  # ballots of all validators, ruling while the window is open, ruling at its end
    (".", Ruling.OPEN, Ruling.LAPSED),
    ("=", Ruling.REJECTED, Ruling.REJECTED),
    ("x", Ruling.UPHELD, Ruling.UPHELD),
    ("?", Ruling.OPEN, Ruling.UNAVAILABLE),
    ("....", Ruling.OPEN, Ruling.LAPSED),
    ("xxx.", Ruling.UPHELD, Ruling.UPHELD),
    ("xx..", Ruling.OPEN, Ruling.LAPSED),
    ("xx==", Ruling.OPEN, Ruling.LAPSED),
    ("xxx=", Ruling.UPHELD, Ruling.UPHELD),
    ("===.", Ruling.REJECTED, Ruling.REJECTED),
    ("===x", Ruling.REJECTED, Ruling.REJECTED),
    ("==..", Ruling.OPEN, Ruling.LAPSED),
    ("?...", Ruling.OPEN, Ruling.LAPSED),
    ("??..", Ruling.OPEN, Ruling.UNAVAILABLE),
    ("??==", Ruling.OPEN, Ruling.UNAVAILABLE),
    ("?===", Ruling.REJECTED, Ruling.REJECTED),
    ("????", Ruling.OPEN, Ruling.UNAVAILABLE),
    ("??xx", Ruling.OPEN, Ruling.UNAVAILABLE),
    ("xxxx...", Ruling.OPEN, Ruling.LAPSED),
    ("xxxxx..", Ruling.UPHELD, Ruling.UPHELD),
    ("??.....", Ruling.OPEN, Ruling.LAPSED),
    ("???....", Ruling.OPEN, Ruling.UNAVAILABLE),
    ("=====??", Ruling.REJECTED, Ruling.REJECTED),
]


@pytest.mark.parametrize("ballots, open_, due", RULINGS, ids=[row[0] for row in RULINGS])
def test_the_table_of_rulings(ballots, open_, due):
    assert rule(ballots, len(ballots), is_due=False) == open_
    assert rule(ballots, len(ballots), is_due=True) == due


def test_ballots_of_strangers_weigh_nothing():
    votes = [(key, Outcome.DIFFERS) for key in KEYS[4:10]]
    assert settle(votes, members(4), is_due=False) == Ruling.OPEN


def test_weights_count_and_not_heads():
    heavy = ValidatorSet((Validator(KEYS[0], 5), Validator(KEYS[1], 1), Validator(KEYS[2], 1)))
    assert settle([(KEYS[0], Outcome.DIFFERS)], heavy, is_due=False) == Ruling.UPHELD
    light = [(KEYS[1], Outcome.DIFFERS), (KEYS[2], Outcome.DIFFERS)]
    assert settle(light, heavy, is_due=False) == Ruling.OPEN


@pytest.mark.parametrize("count", range(1, 11))
@given(data=st.data())
def test_f_liars_decide_nothing(count, data):
    """Whatever f say, and with every honest validator saying the truth, the truth comes out."""
    faults = (count - 1) // 3
    truth = data.draw(st.sampled_from("=x"))
    lies = data.draw(st.text("=x?.", min_size=faults, max_size=faults))
    due = data.draw(st.booleans())
    expected = Ruling.REJECTED if truth == "=" else Ruling.UPHELD
    assert rule(lies + truth * (count - faults), count, due) == expected


@pytest.mark.parametrize("count", range(1, 11))
@given(data=st.data())
def test_f_liars_alone_accuse_nobody(count, data):
    faults = (count - 1) // 3
    lies = data.draw(st.text("x?", min_size=faults, max_size=faults))
    assert rule(lies, count, is_due=True) == Ruling.LAPSED
