"""What the simulated host needs of a ledger, and the smallest ledger there is.

The agreement under test is the real one; blocks are a few bytes, and signatures a keyed hash a
hundred times cheaper than Ed25519 (the adversaries are ours, and do not forge).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

from mlchain import codec, crypto
from mlchain.codec import Hash, PublicKey, Record, Uint
from mlchain.ledger.commit import Commit


class Application(Protocol):
    """One validator's ledger."""

    def identify(self, block: bytes) -> bytes:
        """Return the id of an encoded block, or raise `CodecError`."""

    def build(self, height: int, round_: int, last_commit: Commit | None) -> bytes:
        """Return a new block on top of the committed ones."""

    def check(self, height: int, block: bytes) -> bool:
        """Tell whether `block` may follow the committed ones."""

    def commit(self, height: int, block: bytes, commit: Commit) -> None:
        """Make `block` the last one."""

    def extend(self, height: int, round_: int, block_id: bytes) -> bytes:
        """Return the extension of our precommit."""

    def verify_extension(self, height: int, validator: bytes, extension: bytes) -> bool:
        """Tell whether an extension is well made."""


class TinyBlock(Record, frozen=True):
    """A block that says who made it, and where. `honest` is what validity means here."""

    height: Uint
    round: Uint
    proposer: PublicKey
    parent: Hash
    copy: Uint
    honest: bool


class TinyLedger:
    """A chain of tiny blocks. Two copies of one validator make different blocks."""

    def __init__(self, key: bytes, copy: int) -> None:
        self._key = key
        self._copy = copy
        self._head = bytes(32)

    def identify(self, block: bytes) -> bytes:
        """Return the digest of a well-formed block."""
        codec.decode(TinyBlock, block, 256)
        return crypto.digest("mlchain/sim/block", block)

    def build(self, height: int, round_: int, last_commit: Commit | None) -> bytes:
        """Return a block that says where it was made."""
        return codec.encode(TinyBlock(height, round_, self._key, self._head, self._copy, True))

    def check(self, height: int, block: bytes) -> bool:
        """Tell whether an honest node made it for this place."""
        tiny = codec.decode(TinyBlock, block, 256)
        return tiny.honest and (tiny.height, tiny.parent) == (height, self._head)

    def commit(self, height: int, block: bytes, commit: Commit) -> None:
        """Make it the parent of the next."""
        self._head = self.identify(block)

    def extend(self, height: int, round_: int, block_id: bytes) -> bytes:
        """Return something to sign along."""
        return b"work of height %d" % height

    def verify_extension(self, height: int, validator: bytes, extension: bytes) -> bool:
        """Tell whether `extend` made it."""
        return extension == b"work of height %d" % height


class ToyKey:
    """A stand-in for `crypto.SecretKey`: signs with a hash keyed by the *public* key."""

    def __init__(self, name: str) -> None:
        self.public = crypto.digest("mlchain/sim/key", name.encode())

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes that `is_signed` accepts."""
        return blake2b(message, key=self.public).digest()


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether a `ToyKey` made `signature`."""
    return blake2b(message, key=public).digest() == signature
