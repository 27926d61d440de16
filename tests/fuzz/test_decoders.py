"""Whatever bytes come, a decoder returns or raises a MlchainError, and takes little memory."""

import gc
import tracemalloc

import pytest
from spoil import spoilt
from targets import targets

from mlchain.errors import MlchainError

NAMES = (
    "block transaction payload genesis receipt content+block message extension evidence log+entry "
    "last+signature blocks+request blocks+answer batch head chunk+request have+question frames "
    "error+answer plan task dataset state fraud+proof light+path light+question state+answer "
    "conflict block+page state+chunk state+question offers snapshot+index "
    "whole+question whole+block CAR+file archive join+file genesis+signature "
    "opening+request opening ready prediction+receipt "
    "accusation trace+question trace+answer rows"
)
TARGETS = [name.replace("+", " ") for name in NAMES.split()]
MAX_PEAK_BYTES = 8 << 20
"""More than any input here is large; the decoders' own bounds are a few MiB."""


def attack(name: str, seed: int, count: int) -> int:
    """Feed spoilt inputs; return how many were refused."""
    decode, samples = targets()[name]
    refused = 0
    for data in spoilt(seed, samples, count):
        try:
            decode(data)
        except MlchainError as error:
            assert error.message
            refused += 1
        except BaseException as error:
            raise AssertionError(f"{name}, seed {seed}: {data[:80].hex()}…") from error
    return refused


def test_every_decoder_is_attacked():
    assert sorted(TARGETS) == sorted(targets())


@pytest.mark.parametrize("name", TARGETS)
def test_good_bytes_are_taken(name):
    decode, samples = targets()[name]
    assert samples
    for data in samples:
        decode(data)


@pytest.mark.parametrize("name", TARGETS)
def test_spoilt_bytes_are_refused_by_an_error_of_ours(name):
    refused = attack(name, 1, 1000)
    assert refused > 300 or name in ("content block", "frames"), "spoiling spoils"


@pytest.mark.parametrize("name", TARGETS)
def test_spoilt_bytes_take_little_memory(name):
    decode, samples = targets()[name]
    inputs = list(spoilt(2, samples, 60))
    gc.collect()
    tracemalloc.start()
    try:
        for data in inputs:
            try:
                decode(data)
            except MlchainError:
                continue
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_PEAK_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", range(100, 110))
def test_long_attack(name, seed):
    attack(name, seed, 10_000)
