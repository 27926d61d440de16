"""What counts as a write that a crash tore, in the words of LevelDB's log format."""

import struct

import pytest

from mlchain.ledger.torn import BLOCK_BYTES, Kind, crc32c, is_only_torn


def record(kind: Kind, data: bytes) -> bytes:
    check = crc32c(bytes([kind]) + data)
    masked = ((check >> 15 | check << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<IHB", masked, len(data), kind) + data


ONE = record(Kind.FULL, b"one write")
LARGE = record(Kind.FIRST, b"x" * (BLOCK_BYTES - 7)) + record(Kind.LAST, b"and the rest")


@pytest.mark.parametrize(
    ("data", "check"),
    [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)],
)
def test_the_checksum_is_that_of_rfc_3720(data, check):
    assert crc32c(data) == check


@pytest.mark.parametrize("size", range(len(ONE) + 1))
def test_whatever_is_left_of_the_last_write_is_torn(size):
    assert is_only_torn([ONE + ONE[:size]])
    assert is_only_torn([ONE + bytes(size) + ONE[size:][: size % 5]])
    assert is_only_torn([ONE, ONE[:size]])


def test_a_large_write_is_torn_wherever_a_part_of_it_is_missing():
    assert is_only_torn([LARGE])
    for at in (0, 5, 7, 100, BLOCK_BYTES - 1, BLOCK_BYTES + 3, len(LARGE) - 1):
        spoilt = bytearray(LARGE)
        spoilt[at] ^= 1
        assert is_only_torn([bytes(spoilt)]), at


@pytest.mark.parametrize("at", range(len(ONE)))
def test_before_a_whole_write_it_is_damage(at):
    spoilt = bytearray(ONE)
    spoilt[at] ^= 0x10
    assert not is_only_torn([bytes(spoilt) + ONE])
    assert not is_only_torn([bytes(spoilt), ONE])
    assert not is_only_torn([ONE + bytes(spoilt) + ONE])


def test_a_whole_write_of_several_records_behind_it_is_seen_as_well():
    spoilt = bytearray(ONE)
    spoilt[9] ^= 1
    padding = bytes(BLOCK_BYTES - len(ONE))
    assert not is_only_torn([bytes(spoilt) + padding + LARGE])
    assert is_only_torn([bytes(spoilt) + padding + LARGE[:BLOCK_BYTES]])
