"""CAR files: the blocks of a file in one stream, each compared with its id."""

import hashlib
import io

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mlchain.errors import CodecError, MlchainError, VerificationFailed
from mlchain.ledger import car, unixfs

DATA = hashlib.shake_256(b"car").digest(600_000)


def make(data: bytes = DATA) -> tuple[bytes, bytes]:
    """Return the id of a file and the CAR file with its blocks."""
    blocks: list[bytes] = []
    cid = unixfs.add(data, lambda cid, block: blocks.append(car.car_block(cid, block)))
    return cid, car.car_header(cid) + b"".join(blocks)


def read(data: bytes) -> tuple[list[bytes], dict[bytes, bytes]]:
    source = io.BytesIO(data)
    return car.read_roots(source), dict(car.read_blocks(source))


def test_what_is_written_is_read():
    cid, data = make()
    roots, blocks = read(data)
    assert roots == [cid] and len(blocks) == 4
    kept: dict[bytes, bytes] = {}
    unixfs.add(DATA, kept.__setitem__)
    assert blocks == kept


def test_the_header_is_the_one_of_the_specification():
    # The header of the fixture carv1-basic.car of ipld.io has two roots, in this very form.
    cid = unixfs.cid_of(b"x")
    expected = "3aa265726f6f747381d82a582500" + cid.hex() + "6776657273696f6e01"
    assert car.car_header(cid).hex() == expected


def test_a_file_may_have_many_roots():
    cids = [unixfs.cid_of(bytes([n])) for n in range(30)]
    for count in (2, 23, 24, 30):
        head = bytes([0x80 + count]) if count < 24 else bytes([0x98, count])
        body = b"".join(b"\xd8\x2a\x58\x25\x00" + cid for cid in cids[:count])
        header = b"\xa2\x65roots" + head + body + b"\x67version\x01"
        assert car.read_roots(io.BytesIO(car._frame(header))) == cids[:count]


def test_a_flipped_bit_in_a_block_is_found_and_the_block_named():
    cid, data = make()
    spoilt = bytearray(data)
    spoilt[-1] ^= 1  # in the node above the leaves, which comes last
    with pytest.raises(VerificationFailed, match=unixfs.cid_text(cid)):
        read(bytes(spoilt))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "header is missing"),
        (b"\xff\xff\xff\x7f", "header is missing or too large"),
        (b"\x0a\xa1\x67version\x02", "version 2"),
        (car._frame(b"\xa2\x65roots\x80\x67version\x01"), "not a CAR file of version 1"),
        (car._frame(b"\xa0"), "not a CAR file of version 1"),
        (make()[1][:-1], "cut off"),
        (make()[1] + b"\xff\xff\xff\xff\xff\x01", "too long"),
        (make()[1] + b"\xff", "cut off or too long"),
        (make()[1] + car._frame(bytes(40)), "not a content id"),
        (make()[1] + car._frame(bytes(2_000_000)), "a section of 2000000 bytes"),
    ],
)
def test_what_is_no_car_file_is_refused(data, reason):
    with pytest.raises(CodecError, match=reason):
        read(data)


@given(st.binary(max_size=80), st.integers(0, 130), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(noise, place, cut):
    data = make(b"small")[1]
    spoilt = data[:place] if cut else data[:place] + noise + data[place + len(noise) :]
    try:
        roots, blocks = read(spoilt)
    except MlchainError:
        return
    for cid, block in blocks.items():
        assert hashlib.sha256(block).digest() == cid[4:]
    assert roots
