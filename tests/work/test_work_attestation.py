"""What rides in a precommit: bounded, canonical, and nothing else decodes (section 8)."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain import codec
from mlchain.consensus.work.answers import MAX_ANSWERS, MAX_COMMITMENTS, Answer, Commitment
from mlchain.consensus.work.attestation import (
    MAX_ATTESTATIONS,
    MAX_AVAILABLE,
    MAX_REVIEWS,
    MAX_VERDICTS,
    Attestation,
    Available,
    Extension,
    Reviewed,
    Verdict,
    count_stretches,
    decode_extension,
    stretch_range,
)
from mlchain.consensus.work.custody import result_root
from mlchain.crypto import digest
from mlchain.errors import CodecError
from mlchain.ledger.commit import MAX_EXTENSION_BYTES

H = b"h" * 32
ATTESTATION = Attestation(H, 1, H, H, H)
VERDICT = Verdict(H, 1, H, 7, 2)
REVIEW = Reviewed(H, 1, H, 5)
HASHES = st.binary(min_size=32, max_size=32)
UINTS = st.integers(0, 2**63 - 1)
ATTESTATIONS = st.builds(Attestation, HASHES, UINTS, HASHES, HASHES, HASHES)
VERDICTS = st.builds(Verdict, HASHES, UINTS, HASHES, UINTS, st.integers(0, 2))
REVIEWS = st.builds(Reviewed, HASHES, UINTS, HASHES, st.integers(1, 2**32 - 1))
EXTENSIONS = st.builds(
    Extension,
    HASHES,
    HASHES,
    st.lists(st.builds(Available, st.binary(min_size=36, max_size=36), HASHES), max_size=3).map(
        tuple
    ),
    st.lists(ATTESTATIONS, max_size=3).map(tuple),
    st.lists(VERDICTS, max_size=3).map(tuple),
    st.lists(REVIEWS, max_size=3).map(tuple),
)


@given(EXTENSIONS)
def test_an_extension_survives_the_codec(extension):
    assert decode_extension(codec.encode(extension)) == extension


@given(st.binary(max_size=300))
def test_other_bytes_are_refused_with_one_error(data):
    with pytest.raises(CodecError):
        decode_extension(data)


@given(EXTENSIONS, st.data())
def test_a_changed_byte_is_refused_or_is_another_extension(extension, data):
    encoded = bytearray(codec.encode(extension))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    with suppress(CodecError):
        assert decode_extension(bytes(encoded)) != extension


def test_the_fullest_extension_fits_the_bound_of_a_vote():
    contents = tuple(Available(bytes([i]) * 36, H) for i in range(MAX_AVAILABLE))
    full = Extension(
        H,
        H,
        contents,
        (ATTESTATION,) * MAX_ATTESTATIONS,
        (VERDICT,) * MAX_VERDICTS,
        (REVIEW,) * MAX_REVIEWS,
        (Commitment(H, H),) * MAX_COMMITMENTS,
        (Answer(H, H, 0, bytes(36), bytes(64)),) * MAX_ANSWERS,
    )
    assert len(codec.encode(full)) <= MAX_EXTENSION_BYTES


@pytest.mark.parametrize(
    "parts",
    [
        ((Available(b"c" * 36, H),) * (MAX_AVAILABLE + 1), (), (), ()),
        ((), (ATTESTATION,) * (MAX_ATTESTATIONS + 1), (), ()),
        ((), (), (VERDICT,) * (MAX_VERDICTS + 1), ()),
        ((), (), (), (REVIEW,) * (MAX_REVIEWS + 1)),
    ],
    ids=["available", "attestations", "verdicts", "reviews"],
)
def test_each_list_is_bounded(parts):
    with pytest.raises(CodecError):
        decode_extension(codec.encode(Extension(H, H, *parts)))


def test_a_verdict_is_one_of_three():
    with pytest.raises(CodecError):
        decode_extension(codec.encode(Extension(H, H, (), (), (Verdict(H, 1, H, 7, 3),), ())))


def test_trailing_bytes_are_refused():
    with pytest.raises(CodecError):
        decode_extension(codec.encode(Extension(H, H, (), (), (), ())) + b"\x00")


def test_a_result_root_binds_chunks_their_order_and_their_digests():
    one, two = digest("one"), digest("two")
    roots = {
        result_root((3, 9), (one, two)),
        result_root((9, 3), (one, two)),
        result_root((3, 9), (two, one)),
        result_root((3,), (one,)),
        result_root((), ()),
    }
    assert len(roots) == 5


@pytest.mark.parametrize("chunks", [1, 5, 31, 32, 33, 200, 2**20])
def test_the_stretches_of_a_segment_cover_each_chunk_once(chunks):
    ranges = [stretch_range(chunks, i) for i in range(count_stretches(chunks))]
    assert all(ranges), "none is empty"
    assert [r.start for r in ranges] == [0, *(r.stop for r in ranges[:-1])]
    assert ranges[-1].stop == chunks


@pytest.mark.parametrize("bits", [0, 2**32])
def test_a_review_names_stretches_there_can_be(bits):
    with pytest.raises(CodecError):
        decode_extension(codec.encode(Extension(H, H, (), (), (), (Reviewed(H, 1, H, bits),))))
