"""Row 10: a validator attests what it has not re-run, and makes up, copies or borrows the digests.

In a whole cluster: `tests/node/test_lazy_validators.py`.
"""

from __future__ import annotations

import pytest
from attacks.custody_lab import (
    PERMILLE,
    attest,
    custody_keys,
    honest,
    is_wrong,
    looked_at,
    real_digest,
)

from mlchain.consensus.work.custody import digest_key
from mlchain.crypto import digest

LAZY, OTHER = 0, 1
SIZE = 6
"""Chunks in a slice: enough for these sentences."""


def made_up(validator, height, chunks):
    return tuple(digest("test-made-up", bytes([validator]), bytes([c & 255])) for c in chunks)


def copied(validator, height, chunks):
    """Another's right digests of the very same chunks, under that other's key."""
    return honest(OTHER, height, chunks)


def of_the_height_before(validator, height, chunks):
    """Its own right digests, made for another segment's key."""
    return honest(validator, height - 1, chunks)


def of_another_chunk(validator, height, chunks):
    """Right digests in the wrong places: one re-execution shown for all."""
    return honest(validator, height, chunks[:1]) * len(chunks)


WAYS = (made_up, copied, of_the_height_before, of_another_chunk)


@pytest.mark.parametrize("lay", WAYS, ids=lambda way: way.__name__)
def test_any_chunk_that_is_looked_at_shows_digests_that_are(lay):
    attested = attest(LAZY, 3, lay, SIZE)
    wrong = [chunk for chunk in attested.chunks if is_wrong(attested, chunk)]
    assert set(wrong) >= set(attested.chunks[1:])
    assert (wrong == list(attested.chunks)) == (lay is not of_another_chunk)


def test_honest_digests_show_nothing_whoever_looks_at_them():
    for validator in (LAZY, OTHER):
        attested = attest(validator, 3, honest, SIZE)
        assert not any(is_wrong(attested, chunk) for chunk in attested.chunks)


def duties_until_found(seed: int, permille: int = PERMILLE) -> int:
    """Chunks a validator lets pass unseen until one is looked at; 0 if that never happens."""
    duties = 0
    for job in range(40 * seed, 40 * seed + 40):
        attested = attest(LAZY, job, made_up)
        looked = looked_at(attested, permille)
        if looked:
            assert is_wrong(attested, looked[0])
            return duties + attested.chunks.index(looked[0]) + 1
        duties += len(attested.chunks)
    return 0


def test_it_is_found_after_about_one_duty_in_the_rate():
    found = [duties_until_found(seed) for seed in range(60)]
    assert all(found)
    mean = sum(found) / len(found)
    assert abs(mean - 1000 / PERMILLE) < 4 * (1000 / PERMILLE) / len(found) ** 0.5


def test_control_without_audits_it_is_never_found():
    assert duties_until_found(0, permille=0) == 0


def test_control_without_the_key_in_the_digest_copying_works():
    """One honest validator's digests would serve everybody."""

    def keyless(validator, height, chunks):
        return tuple(real_digest(chunk, digest_key(b"")) for chunk in chunks)

    attested = attest(LAZY, 3, keyless, SIZE)  # copied from whoever published them
    assert not any(is_wrong(attested, chunk, is_keyed=False) for chunk in attested.chunks)
    assert all(is_wrong(attested, chunk) for chunk in attested.chunks)


def test_keys_of_two_validators_and_of_two_heights_differ():
    assert len({custody_keys(v)[h] for v in (LAZY, OTHER) for h in (1, 2)}) == 4
