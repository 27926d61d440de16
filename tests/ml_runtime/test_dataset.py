"""Datasets: rounded once, one encoding, hostile bytes refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_factory import make_dataset

from mlchain import codec
from mlchain.errors import CodecError, ConfigError
from mlchain.ml_runtime import Dataset
from mlchain.ml_runtime.data import DatasetHeader

number = st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-25)


@given(st.lists(st.tuples(number, number), min_size=1, max_size=9), st.booleans())
def test_a_dataset_is_what_its_bytes_say(rows, shared):
    data = Dataset.from_arrays(rows, [[a] for a, _ in rows], shared_scale=shared)
    again = Dataset.decode(data.encode())
    assert again.header == data.header
    assert np.array_equal(again.x, data.x)
    assert np.array_equal(again.y, data.y)
    assert again.encode() == data.encode()


@given(st.lists(st.tuples(number, number), min_size=1, max_size=9), st.booleans())
def test_rounding_moves_a_feature_by_one_part_in_2_to_15_of_its_scale_at_most(rows, shared):
    data = Dataset.from_arrays(rows, [0] * len(rows), classes=1, shared_scale=shared)
    units = np.ldexp(1.0, np.array(data.header.exponents) - 15)
    assert np.all(np.abs(data.x * units - np.array(rows)) <= units)


def test_columns_in_different_units_keep_their_digits_with_scales_of_their_own():
    x = np.array([[1e6, 0.001], [2e6, 0.002], [3e6, 0.004]])
    own = Dataset.from_arrays(x, [0, 0, 0], classes=1, shared_scale=False)
    shared = Dataset.from_arrays(x, [0, 0, 0], classes=1, shared_scale=True)
    assert len(set(own.x[:, 1].tolist())) == 3
    assert set(shared.x[:, 1].tolist()) == {0}


def test_labels_and_values_keep_every_bit():
    values = np.array([[0.1], [1 / 3], [-2e29]])
    assert np.array_equal(Dataset.from_arrays(np.ones((3, 1)), values).y, values)
    assert make_dataset().y.dtype == np.int64


@pytest.mark.parametrize(
    ("x", "y", "classes"),
    [
        ([[1.0], [np.nan]], [0, 1], 2),
        ([[1.0], [np.inf]], [0, 1], 2),
        ([[1.0], [1e31]], [0, 1], 2),
        ([[1.0], [1e-31]], [0, 1], 2),
        ([[1.0], [5e-324]], [0, 1], 2),
        ([[1.0], [2.0]], [0, 2], 2),
        ([[1.0], [2.0]], [0, -1], 2),
        ([[1.0], [2.0]], [0, 0.5], 2),
        ([[1.0], [2.0]], [0], 2),
        ([1.0, 2.0], [0, 1], 2),
        ([[1.0], [2.0]], [0, np.nan], 0),
        ([[], []], [0, 1], 2),
    ],
)
def test_what_cannot_be_a_dataset_is_refused(x, y, classes):
    with pytest.raises(ConfigError):
        Dataset.from_arrays(x, y, classes=classes)


def hostile() -> dict[str, bytes]:
    good = make_dataset(rows=4, features=2).encode()
    values = make_dataset(rows=4, features=2, classes=0, outputs=1).encode()
    huge = codec.encode(DatasetHeader("class", 2**31, 3, (0,) * 1000))
    small = codec.encode(DatasetHeader("class", 1, 3, (0,)))
    head = len(small).to_bytes(4, "little") + small
    return {
        "nothing": b"",
        "half a length": good[:2],
        "cut": good[:-1],
        "longer": good + b"\0",
        "a header longer than the bytes": b"\xff\xff\xff\x7f" + good[4:],
        "no header": (0).to_bytes(4, "little") + good[4:],
        "a header that is not canonical": (1).to_bytes(4, "little") + b"\x94",
        "rows without end": len(huge).to_bytes(4, "little") + huge,
        "a mantissa of -2^15": head + b"\x00\x80" + bytes(8),
        "a label beyond the classes": head + bytes(2) + (3).to_bytes(8, "little"),
        "a label below zero": head + bytes(2) + b"\xff" * 8,
        "a target that is not a number": values[:-8] + np.float64(np.nan).tobytes(),
        "a target out of range": values[:-8] + np.float64(1e300).tobytes(),
        "minus zero": values[:-8] + np.float64(-0.0).tobytes(),
    }


@pytest.mark.parametrize("what", hostile())
def test_hostile_bytes_are_refused(what):
    with pytest.raises(CodecError):
        Dataset.decode(hostile()[what])


@given(st.binary(max_size=80))
def test_random_bytes_never_crash_the_decoder(data):
    with pytest.raises(CodecError):
        Dataset.decode(data)
