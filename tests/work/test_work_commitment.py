"""The commit of a segment and its leaves (section 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mlchain import codec
from mlchain.consensus.work.commitment import (
    MAX_SEGMENT_CHUNKS,
    SegmentCommit,
    chunk_leaf,
    commit_id,
    segment_root,
)
from mlchain.crypto import digest
from mlchain.errors import CodecError, VerificationFailed
from mlchain.ledger.merkle import list_proof, list_root, verify_list_proof
from mlchain.ml_runtime import Metrics

NAMES = st.text(min_size=1, max_size=12)
HASHES = st.binary(min_size=32, max_size=32)
COUNTS = st.integers(0, 2**63 - 1)
PLACES = st.tuples(NAMES, HASHES, COUNTS, COUNTS, HASHES, COUNTS, HASHES)

STATES = tuple(digest("test-state", bytes([i])) for i in range(7))
JOB, WORKER = digest("test-job"), digest("test-worker")
COMMIT = SegmentCommit(
    JOB, 3, 1, STATES[0], STATES[6], b"c" * 36, digest("test-root"), b"l" * 36, 7, 0,
    Metrics("accuracy", 5, 9, 0),
)  # fmt: skip


@given(PLACES, PLACES)
def test_two_leaves_are_equal_only_if_all_their_parts_are(one, other):
    assert (chunk_leaf(*one) == chunk_leaf(*other)) == (one == other)


@pytest.mark.parametrize("part", range(7))
@given(place=PLACES, other=PLACES)
def test_a_leaf_binds_each_of_its_parts(part, place, other):
    """Chain, job, segment, attempt, worker, chunk, state."""
    changed = (*place[:part], other[part], *place[part + 1 :])
    assert (chunk_leaf(*place) == chunk_leaf(*changed)) == (place[part] == other[part])


def test_chunks_are_counted_from_the_start_of_the_job():
    root = segment_root("chain", JOB, 3, 1, WORKER, 40, STATES)
    leaves = [chunk_leaf("chain", JOB, 3, 1, WORKER, 40 + i, s) for i, s in enumerate(STATES)]
    assert root == list_root(leaves)


@pytest.mark.parametrize("index", range(7))
def test_a_root_binds_every_state_and_its_place(index):
    root = segment_root("chain", JOB, 3, 1, WORKER, 40, STATES)
    spoiled = (*STATES[:index], digest("test-other"), *STATES[index + 1 :])
    assert segment_root("chain", JOB, 3, 1, WORKER, 40, spoiled) != root
    swapped = list(STATES)
    swapped[index], swapped[index - 1] = swapped[index - 1], swapped[index]
    assert segment_root("chain", JOB, 3, 1, WORKER, 40, tuple(swapped)) != root


def test_a_leaf_opens_against_the_root_at_its_own_place_only():
    leaves = [chunk_leaf("chain", JOB, 3, 1, WORKER, i, s) for i, s in enumerate(STATES)]
    root = segment_root("chain", JOB, 3, 1, WORKER, 0, STATES)
    proof = list_proof(leaves, 2)
    verify_list_proof(root, leaves[2], 2, 7, proof)
    for index, count in ((3, 7), (2, 8), (2, 6)):
        with pytest.raises(VerificationFailed):
            verify_list_proof(root, leaves[2], index, count, proof)


def test_an_empty_segment_has_a_root_too():
    """A trap in the first chunk leaves no whole chunk."""
    assert segment_root("chain", JOB, 0, 0, WORKER, 0, ()) == list_root([])


CHANGES = {
    "job": digest("x"), "segment": 4, "attempt": 2, "start": digest("x"), "end": digest("x"),
    "end_content": b"x" * 36, "leaf_root": digest("x"), "leaves_content": b"x" * 36, "count": 8,
    "trap": 1, "metrics": None,
}  # fmt: skip


def test_the_changes_name_every_field():
    assert list(CHANGES) == list(SegmentCommit.__struct_fields__)


@pytest.mark.parametrize("field", CHANGES)
def test_the_id_of_a_commit_binds_each_field(field):
    assert commit_id(replace(COMMIT, **{field: CHANGES[field]})) != commit_id(COMMIT)


def test_a_commit_survives_the_codec_and_its_count_is_bounded():
    assert codec.decode(SegmentCommit, codec.encode(COMMIT)) == COMMIT
    with pytest.raises(CodecError):
        codec.decode(SegmentCommit, codec.encode(replace(COMMIT, count=MAX_SEGMENT_CHUNKS + 1)))
