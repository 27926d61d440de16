"""What a transaction costs before its kind says what it does. 1 gas is about 1 ns of CPU."""

from __future__ import annotations

TRANSACTION_GAS = 100_000
"""Signature check on every validator, decoding, state tree, storage."""
BYTE_GAS = 20
MAX_TRANSACTION_GAS = 10**9


def intrinsic_gas(size: int) -> int:
    """Return the gas of an encoded transaction of `size` bytes, charged whatever it does."""
    return TRANSACTION_GAS + BYTE_GAS * size
