"""Rounding onto grids and into state, and the probe of the process."""

from __future__ import annotations

import math
import platform
import struct
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain.errors import Trap
from mlchain.ml_runtime import grid

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e150, max_value=1e150)


def quantised(values, bits):
    x = np.array(values, np.float64)
    out = np.empty_like(x)
    grid.quantise(x, bits, grid.peak(x), out)
    return out.tolist()


@given(st.lists(finite, min_size=1, max_size=8), st.integers(2, 48))
def test_quantise_is_round_half_even_on_one_grid_per_tensor(values, bits):
    largest = max(map(abs, values))
    if largest < 2.0**-400:
        assert quantised(values, bits) == [0.0] * len(values)
        return
    unit = Fraction(2) ** (1 + math.floor(_log2(largest)) - (bits - 1))
    expected = [float(round(Fraction(v) / unit) * unit) for v in values]
    got = quantised(values, bits)
    assert got == expected
    assert all(abs(Fraction(g) / unit) <= 2 ** (bits - 1) for g in got)


def _log2(x):
    return math.frexp(x)[1] - 1


def test_quantising_a_grid_changes_nothing():
    once = quantised([0.3, -1.7, 0.001], 16)
    assert quantised(once, 16) == once


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**500, -(2.0**500)])
def test_quantise_traps_on_what_products_could_not_hold(value):
    with pytest.raises(Trap):
        quantised([1.0, value], 16)


def test_quantise_accepts_what_lies_just_below_the_bound():
    assert quantised([math.nextafter(2.0**500, 0)], 16) == [2.0**500]


@given(st.lists(finite, min_size=1, max_size=8), st.integers(-20, 20))
def test_saturate_does_to_a_row_what_it_does_to_it_in_company(values, exponent):
    x = np.array(values)
    together, alone = np.empty_like(x), np.empty_like(x)
    grid.saturate(x, 16, exponent, together)
    for i in range(len(x)):
        grid.saturate(x[i : i + 1], 16, exponent, alone[i : i + 1])
    assert np.array_equal(together, alone)
    assert np.all(np.abs(together) <= 2.0**exponent - 2.0 ** (exponent - 15))


def test_dynamic_scales_would_let_one_row_change_another():
    """Control of the test above."""
    assert quantised([0.3], 16) != quantised([0.3, 1e6], 16)[:1]


@given(finite)
def test_state_is_binary32_without_what_lies_below_and_never_minus_zero(value):
    out = np.empty(1, np.float32)
    with np.errstate(over="ignore"):
        grid.round_state(np.array([value]), out)
    got = float(out[0])
    if abs(value) > 3.4028235677973366e38:
        assert got == math.copysign(math.inf, value)
    elif abs(value) >= 2.0**-7:  # here 2^-60 is below half a unit and changes nothing
        assert got == struct.unpack("<f", struct.pack("<f", value))[0]
    else:
        assert abs(got - value) <= 2.0**-113 + abs(value) * 2.0**-24
    assert got != 0 or not math.copysign(1, got) < 0
    assert got == 0 or abs(got) >= 2.0**-113


def test_this_process_passes_the_probe():
    grid.probe()


HOSTILE = """
import ctypes, mmap, sys
import mlchain.ml_runtime
from mlchain.errors import ConfigError
from mlchain.ml_runtime.grid import probe
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("0fae17c3"))  # ldmxcsr [rdi]; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
control = ctypes.c_uint32(int(sys.argv[1], 16))
ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.addressof(control))
try:
    probe()
except ConfigError as error:
    print("refused:", error.message)
else:
    print("accepted")
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="switches the control word of x86")
@pytest.mark.parametrize(
    ("control", "verdict"),
    [
        ("1f80", "accepted"),  # the default: the control
        ("9f80", "refused: floating point: subnormal numbers are flushed to zero"),
        ("1fc0", "refused: floating point: subnormal numbers are flushed to zero"),
        ("3f80", "refused: floating point: rounding is not to nearest even"),
        ("5f80", "refused: floating point: rounding is not to nearest even"),
        ("7f80", "refused: floating point: rounding is not to nearest even"),
    ],
)
def test_the_probe_refuses_a_process_that_rounds_otherwise(control, verdict):
    out = subprocess.run(
        [sys.executable, "-c", HOSTILE, control], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == verdict


def test_a_total_of_more_than_sums_hold_is_exact_and_rounded_once():
    r = np.random.default_rng(3)
    x = r.integers(2**46, 2**47, 1001).astype(np.float64)
    exact = float(sum(map(int, x.tolist())))
    orders = (x, x[::-1].copy(), np.sort(x))
    assert {grid.total(each, 48) for each in orders} == {exact}
    assert len({float(np.add.accumulate(each)[-1]) for each in orders}) > 1, "the control: plain"
