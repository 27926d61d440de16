"""Validators with real custody chains and digests of real re-execution, and who audits them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from attacks.arena import CHUNKS, HEIGHTS, commit_root, run, size_of, tickets, trainer
from factories import make_key

from mlchain.consensus.work.custody import (
    Opening,
    digest_key,
    is_audited,
    open_result,
    result_root,
    verify_opening,
)
from mlchain.consensus.work.sampling import draw_slice
from mlchain.consensus.work.tickets import CUSTODY, hash_down
from mlchain.crypto import digest
from mlchain.errors import VerificationFailed

VALIDATORS = 4
PERMILLE = 50


@cache
def custody_keys(validator: int) -> tuple[bytes, ...]:
    """The custody element of every height, from the registered tip up."""
    chain = [make_key(f"validator-{validator}").derive(CUSTODY)]
    for _ in range(HEIGHTS):
        chain.append(hash_down(chain[-1], 1))
    return tuple(reversed(chain))


@cache
def real_digest(chunk: int, key: bytes) -> bytes:
    """What re-running a chunk of the honest training leaves behind under `key`."""
    return trainer().replay(chunk, run().states[chunk], key)[1]


Lay = Callable[[int, int, tuple[int, ...]], tuple[bytes, ...]]
"""(validator, height, its slice) -> the digests it commits to."""


def honest(validator: int, height: int, chunks: tuple[int, ...]) -> tuple[bytes, ...]:
    key = digest_key(custody_keys(validator)[height])
    return tuple(real_digest(chunk, key) for chunk in chunks)


@dataclass(frozen=True)
class Attested:
    """What a validator's attestation of one job commits to."""

    validator: int
    height: int
    chunks: tuple[int, ...]
    root: bytes
    opening: Callable[[int], Opening]


def attest(validator: int, job: int, lay: Lay, size: int = 0) -> Attested:
    """Attest job number `job`, whose commit stands at height `job` + 1, with digests by `lay`."""
    height, work = job + 1, run()
    drawn = draw_slice(
        tickets(validator)[height], commit_root(job, work.digests), CHUNKS,
        size or size_of(VALIDATORS),
    )  # fmt: skip
    digests = lay(validator, height, drawn)
    return Attested(
        validator, height, drawn, result_root(drawn, digests),
        lambda chunk: open_result(drawn, digests, chunk),
    )  # fmt: skip


def is_wrong(attested: Attested, chunk: int, is_keyed: bool = True) -> bool:
    """Audit one chunk: open it, re-run it with the maker's key, compare."""
    opening = attested.opening(chunk)
    try:
        verify_opening(attested.root, attested.chunks, chunk, opening)
    except VerificationFailed:
        return True
    element = custody_keys(attested.validator)[attested.height] if is_keyed else b""
    return opening.digest != real_digest(chunk, digest_key(element))


def looked_at(attested: Attested, permille: int = PERMILLE) -> list[int]:
    """The chunks of an attestation that somebody else decides to re-run."""
    commit = digest("test-commit", attested.height.to_bytes(8, "little"))
    maker = make_key(f"validator-{attested.validator}").public
    secrets = [
        make_key(f"validator-{other}").derive("audits")
        for other in range(VALIDATORS)
        if other != attested.validator
    ]
    return [
        chunk
        for chunk in attested.chunks
        if any(is_audited(s, maker, commit, chunk, len(secrets), permille) for s in secrets)
    ]
