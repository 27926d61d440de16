"""Agreed randomness: raw Philox4x64-10 words, keyed by seed and purpose, counted per draw.

A stream is named by (job seed, purpose, index); its words are the same everywhere. numpy's
distributions are not used, they change between versions; its Philox is, from a fixed state.
Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011); MLRT-1 rule 9.
"""

from __future__ import annotations

import numpy as np

from mlchain import crypto
from mlchain.ml_runtime.tensor import Array

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_WORD = (1 << 64) - 1

Counter = tuple[int, int, int, int]


def make_key(seed: bytes, purpose: str, index: int) -> tuple[int, int]:
    """Return the two key words of a stream."""
    raw = crypto.digest("mlchain/stream", seed, purpose.encode(), index.to_bytes(8, "little"))
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:16], "little")


def words(key: tuple[int, int], count: int) -> Array:
    """Return the first `count` words of a stream as uint64: blocks 0, 1, … of four words each."""
    return generator(key, (0, 0, 0, 0)).random_raw(count)


def generator(key: tuple[int, int], counter: Counter) -> np.random.Philox:
    """Return numpy's Philox so that its next words are the block of `counter`, then those after."""
    philox = np.random.Philox(0)
    before = sum(c << 64 * i for i, c in enumerate(counter)) - 1  # it counts before it draws
    philox.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([before >> 64 * i & _WORD for i in range(4)], np.uint64),
            "key": np.array(key, np.uint64),
        },
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return philox


def philox(counter: Counter, key: tuple[int, int]) -> tuple[int, ...]:
    """Return the block of four words of a counter and a key, from plain integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (b >> 64) ^ c1 ^ k0, b & _WORD, (a >> 64) ^ c3 ^ k1, a & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def uniform(key: tuple[int, int], count: int) -> Array:
    """Return `count` binary64 in [0, 1): the upper 53 bits of each word."""
    return (words(key, count) >> np.uint64(11)) * 2.0**-53


def permutation(key: tuple[int, int], count: int) -> Array:
    """Return a permutation of 0 … count-1: the stable order of `count` words."""
    return np.argsort(words(key, count), kind="stable")
