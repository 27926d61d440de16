"""From the rows of an array to a dataset: centred, scaled, rounded once, and how to undo that.

Every number of a `Scaling` is one correctly rounded operation on exact sums, so that anybody who
has the rows can rebuild the bytes of the dataset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlchain.errors import ConfigError

Floats = NDArray[np.float64]

_LEAST, _MOST = 2.0**-100, 2.0**100
"""What a dataset may hold beside 0; smaller numbers would vanish on its grid anyway."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """x becomes (x - shift) * factor, column by column; a column that never changes becomes 0."""

    shift: Floats
    factor: Floats

    def apply(self, x: Floats) -> Floats:
        """Return the scaled rows.

        Raises:
            ConfigError: a number that no grid near 1 can hold.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (x - self.shift) * self.factor
        if not np.all(np.abs(scaled) < _MOST):
            raise ConfigError("X: numbers too far apart to be scaled", "look for an outlier")
        return np.where(np.abs(scaled) < _LEAST, 0.0, scaled)


def standardise(x: Floats) -> Scaling:
    """Return what gives every column mean 0 and standard deviation 1."""
    pairs = [_moments(column) for column in x.T]
    shift, spread = (np.array(part) for part in zip(*pairs, strict=True))
    return Scaling(shift, np.array([1 / s if s else 0.0 for s in spread.tolist()]))


def centre(x: Floats) -> Scaling:
    """Return what gives every column mean 0 and leaves distances as they are."""
    shift = np.array([_moments(column)[0] for column in x.T])
    return Scaling(shift, np.ones(x.shape[1]))


def unscaled(features: int) -> Scaling:
    """Return what leaves rows alone: for counts and for numbers of tokens."""
    return Scaling(np.zeros(features), np.ones(features))


def _moments(column: Floats) -> tuple[float, float]:
    """Return mean and standard deviation of a column, 0 where its inverse would not be finite.

    Powers of two are taken out first, so that no square leaves the range of binary64.
    """
    low, high = float(column.min()), float(column.max())
    if low == high:
        return low, 0.0
    exponent = math.frexp(max(abs(low), abs(high)))[1]
    values = np.ldexp(column, -exponent)
    mean = math.fsum(values.tolist()) / len(values)
    variance = math.fsum(np.square(values - mean).tolist()) / len(values)
    spread = math.ldexp(math.sqrt(variance), exponent)
    return math.ldexp(mean, exponent), spread if spread > 2.0**-1000 else 0.0
