"""How views are written as JSON values.

Bytes become lower hex, content ids their base32 text, integers beyond 2^53 text (JavaScript and
others round them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlchain.errors import CodecError
from mlchain.p2p.transport import Transport

Json = dict[str, Any]

MAX_JSON_INTEGER = 2**53


def parse_hash(text: str, what: str) -> bytes:
    """Return the 32 bytes that 64 hex digits stand for.

    Raises:
        CodecError: something else.
    """
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 32 or len(text) != 64:
        raise CodecError(f"not {what}: {text[:80]!r}", "64 hex digits")
    return data


def to_json(view: Mapping[str, Any]) -> Json:
    """Return `view` with bytes as hex and integers beyond 2^53 as text."""
    return {key: _plain(value) for key, value in view.items()}


def peer_rows(transport: Transport) -> list[Json]:
    """Return the peers and what the links to them are like."""
    return [
        {
            "name": peer.name,
            "role": peer.role,
            "connected": peer.connected,
            "last_seen_ms": peer.last_seen_ms,
        }
        for peer in transport.peers()
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= MAX_JSON_INTEGER else str(value)
    if isinstance(value, Mapping):
        return to_json(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
