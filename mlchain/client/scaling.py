"""What is done to rows before they become a dataset, and may have to be undone.

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
    """x becomes (x - shift) / spread, column by column; where spread is 0, it becomes 0."""

    shift: Floats
    spread: Floats

    @property
    def divisor(self) -> Floats:
        """What is divided by: where spread is 0, a number that leaves nothing on any grid."""
        return np.where(self.spread == 0, 2.0**1000, self.spread)

    def apply(self, x: Floats) -> Floats:
        """Return the scaled rows.

        Raises:
            ConfigError: a number that no grid near 1 can hold.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (x - self.shift) / self.divisor
        if not np.all(np.abs(scaled) < _MOST):
            raise ConfigError("numbers too far apart to be scaled", "look for an outlier")
        return np.where(np.abs(scaled) < _LEAST, 0.0, scaled)


def standardise(x: Floats) -> Scaling:
    """Return what gives every column mean 0 and standard deviation 1."""
    pairs = [_moments(column) for column in x.T]
    shift, spread = (np.array(part) for part in zip(*pairs, strict=True))
    return Scaling(shift, spread)


def centre(x: Floats) -> Scaling:
    """Return what gives every column mean 0 and leaves distances as they are."""
    shift = np.array([_moments(column)[0] for column in x.T])
    return Scaling(shift, np.ones(x.shape[1]))


def min_max(x: Floats) -> Scaling:
    """Return what brings every column between 0 and 1, as job files have it."""
    low = x.min(axis=0)
    return Scaling(low, x.max(axis=0) - low)


def unscaled(features: int) -> Scaling:
    """Return what leaves rows alone: for counts and for numbers of tokens."""
    return Scaling(np.zeros(features), np.ones(features))


def _moments(column: Floats) -> tuple[float, float]:
    """Return mean and standard deviation of a column, 0 where it could not be divided by.

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
