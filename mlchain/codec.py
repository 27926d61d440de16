"""The one encoding: canonical msgpack of frozen records, derived from their annotations.

One value has one encoding and one encoding has one value: `decode` re-encodes and compares, so
non-minimal integers, missing or extra fields and trailing bytes are refused. Every field that has
a length carries a bound, and the whole input carries one, so nothing large is built before its
size is checked.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from mlchain.errors import CodecError

T = TypeVar("T")

MAX_RECORD_BYTES = 4 << 20
"""Default bound of one encoded record, in bytes."""

Uint = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Unsigned integer below 2^63: heights, amounts, counts, milliseconds."""

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""32-byte digest."""

PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""Ed25519 public key; also the id of the account it owns."""

Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
"""Ed25519 signature."""

ContentId = Annotated[bytes, Meta(min_length=36, max_length=36)]
"""Binary CIDv1 with a sha2-256 multihash: names bytes in the content store."""

Name = Annotated[str, Meta(min_length=1, max_length=64)]
"""Short human-readable text."""


class Record(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False
):  # frozen, so never in a cycle: the garbage collector need not look
    """Base of whatever is hashed, signed, sent or stored: a msgpack array of its fields in order.

    Fields take the annotated types of this module, other records, `bool`, and bounded tuples;
    never floats, dicts or sets. No field has a default, so no field can be left out.
    """


_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(value: Any) -> bytes:
    """Return the canonical bytes of a record, or of a tuple, integer, text or bytes."""
    return _encoder.encode(value)


def decode(kind: type[T], data: bytes, max_bytes: int = MAX_RECORD_BYTES) -> T:
    """Return the `kind` whose canonical encoding is exactly `data`.

    Raises:
        CodecError: too large, malformed, out of bounds, or not canonical.
    """
    if len(data) > max_bytes:
        raise CodecError(f"{_name(kind)}: {len(data)} bytes, at most {max_bytes} allowed")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        value: T = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CodecError(f"{_name(kind)}: {error}") from error
    if _encoder.encode(value) != data:
        raise CodecError(f"{_name(kind)}: not the canonical encoding")
    return value


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
