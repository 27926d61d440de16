"""The one place where a validator signs. Nothing else may hold the voting key.

It never signs two different things for one height, round and step, and never goes back. What it
signed last is on disk before the signature leaves, in a file of its own: losing the write-ahead
log cannot make this validator equivocate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Protocol

from msgspec import Meta

from mlchain import codec
from mlchain.codec import Record, Signature, Uint
from mlchain.errors import CodecError, DoubleSign, StoreCorrupted
from mlchain.ledger.commit import (
    MAX_ROUND,
    BlockId,
    Extension,
    Round,
    Vote,
    VoteKind,
    sign_bytes,
)

MAX_LAST_SIGN_BYTES = 1024


class SigningKey(Protocol):
    """What the signer needs of a key; `crypto.SecretKey` is one."""

    public: bytes

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""


class SignRequest(Record, frozen=True):
    """What the driver asks to have signed; `kind` is a `VoteKind`."""

    kind: Annotated[int, Meta(ge=0, le=2)]
    height: Uint
    round: Round
    block_id: BlockId
    pol_round: int
    extension: Extension


class LastSign(Record, frozen=True):
    """The last signature that was made."""

    height: Uint
    round: Round
    step: Annotated[int, Meta(ge=0, le=2)]
    message: Annotated[bytes, Meta(max_length=MAX_LAST_SIGN_BYTES // 2)]
    signature: Signature


class _Said(Record, frozen=True):
    """What `sign_bytes` encodes."""

    domain: Annotated[str, Meta(max_length=64)]
    chain_id: Annotated[str, Meta(max_length=64)]
    kind: Annotated[int, Meta(ge=0, le=2)]
    height: Uint
    round: Round
    block_id: BlockId
    pol_round: Annotated[int, Meta(ge=-1, le=MAX_ROUND)]
    extension: Annotated[bytes, Meta(max_length=32)]


class Signer:
    """Signs proposals and votes of one validator on one chain."""

    def __init__(
        self,
        key: SigningKey,
        chain_id: str,
        saved: bytes | None,
        save: Callable[[bytes], None],
    ) -> None:
        """`saved` is what `save` was last given; `save` returns when its bytes are on disk.

        Raises:
            StoreCorrupted: `saved` is not what this signer wrote.
        """
        self._key = key
        self._chain_id = chain_id
        self._save = save
        self._last: LastSign | None = None
        if saved is not None:
            try:
                self._last = codec.decode(LastSign, saved, MAX_LAST_SIGN_BYTES)
            except CodecError as error:
                raise StoreCorrupted(
                    f"last signature: {error.message}",
                    "restore the file; never start without it while the chain is at this height",
                ) from error

    def last_vote(self) -> Vote | None:
        """Return the vote that was signed last, if it can be told from what was kept.

        Not so a precommit for a block, of whose extension only the digest was signed.
        """
        last = self._last
        if last is None or last.step == VoteKind.PROPOSAL:
            return None
        block_id = codec.decode(_Said, last.message).block_id
        place = (last.step, last.height, last.round, block_id)
        vote = Vote(*place, self._key.public, b"", last.signature)
        return vote if vote.sign_bytes(self._chain_id) == last.message else None

    def sign(self, request: SignRequest) -> bytes:
        """Return the signature of `request`; the same bytes always get the same signature.

        Raises:
            DoubleSign: it contradicts, or comes before, what was signed last.
        """
        message = sign_bytes(
            self._chain_id,
            request.kind,
            request.height,
            request.round,
            request.block_id,
            request.pol_round,
            request.extension,
        )
        position = (request.height, request.round, request.kind)
        if self._last is not None:
            last = (self._last.height, self._last.round, self._last.step)
            if position == last and message == self._last.message:
                return self._last.signature
            if position <= last:
                name = VoteKind(request.kind).name.lower()
                raise DoubleSign(
                    f"asked for a {name} at height {request.height} round {request.round}, "
                    f"but signed another at {last}"
                )
        signature = self._key.sign(message)
        last_sign = LastSign(*position, message, signature)
        self._save(codec.encode(last_sign))
        self._last = last_sign
        return signature
