"""Hashes with domain tags, and Ed25519 as libsodium judges it (one rule for every node)."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2s

import bech32
import nacl.bindings as sodium
from blake3 import blake3
from nacl.exceptions import BadSignatureError

from mlchain.errors import CodecError, InvalidSignature

ADDRESS_PREFIX = "mlc"


def digest(domain: str, *parts: bytes) -> bytes:
    """Return the 32-byte BLAKE2s of `parts` under `domain`.

    Domain and parts are length-prefixed, so no two different calls hash the same bytes.
    """
    chunks = [_tag(domain)]
    for part in parts:
        chunks.append(len(part).to_bytes(8, "little"))
        chunks.append(part)
    return blake2s(b"".join(chunks)).digest()


@lru_cache(maxsize=256)
def _tag(domain: str) -> bytes:
    tag = domain.encode()
    return bytes([len(tag)]) + tag


def digest_bulk(domain: str, data: bytes | memoryview) -> bytes:
    """Return the 32-byte BLAKE3 of large `data` under `domain` (about 10 GB/s)."""
    hasher = blake3(bytes([len(domain)]) + domain.encode())
    hasher.update(data)
    return hasher.digest()


def keyed_hasher(key: bytes) -> blake3:
    """Return BLAKE3 in its keyed mode, a MAC, to be updated with large data; `key` has 32 bytes."""
    return blake3(key=key)


class SecretKey:
    """An Ed25519 secret key made from a 32-byte seed; never printed, never encoded."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise CodecError(f"a secret key seed has 32 bytes, not {len(seed)}")
        self.public, self._secret = sodium.crypto_sign_seed_keypair(seed)

    @property
    def seed(self) -> bytes:
        """The 32 bytes the key was made from, for whoever stores it."""
        return self._secret[:32]

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return sodium.crypto_sign(message, self._secret)[:64]

    def derive(self, purpose: str) -> bytes:
        """Return 32 secret bytes for one purpose (ticket chains), bound to this key."""
        return digest("mlchain/derive", self._secret[:32], purpose.encode())


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` is the one of `message` under `public`."""
    if len(signature) != 64 or len(public) != 32:
        return False
    try:
        sodium.crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def verify(public: bytes, message: bytes, signature: bytes, what: str = "message") -> None:
    """Return if the signature holds.

    Raises:
        InvalidSignature: it does not.
    """
    if not is_signed(public, message, signature):
        raise InvalidSignature(f"{what}: signature does not match key {public.hex()[:16]}")


def address(public: bytes) -> str:
    """Return the text form of an account, `mlc1…`, with a checksum against typing errors."""
    words = bech32.convertbits(public, 8, 5)
    assert words is not None, "bytes always convert to 5-bit words"
    return str(bech32.bech32_encode(ADDRESS_PREFIX, words))


def parse_address(text: str) -> bytes:
    """Return the public key behind an `mlc1…` address or 64 hex digits.

    Raises:
        CodecError: neither of the two, or a wrong checksum.
    """
    if len(text) == 64:
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) == 32:  # fromhex skips blanks, so 64 characters may be fewer bytes
            return key
    prefix, words = bech32.bech32_decode(text)
    raw = bech32.convertbits(words, 5, 8, False) if words is not None else None
    if prefix != ADDRESS_PREFIX or raw is None or len(raw) != 32:
        raise CodecError(f"not an account address: {text!r}", "addresses look like mlc1…")
    return bytes(raw)
