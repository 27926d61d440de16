"""Custody: when keys are due, who looks at whom, and what an opening shows (section 9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain.consensus.work.custody import (
    KEY_DELAY,
    Opening,
    digest_key,
    is_audited,
    key_due,
    open_result,
    result_root,
    verify_opening,
)
from mlchain.crypto import digest
from mlchain.errors import VerificationFailed

CHUNKS = (2, 3, 5, 7, 11, 13, 17)
DIGESTS = tuple(digest("test-digest", bytes([chunk])) for chunk in CHUNKS)
ROOT = result_root(CHUNKS, DIGESTS)


@given(st.integers(0, 10**6), st.integers(0, 10**4))
def test_a_key_is_due_when_no_precommit_can_carry_an_attestation_any_more(height, window):
    shown = key_due(height, window)
    assert shown == 0 or shown + window + KEY_DELAY == height
    last_attesting = shown + window  # the last precommit that may attest a segment of `shown`
    assert shown == 0 or height > last_attesting + 1, "its late precommits stand on chain by then"


def test_the_key_of_the_digests_is_not_the_element_itself():
    assert digest_key(b"x" * 32) not in (b"x" * 32, digest_key(b"y" * 32))


@pytest.mark.parametrize("chunk", CHUNKS)
def test_an_opening_shows_the_digest_of_its_chunk_and_no_other(chunk):
    opening = open_result(CHUNKS, DIGESTS, chunk)
    verify_opening(ROOT, CHUNKS, chunk, opening)
    for other in CHUNKS:
        if other != chunk:
            with pytest.raises(VerificationFailed):
                verify_opening(ROOT, CHUNKS, other, opening)
    with pytest.raises(VerificationFailed):
        verify_opening(ROOT, CHUNKS, chunk, Opening(bytes(32), opening.proof))


def test_a_chunk_that_was_left_out_of_the_root_cannot_be_opened():
    """Whoever commits to fewer chunks than it drew, or to others, has nothing to show for them."""
    for kept in (CHUNKS[:-1], (*CHUNKS[:-1], 18)):
        digests = DIGESTS[: len(kept)]
        root = result_root(kept, digests)
        for chunk in kept:
            with pytest.raises(VerificationFailed):
                verify_opening(root, CHUNKS, CHUNKS[-1], open_result(kept, digests, chunk))


@pytest.mark.parametrize("others", [3, 9, 30])
def test_all_auditors_together_look_at_the_share_of_the_parameter(others):
    commit, maker, chunks = digest("test-commit"), b"v" * 32, 60_000 // others
    secrets = [digest("test-secret", bytes([i])) for i in range(others)]
    looks = sum(
        is_audited(secret, maker, commit, chunk, others, 50)
        for secret in secrets
        for chunk in range(chunks)
    )
    expected = chunks * 50 / 1000
    assert abs(looks - expected) < 4 * expected**0.5


def test_nobody_looks_at_a_rate_of_zero_and_everybody_at_all_with_one_other():
    assert not any(is_audited(b"s" * 32, b"v" * 32, b"c" * 32, i, 3, 0) for i in range(500))
    assert all(is_audited(b"s" * 32, b"v" * 32, b"c" * 32, i, 1, 1000) for i in range(500))


def test_who_is_looked_at_depends_on_secret_maker_commit_and_chunk():
    def looks(*names: bytes) -> tuple[bool, ...]:
        secret, maker, commit = (name * 32 for name in names)
        return tuple(is_audited(secret, maker, commit, chunk, 1, 500) for chunk in range(100))

    found = {looks(*names) for names in ((b"s", b"v", b"c"), (b"t", b"v", b"c"))}
    found |= {looks(b"s", b"w", b"c"), looks(b"s", b"v", b"d")}
    assert len(found) == 4
