"""Proof of re-execution: digests that only who re-ran a chunk can make, and who looks at them.

A validator that attests a segment binds itself to one digest for each chunk of its slice, keyed
with an element of its *custody* chain over bulk data that re-running the chunk leaves behind
(`ml_runtime.custody`). The element becomes public when no attestation of that segment can be added
any more. From then on the others re-run a few of its chunks with its key, each chosen by a secret
of their own, and compare (protocol.md section 9).
"""

from __future__ import annotations

from mlchain import codec, crypto
from mlchain.codec import Hash, Record
from mlchain.ledger.merkle import ListProof, list_proof, list_root, verify_list_proof

KEY_DELAY = 2
"""Blocks from the last precommit that may carry an attestation of a segment to the first that shows
its key. One more than the next, since a late precommit still enters the block after it."""

NO_DIGEST = bytes(32)
"""Stands for a chunk that traps: it leaves nothing behind, and nobody asks for it."""


class Opening(Record, frozen=True):
    """One digest of an attestation, and the proof that it stands under its result root."""

    digest: Hash
    proof: ListProof


def key_due(height: int, attest_window: int) -> int:
    """Return the height whose key a precommit of `height` shows; 0: none is due yet.

    Who shows it before has lent it.
    """
    return max(0, height - attest_window - KEY_DELAY)


def digest_key(element: bytes) -> bytes:
    """Return what keys the digests of segments whose slices were fixed at the element's height."""
    return crypto.digest("mlchain/custody", element)


def is_audited(
    secret: bytes, validator: bytes, commit: bytes, chunk: int, others: int, permille: int
) -> bool:
    """Tell whether the owner of `secret` re-runs `chunk` of what `validator` attested.

    It is one of `others` who may: each takes permille / 1000 / others of the chunks.
    """
    drawn = crypto.digest("mlchain/audit", secret, validator, commit, chunk.to_bytes(8, "little"))
    return int.from_bytes(drawn[:8], "little") * 1000 * others < permille << 64


def result_root(chunks: tuple[int, ...], digests: tuple[bytes, ...]) -> bytes:
    """Return the root over (chunk, EQUAL, digest) of a whole slice."""
    return list_root(_items(chunks, digests))


def open_result(chunks: tuple[int, ...], digests: tuple[bytes, ...], chunk: int) -> Opening:
    """Return the opening of one chunk of a slice."""
    place = chunks.index(chunk)
    return Opening(digests[place], list_proof(_items(chunks, digests), place))


def verify_opening(root: bytes, chunks: tuple[int, ...], chunk: int, opening: Opening) -> None:
    """Return if `opening` shows the digest of `chunk` under the result root of the slice `chunks`.

    Raises:
        VerificationFailed: it does not.
    """
    item = _item(chunk, opening.digest)
    verify_list_proof(root, item, chunks.index(chunk), len(chunks), opening.proof)


def _items(chunks: tuple[int, ...], digests: tuple[bytes, ...]) -> list[bytes]:
    return [_item(chunk, value) for chunk, value in zip(chunks, digests, strict=True)]


def _item(chunk: int, value: bytes) -> bytes:
    return crypto.digest("mlchain/result", codec.encode((chunk, 0)), value)
