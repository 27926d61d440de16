"""Where the torch backend computes: constants kept on the device, and what all kernels share.

Exponential and logarithm are the tables of functions.py. The square root is torch's on a GPU,
where it is correctly rounded, and numpy's on a CPU, where torch's is not. A number becomes an
integer by its bits. What traps is noted, not raised: looking would make the host wait for the
device at every op.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mlchain.ml_runtime import functions, grid

Tensor = Any

F64, F32, I64 = torch.float64, torch.float32, torch.int64
_TINY = 2.0**-60
_HALF_BIT = 1 << 51
_HUGE = 2.0**600  # (x + huge) - huge is 0 for every x that counts as 0
_TERMS = 1.5 * 2.0**12
_FRACTION = (1 << 52) - 1


class Device:
    """Where tensors live: constants kept there, the functions, and what trapped so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_cpu = torch.device(name).type == "cpu"
        self._constants: dict[float, Tensor] = {}
        self.exp2 = self.put(functions.EXP2.view(np.int64))
        self.log_inverse = self.put(functions.LOG_INVERSE)
        self.log_value = self.put(functions.LOG_VALUE)
        self.checks: list[tuple[Tensor, str]] = []
        """(whether all is well, what to say if not) in the order of the ops."""

    def put(self, array: np.ndarray[Any, Any]) -> Tensor:
        """Return a copy of an array on the device."""
        return torch.tensor(array, device=self.name)

    def number(self, value: float) -> Tensor:
        """Return a binary64 that lies on the device."""
        if value not in self._constants:
            self._constants[value] = torch.full((), value, dtype=F64, device=self.name)
        return self._constants[value]

    def require(self, good: Tensor, otherwise: str) -> None:
        """Note a trap unless `good`, a single truth value on the device."""
        self.checks.append((good, otherwise))

    def sqrt(self, x: Tensor) -> Tensor:
        """The square root, correctly rounded."""
        if not self.is_cpu:
            return torch.sqrt(x)
        with np.errstate(all="ignore"):
            return torch.from_numpy(np.asarray(np.sqrt(x.numpy())))

    def exp_scaled(self, x: Tensor, factor: float) -> Tensor:
        """2^clamp(x factor)."""
        y = torch.clamp(x * factor, -functions.CLAMP, functions.CLAMP)
        rounder = 1.5 * 2.0 ** (52 - functions.EXP_BITS)
        z = y + rounder
        r = y - (z - rounder)
        p = r * functions.E3
        p = (p + functions.E2) * r
        p = (p + functions.E1) * r
        p = p + 1.0
        bits = z.view(I64)
        raised = torch.take(self.exp2, bits & 2047) + (((bits << 13) >> 24) << 52)
        return raised.view(F64) * p

    def log(self, x: Tensor) -> Tensor:
        """The logarithm of the tables."""
        bits = torch.clamp(x, min=functions.SMALLEST_LOG).view(I64)
        exponent = ((bits >> 52) - 1023).to(F64)
        fraction = bits & _FRACTION
        j = fraction >> 42
        s = (fraction | (1023 << 52)).view(F64) * torch.take(self.log_inverse, j) - 1.0
        t = torch.take(self.log_value, j) + exponent * functions.LN2
        p = (s * -0.25 + 1 / 3) * s
        p = (p + -0.5) * s
        p = (p + 1.0) * s
        return (p + t) + (x - x)

    def sigmoid(self, x: Tensor, factor: float = -functions.LOG2E) -> Tensor:
        """1 / (2^(x factor) + 1)."""
        return torch.div(self.number(1.0), self.exp_scaled(x, factor) + 1.0)

    def rounder(self, peaks: Tensor, bits: int) -> Tensor:
        """1.5 * 2^52 units of the grid of `bits` bits below each of these largest numbers."""
        pattern = (((peaks.view(I64) >> 52) + (54 - bits)) << 52) | _HALF_BIT
        return torch.where(peaks < grid.PEAK_ZERO, self.number(_HUGE), pattern.view(F64))

    def quantise_rows(self, x: Tensor, bits: int) -> Tensor:
        """Every row along the last axis on its own grid."""
        peaks = torch.linalg.vector_norm(x, float("inf"), dim=-1, keepdim=True)
        good = (peaks < grid.PEAK_TRAP).all()
        self.require(good, "quantise_rows: a value is not finite or reaches 2^500")
        magic = self.rounder(peaks, bits)
        return (x + magic) - magic

    def row_sums(self, x: Tensor) -> Tensor:
        """The sum of every row, rounded to a grid first; rows x 1."""
        return self.quantise_rows(x, grid.SUM_BITS).sum(-1, keepdim=True)

    def exp_rows(self, z: Tensor) -> Tensor:
        """exp(z - the largest of its row)."""
        return self.exp_scaled(z - torch.amax(z, -1, keepdim=True), functions.LOG2E)

    def normalise(self, e: Tensor) -> Tensor:
        """Rows of numbers from 0 to 1 over the sums of their terms on the 2^-40 grid."""
        terms = (e + _TERMS) - _TERMS
        return torch.div(e, terms.sum(-1, keepdim=True))

    def round_state(self, x: Tensor) -> Tensor:
        """State rounding."""
        return ((x + _TINY) - _TINY).to(F32)
