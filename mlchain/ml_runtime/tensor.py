"""Tensors: static types, storage, canonical bytes.

A tensor is a numpy array plus a type known before anything runs:

    F       any finite binary64
    G(b)    on a grid: every element is m * 2^e with |m| <= 2^(b-1) and one e for the tensor
    R(b)    on a grid by rows: the same with one e for each row along the last axis
    S       state between steps: exactly binary32, stored so, never -0
    I(n)    integers 0 <= i < n (labels)

Grids are what makes sums exact: operands narrow enough leave every partial sum inside 53 bits.
Source: MLRT-1 rules 1, 3, 7 and 10.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from mlchain import crypto
from mlchain.codec import Record

Array = np.ndarray[Any, np.dtype[Any]]

MAX_RANK = 4
MAX_DIMENSION = 2**31 - 1
MAX_ELEMENTS = 1 << 27
"""Most elements of one tensor (1 GiB of binary64)."""

Dimension = Annotated[int, Meta(ge=1, le=MAX_DIMENSION)]
Shape = Annotated[tuple[Dimension, ...], Meta(max_length=MAX_RANK)]

_STORAGE: dict[str, np.dtype[Any]] = {
    "F": np.dtype("<f8"),
    "G": np.dtype("<f8"),
    "R": np.dtype("<f8"),
    "S": np.dtype("<f4"),
    "I": np.dtype("<i8"),
}
_STATE = _STORAGE["S"]


class Type(Record, frozen=True):
    """Static type of a tensor. `bound`: b of G(b) and R(b), n of I(n), 0 for F and S."""

    kind: Annotated[str, Meta(pattern="^[FGRSI]$")]
    bound: Annotated[int, Meta(ge=0, le=MAX_DIMENSION)]
    shape: Shape

    @property
    def elements(self) -> int:
        """Number of elements, a Python integer that cannot overflow."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in storage, in bytes."""
        return self.elements * (4 if self.kind == "S" else 8)

    def __str__(self) -> str:
        bound = f"({self.bound})" if self.bound else ""
        return f"{self.kind}{bound}{list(self.shape)}"


def finite(*shape: int) -> Type:
    """Return the type F of a shape."""
    return Type("F", 0, shape)


def grid(bits: int, *shape: int) -> Type:
    """Return the type G(bits) of a shape."""
    return Type("G", bits, shape)


def row_grid(bits: int, *shape: int) -> Type:
    """Return the type R(bits) of a shape."""
    return Type("R", bits, shape)


def stored(*shape: int) -> Type:
    """Return the type S of a shape."""
    return Type("S", 0, shape)


def labels(count: int, *shape: int) -> Type:
    """Return the type I(count) of a shape."""
    return Type("I", count, shape)


def storage(kind: Type) -> np.dtype[Any]:
    """Return the form of the elements of a type, in memory and on the wire: little-endian."""
    return _STORAGE[kind.kind]


def allocate(kind: Type) -> Array:
    """Return a zeroed array in the storage form of `kind`."""
    return np.zeros(kind.shape, storage(kind))


def header(kind: Type) -> bytes:
    """Return type letter, rank and dimensions: what stands before the elements of a tensor."""
    dims = b"".join(d.to_bytes(4, "little") for d in kind.shape)
    return kind.kind.encode() + bytes([len(kind.shape)]) + dims


def digest(kind: Type, array: Array) -> bytes:
    """Return the BLAKE3 of a tensor: its type as the domain, then its elements.

    The sign of zero and the payload of NaN are no part of a value: both are normalised first.
    """
    return digest_as_stored(kind, normalised(kind, array))


def normalised(kind: Type, array: Array) -> Array:
    """Return the same values without -0 and with one NaN, as digests and proofs take them."""
    if kind.kind == "I":
        return array
    with np.errstate(invalid="ignore"):  # a NaN that signals is one like any other
        return np.where(np.isnan(array), np.nan, array + 0.0)


def digest_as_stored(kind: Type, array: Array) -> bytes:
    """Return the same for a tensor that holds no NaN and no -0, as committed state does."""
    raw = np.ascontiguousarray(array, storage(kind))
    return crypto.digest_bulk(_domain(kind), raw.reshape(-1).view(np.uint8).data)


def digest_state(array: Array) -> bytes:
    """Return `digest_as_stored` of a tensor of state; a small one costs little more than BLAKE3."""
    raw = array if array.dtype == _STATE else array.astype(_STATE)
    return crypto.digest_bulk(_state_domain(array.shape), raw.reshape(-1).view(np.uint8).data)


@lru_cache(maxsize=4096)
def _domain(kind: Type) -> str:
    return f"mlchain/tensor/{kind}"


@lru_cache(maxsize=4096)
def _state_domain(shape: tuple[int, ...]) -> str:
    return _domain(stored(*shape))
