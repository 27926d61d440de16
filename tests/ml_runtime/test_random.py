"""Agreed randomness."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain.ml_runtime.random import make_key, permutation, philox, uniform, words

VECTORS = Path(__file__).parent.parent / "vectors" / "ml_runtime"
word = st.integers(0, 2**64 - 1)

PUBLISHED = [  # known answers of the Random123 distribution, philox4x64-10
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    ),
    (
        (2**64 - 1,) * 4,
        (2**64 - 1,) * 2,
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_philox_gives_the_published_words(counter, key, expected):
    assert philox(counter, key) == expected


def test_philox_reproduces_its_vectors():
    for case in json.loads((VECTORS / "philox.json").read_text()):
        assert list(philox(tuple(case["counter"]), tuple(case["key"]))) == case["words"]


@given(st.tuples(word, word), st.integers(0, 30))
def test_a_stream_is_philox_counting_blocks_from_zero(key, count):
    blocks = [w for i in range(-(-count // 4)) for w in philox((i, 0, 0, 0), key)]
    assert words(key, count).tolist() == blocks[:count]


@given(st.binary(min_size=32, max_size=32), st.integers(1, 300))
def test_a_permutation_holds_every_row_once(seed, count):
    order = permutation(make_key(seed, "order", 0), count)
    assert sorted(order.tolist()) == list(range(count))


def test_streams_of_other_seeds_purposes_and_indices_differ():
    keys = [make_key(s, p, i) for s in (b"a", b"b") for p in ("order", "init") for i in (0, 1)]
    assert len({tuple(words(k, 4).tolist()) for k in keys}) == len(keys)


def test_uniform_numbers_fill_the_unit_interval_and_miss_one():
    draws = uniform((1, 2), 40_000)
    assert 0 <= draws.min() < 0.001
    assert 0.999 < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01
    assert np.array_equal(draws, np.round(draws * 2**53) / 2**53)
