"""Tells a write that a crash tore from damage to what was on disk, in the logs of LevelDB.

Every write of ours is synced before the next one begins. So a crash can damage the last write
only, in any way; a whole write behind what is damaged proves that this was on disk once. LevelDB
makes no difference between the two: with paranoid checks it refuses both, without it drops both.

A log consists of blocks of 32 KiB; a record does not cross their borders, and a write takes one
record or several (doc/log_format.md of LevelDB):

    masked crc32c of kind and bytes(4) length(2) kind(1) bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum

BLOCK_BYTES = 1 << 15
_HEAD = struct.Struct("<IHB")
_MASK_DELTA = 0xA282EAD8


class Kind(IntEnum):
    """What a record is of its write."""

    FULL = 1
    FIRST = 2
    MIDDLE = 3
    LAST = 4


def is_only_torn(logs: Iterable[bytes]) -> bool:
    """Tell whether all damage to these logs, oldest first, lies behind the last whole write."""
    is_damaged = is_open = False
    for log in logs:
        for kind in _kinds(log):
            if kind is None:
                is_damaged, is_open = True, False
            elif kind == Kind.FIRST:
                is_open = True
            elif kind == Kind.FULL or (kind == Kind.LAST and is_open):
                if is_damaged:
                    return False
                is_open = False
    return True


def _kinds(log: bytes) -> Iterator[Kind | None]:
    """Yield the kind of each record, None where there is something else."""
    for start in range(0, len(log), BLOCK_BYTES):
        block, at, was_good = log[start : start + BLOCK_BYTES], 0, True
        while at + _HEAD.size <= len(block):
            kind, size = _record_at(block, at)
            if kind is not None:
                yield kind
            elif was_good:
                yield None
            was_good = kind is not None
            at += size if was_good else 1


def _record_at(block: bytes, at: int) -> tuple[Kind | None, int]:
    check, length, kind = _HEAD.unpack_from(block, at)
    size = _HEAD.size + length
    if not Kind.FULL <= kind <= Kind.LAST or at + size > len(block):
        return None, 0
    if _masked(crc32c(block[at + _HEAD.size - 1 : at + size])) != check:
        return None, 0
    return Kind(kind), size


def _make_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _make_table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `data`."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _masked(check: int) -> int:
    return (check >> 15 | check << 17) + _MASK_DELTA & 0xFFFFFFFF
