"""One value has one encoding, one encoding has one value, and nothing else is accepted."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from typing import Annotated

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from msgspec import Meta
from record_strategies import ledger_records, unbounded, values

from mlchain import codec
from mlchain.codec import Hash, Name, Record, Uint, decode, encode
from mlchain.errors import CodecError

RECORDS = ledger_records()
quiet = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
by_name = pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)


class Sample(Record, frozen=True):
    number: Uint
    text: Name
    data: Annotated[bytes, Meta(max_length=300)]
    rows: Annotated[tuple[Uint, ...], Meta(max_length=20)]
    hash: Hash | None
    flag: bool


SAMPLE = Sample(5, "five", b"\x01\x02", (1, 300), None, True)
PLAIN = bytes.fromhex("9605a46669766 5c4020102 92 01cd012c c0 c3".replace(" ", ""))


def is_refused(data: bytes, kind=Sample) -> bool:
    try:
        decode(kind, data)
    except CodecError:
        return True
    return False


def lenient(kind, data):
    """What a decoder that does not compare would accept."""
    return msgspec.msgpack.decode(data, type=kind)


# Every record of the ledger


def test_the_ledger_has_records():
    assert len(RECORDS) >= 15


@by_name
def test_a_record_is_bounded_in_every_field(kind):
    assert not list(unbounded(kind))


@by_name
@given(data=st.data())
@quiet
def test_a_record_goes_there_and_back(kind, data):
    value = data.draw(values(kind))
    again = decode(kind, encode(value))
    assert again == value and encode(again) == encode(value)


@by_name
@given(data=st.data())
@quiet
def test_mutated_bytes_are_refused_or_are_exactly_another_value(kind, data):
    good = encode(data.draw(values(kind)))
    assert is_refused(good[: data.draw(st.integers(0, len(good) - 1))], kind)
    assert is_refused(good + data.draw(st.binary(min_size=1, max_size=3)), kind)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    try:
        value = decode(kind, bytes(bad))
    except CodecError:
        return
    assert encode(value) == bytes(bad)


@by_name
@given(noise=st.binary(max_size=60))
@quiet
def test_noise_is_refused_and_never_crashes(kind, noise):
    with suppress(CodecError):
        assert encode(decode(kind, noise)) == noise


@by_name
@given(data=st.data())
@settings(quiet, max_examples=5)
def test_a_field_too_many_or_too_few_is_refused(kind, data):
    fields = msgspec.structs.astuple(data.draw(values(kind)))
    assert not is_refused(encode(fields), kind)
    fewer = [fields[:-1], fields[1:]] if fields else []
    for other in ((*fields, 0), (*fields, None), *fewer):
        assert is_refused(encode(other), kind)


# Canonical msgpack

NOT_CANONICAL = {  # what replaces which bytes of PLAIN
    "5 in 2 bytes": (b"\x05", b"\xcc\x05"),
    "5 in 3 bytes": (b"\x05", b"\xcd\x00\x05"),
    "5 in 5 bytes": (b"\x05", b"\xce\x00\x00\x00\x05"),
    "5 in 9 bytes": (b"\x05", b"\xcf" + (5).to_bytes(8, "big")),
    "5 as signed 8 bits": (b"\x05", b"\xd0\x05"),
    "5 as signed 64 bits": (b"\x05", b"\xd3" + (5).to_bytes(8, "big")),
    "300 in 5 bytes": (b"\xcd\x01\x2c", b"\xce\x00\x00\x01\x2c"),
    "300 as signed 16 bits": (b"\xcd\x01\x2c", b"\xd1\x01\x2c"),
    "text with an 8-bit length": (b"\xa4five", b"\xd9\x04five"),
    "text with a 16-bit length": (b"\xa4five", b"\xda\x00\x04five"),
    "text with a 32-bit length": (b"\xa4five", b"\xdb\x00\x00\x00\x04five"),
    "bytes with a 16-bit length": (b"\xc4\x02\x01\x02", b"\xc5\x00\x02\x01\x02"),
    "bytes with a 32-bit length": (b"\xc4\x02\x01\x02", b"\xc6\x00\x00\x00\x02\x01\x02"),
    "tuple with a 16-bit length": (b"\x92\x01", b"\xdc\x00\x02\x01"),
    "tuple with a 32-bit length": (b"\x92\x01", b"\xdd\x00\x00\x00\x02\x01"),
    "record with a 16-bit length": (b"\x96", b"\xdc\x00\x06"),
}


def test_the_plain_encoding_is_the_one_written_here():
    assert encode(SAMPLE) == PLAIN and decode(Sample, PLAIN) == SAMPLE


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_a_second_way_to_write_the_same_value_is_refused(name):
    old, new = NOT_CANONICAL[name]
    assert PLAIN.count(old) == 1
    other = PLAIN.replace(old, new)
    assert is_refused(other)
    # Control: the decoder underneath takes it for the same value, which would give it two ids.
    assert lenient(Sample, other) == SAMPLE


OTHER_TYPES = {
    "a float": (b"\x05", b"\xcb" + struct.pack(">d", 5.0)),
    "a negative number": (b"\x05", b"\xff"),
    "a number of 64 bits": (b"\x05", b"\xcf" + (2**63).to_bytes(8, "big")),
    "true for a number": (b"\x05", b"\xc3"),
    "nil for a number": (b"\x05", b"\xc0"),
    "a number for true": (b"\xc0\xc3", b"\xc0\x01"),
    "bytes for text": (b"\xa4five", b"\xc4\x04five"),
    "text for bytes": (b"\xc4\x02\x01\x02", b"\xa2\x01\x02"),
    "text that is not UTF-8": (b"\xa4five", b"\xa4\xff\xfe\xfd\xfc"),
    "a surrogate": (b"\xa4five", b"\xa3\xed\xa0\x80"),
    "overlong UTF-8": (b"\xa4five", b"\xa2\xc0\xaf"),
    "empty text": (b"\xa4five", b"\xa0"),
    "a map": (b"\x92\x01\xcd\x01\x2c", b"\x81\x01\x02"),
    "an extension": (b"\xc4\x02\x01\x02", b"\xc7\x02\x05\x01\x02"),
    "a timestamp": (b"\x05", b"\xd6\xff\x00\x00\x00\x05"),
    "the unused byte": (b"\x05", b"\xc1"),
    "a short hash": (b"\xc0\xc3", b"\xc4\x1f" + bytes(31) + b"\xc3"),
}


@pytest.mark.parametrize("name", OTHER_TYPES)
def test_another_type_or_range_is_refused(name):
    old, new = OTHER_TYPES[name]
    assert PLAIN.count(old) == 1
    assert is_refused(PLAIN.replace(old, new))


def test_a_record_written_as_a_map_is_refused():
    fields = dict(zip(Sample.__struct_fields__, msgspec.structs.astuple(SAMPLE), strict=True))
    assert is_refused(encode(fields))


# Bounds come before memory

HUGE = {
    "text": b"\x96\x05\xdb\xff\xff\xff\xff",
    "bytes": b"\x96\x05\xa4five\xc6\xff\xff\xff\xff",
    "tuple": b"\x96\x05\xa4five\xc4\x00\xdd\xff\xff\xff\xff",
    "record": b"\xdd\xff\xff\xff\xff\x05",
    "map": b"\xdf\xff\xff\xff\xff",
    "extension": b"\xc9\xff\xff\xff\xff\x05",
    "tuple filled with ones": b"\x96\x05\xa4five\xc4\x00\xdd\x00\x30\x00\x00" + b"\x01" * 0x300000,
    "nested arrays": b"\x91" * 1_000_000,
}


@pytest.mark.parametrize("name", HUGE)
def test_a_header_that_claims_gigabytes_allocates_nothing(name):
    is_refused(HUGE[name])  # the error's own machinery warms up
    tracemalloc.start()
    try:
        assert is_refused(HUGE[name])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_input_beyond_its_bound_is_refused_before_it_is_parsed(monkeypatch):
    assert decode(Sample, PLAIN, len(PLAIN)) == SAMPLE

    def parsed(kind):
        raise AssertionError("parsed")

    monkeypatch.setattr(codec, "_decoders", {})
    monkeypatch.setattr(codec.msgspec.msgpack, "Decoder", parsed)
    with pytest.raises(CodecError, match=rf"Sample: {len(PLAIN)} bytes, at most {len(PLAIN) - 1}"):
        decode(Sample, PLAIN, len(PLAIN) - 1)
    with pytest.raises(CodecError, match="at most 4194304"):
        decode(Sample, bytes((4 << 20) + 1))


def test_values_out_of_bounds_are_refused_whoever_encoded_them():
    for bad in (
        Sample(2**63, "x", b"", (), None, True),
        Sample(1, "x" * 65, b"", (), None, True),
        Sample(1, "x", bytes(301), (), None, True),
        Sample(1, "x", b"", (1,) * 21, None, True),
        Sample(1, "x", b"", (), bytes(33), True),
    ):
        assert is_refused(encode(bad))


def test_plain_values_go_there_and_back():
    assert decode(int, encode(7)) == 7
    assert decode(tuple[int, ...], encode((1, 2))) == (1, 2)
    assert decode(bytes, encode(b"x")) == b"x"
    with pytest.raises(CodecError):
        decode(int, encode("7"))
