"""What a trained model is worth, as integers: no node may round it differently."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Annotated

import numpy as np
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Record, Uint
from mlchain.errors import CodecError
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.op import real_to_bits
from mlchain.ml_runtime.program import Word
from mlchain.ml_runtime.tensor import Array


class Metrics(Record, frozen=True):
    """A result on `total` test rows.

    accuracy: `correct` rows had the largest score in their label's column (ties: the lowest).
    mean squared error, mean squared distance: `error` is the bit pattern of a binary64; `correct`
    is 0.
    """

    name: Annotated[str, Meta(pattern="^(accuracy|mean squared error|mean squared distance)$")]
    correct: Uint
    total: Uint
    error: Word

    @property
    def value(self) -> Fraction:
        """The exact value."""
        if self.name == "accuracy":
            return Fraction(self.correct, self.total)
        return Fraction(self._error)

    @property
    def _error(self) -> float:
        number: float = struct.unpack("<d", self.error.to_bytes(8, "little", signed=True))[0]
        return number

    def __str__(self) -> str:
        if self.name == "accuracy":
            return f"accuracy {float(self.value):.4f} ({self.correct} of {self.total})"
        return f"{self.name} {float(self.value):.6g} over {self.total} rows"


def decode_metrics(data: bytes, rows: int) -> Metrics:
    """Return what somebody says a model is worth on `rows` rows; its `value` is a number.

    Raises:
        CodecError: not the encoding of such a result.
    """
    found = codec.decode(Metrics, data)
    if found.total != rows:
        raise CodecError(f"metrics: of {found.total} rows, not {rows}")
    is_count = found.name == "accuracy"
    is_sound = (
        found.error == 0 and found.correct <= rows
        if is_count
        else (found.correct == 0 and math.isfinite(found._error) and found._error >= 0)
    )
    if not is_sound:
        raise CodecError(f"metrics: no {found.name} can be so")
    return found


def accuracy(scores: Array, y: Array) -> Metrics:
    """Count rows whose first largest score stands in the column of the label."""
    correct = int(np.count_nonzero(scores.argmax(axis=1) == y))
    return Metrics("accuracy", correct, len(y), 0)


def mean_squared_error(scores: Array, y: Array) -> Metrics:
    """Return the mean over all elements of squares rounded to one grid and summed exactly.

    Raises:
        Trap: an error is too large to square.
    """
    return Metrics("mean squared error", 0, len(y), real_to_bits(mean(np.square(scores - y))))


def mean_squared_distance(scores: Array, y: Array) -> Metrics:
    """Return the mean of a row's squared distance to the nearest centre: minus its best score.

    `y` is not looked at.

    Raises:
        Trap: a distance is too large.
    """
    error = mean(-scores.max(axis=1))
    return Metrics("mean squared distance", 0, len(scores), real_to_bits(error))


def mean(x: Array) -> float:
    """Return the mean of numbers rounded to one grid and summed exactly, whatever their order.

    Raises:
        Trap: a number is not finite or reaches 2^500.
    """
    rounded = np.empty_like(x)
    grid.quantise(x, grid.SUM_BITS, grid.peak(x), rounded)
    return grid.total(rounded, grid.SUM_BITS) / x.size
