"""Votes, and the certificates made of them.

A vote's signature covers the digest of its extension, so a certificate carries the extensions it
vouches for (precommit extensions bring attestations and ticket reveals to the chain).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Annotated

from msgspec import Meta

from mlchain import codec, crypto
from mlchain.codec import Hash, PublicKey, Record, Signature, Uint
from mlchain.errors import InvalidBlock, InvalidSignature
from mlchain.ledger.validators import MAX_VALIDATORS, ValidatorSet

MAX_EXTENSION_BYTES = 16 << 10
MAX_ROUND = 10_000

Round = Annotated[int, Meta(ge=0, le=MAX_ROUND)]
BlockId = Annotated[bytes, Meta(max_length=32)]
"""32 bytes, or empty for nil."""
Extension = Annotated[bytes, Meta(max_length=MAX_EXTENSION_BYTES)]

NIL = b""

IsSigned = Callable[[bytes, bytes, bytes], bool]
"""Tells whether the third is the signature of the second under the key that is the first."""


class VoteKind(IntEnum):
    """What a signature of a validator says; the values are part of the signed bytes."""

    PROPOSAL = 0
    PREVOTE = 1
    PRECOMMIT = 2


def sign_bytes(
    chain_id: str,
    kind: int,
    height: int,
    round_: int,
    block_id: bytes,
    pol_round: int = -1,
    extension: bytes = b"",
) -> bytes:
    """Return the exact bytes a validator signs; there is no time in them."""
    extension_hash = crypto.digest("mlchain/extension", extension) if extension else b""
    return codec.encode(
        ("mlchain/vote/1", chain_id, int(kind), height, round_, block_id, pol_round, extension_hash)
    )


class Vote(Record, frozen=True):
    """A prevote or precommit for a block, or for nil. Only precommits for a block are extended."""

    kind: Annotated[int, Meta(ge=1, le=2)]
    height: Uint
    round: Round
    block_id: BlockId
    validator: PublicKey
    extension: Extension
    signature: Signature

    def sign_bytes(self, chain_id: str) -> bytes:
        """Return the bytes `signature` covers."""
        return sign_bytes(
            chain_id, self.kind, self.height, self.round, self.block_id, -1, self.extension
        )


class CommitSignature(Record, frozen=True):
    """One validator's precommit inside a certificate."""

    validator: PublicKey
    extension: Extension
    signature: Signature


class Commit(Record, frozen=True):
    """Commit certificate: precommits of a quorum for one block in one round, in key order."""

    height: Uint
    round: Round
    block_id: Hash
    signatures: Annotated[tuple[CommitSignature, ...], Meta(max_length=MAX_VALIDATORS)]


def make_commit(votes: list[Vote]) -> Commit:
    """Return the certificate made of precommits for one block and round."""
    first = votes[0]
    assert len({(v.height, v.round, v.block_id, v.kind) for v in votes}) == 1
    return Commit(
        first.height,
        first.round,
        first.block_id,
        tuple(
            CommitSignature(v.validator, v.extension, v.signature)
            for v in sorted(votes, key=lambda v: v.validator)
        ),
    )


def verify_commit(
    commit: Commit,
    chain_id: str,
    validators: ValidatorSet,
    height: int,
    block_id: bytes,
    is_signed: IsSigned = crypto.is_signed,
) -> None:
    """Return if `commit` proves that `validators` decided `block_id` at `height`.

    `is_signed` judges one signature: a node's remembers what it judged, the simulator's is cheaper.

    Raises:
        InvalidBlock: another height or block, unordered or foreign signers, no quorum.
        InvalidSignature: a signature does not hold.
    """
    if commit.height != height or commit.block_id != block_id:
        raise InvalidBlock(f"commit is for height {commit.height}, wanted {height}")
    keys = [s.validator for s in commit.signatures]
    if keys != sorted(set(keys)):
        raise InvalidBlock("commit signatures are not in key order, or one signs twice")
    weight = sum(validators.weight(key) for key in keys)
    if any(key not in validators for key in keys) or weight < validators.quorum:
        raise InvalidBlock(f"commit carries weight {weight}, a quorum is {validators.quorum}")
    for s in commit.signatures:
        message = sign_bytes(
            chain_id, VoteKind.PRECOMMIT, height, commit.round, block_id, -1, s.extension
        )
        if not is_signed(s.validator, message, s.signature):
            raise InvalidSignature(f"commit of height {height}: signature of a validator is wrong")
