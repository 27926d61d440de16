"""Parts of a dataset: every row once, the test rows in all, the same bytes from the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain.errors import ConfigError
from mlchain.ml_runtime import Dataset
from mlchain.ml_runtime.partition import draw_rows, partition

SEED = bytes(range(32))
seeds = st.binary(min_size=32, max_size=32)


def numbered(rows: int) -> Dataset:
    """A dataset in which each row says its number."""
    x = np.arange(rows, dtype=np.float64)[:, None] + 1
    return Dataset.from_arrays(np.hstack([x, x / 1000]), x, shared_scale=False)


@given(seeds, st.integers(1, 200), st.integers(1, 20))
def test_every_row_is_in_one_part_and_sizes_differ_by_one_at_most(seed, rows, parts):
    parts = min(rows, parts)
    drawn = draw_rows(seed, rows, parts)
    assert sorted(np.concatenate(drawn).tolist()) == list(range(rows))
    sizes = [len(part) for part in drawn]
    assert len(sizes) == parts and max(sizes) - min(sizes) <= 1


def test_the_draw_of_a_seed_never_changes():
    first, second, third = draw_rows(SEED, 10, 3)
    assert (first.tolist(), second.tolist(), third.tolist()) == DRAWN


DRAWN = ([5, 2, 9], [7, 0, 4], [1, 3, 8, 6])


def test_another_seed_is_another_draw():
    draws = [tuple(draw_rows(bytes([i]) * 32, 30, 3)[0].tolist()) for i in range(20)]
    assert len(dict.fromkeys(draws)) == 20


@given(seeds, st.integers(2, 6), st.integers(0, 9))
def test_a_part_holds_its_rows_bit_for_bit_and_then_the_test_rows(seed, parts, test_rows):
    whole = numbered(40)
    drawn = draw_rows(seed, 40 - test_rows, parts)
    made = list(partition(whole, seed, parts, test_rows))
    assert len(made) == parts
    for numbers, part in zip(drawn, made, strict=True):
        wanted = [*numbers.tolist(), *range(40 - test_rows, 40)]
        assert part.header.exponents == whole.header.exponents
        assert part.x.tobytes() == whole.x[wanted].tobytes()
        assert (part.y[:, 0] - 1).tolist() == wanted
        assert Dataset.decode(part.encode()).encode() == part.encode()


def test_fewer_rows_than_parts_are_refused():
    with pytest.raises(ConfigError, match="do not make 5 parts"):
        list(partition(numbered(9), SEED, 5, 5))
