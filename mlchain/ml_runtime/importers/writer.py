"""Writing programs of predictions: x in, parameters as constants, products on grids by rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlchain.errors import ConfigError
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.model import Label, Model
from mlchain.ml_runtime.op import MAX_BITS, Value
from mlchain.ml_runtime.tensor import Array, Type, finite, labels, row_grid, storage
from mlchain.ml_runtime.tensor import grid as grid_type

MAX_PRODUCT_BITS = 26
_BALANCED = 2
"""Weights whose columns lie within this factor of one another in powers of two are left alone."""


def product_bits(terms: int) -> int:
    """Return the most bits both operands of a product with `terms` terms may have."""
    return min(MAX_PRODUCT_BITS, (grid.EXACT_BITS - (terms - 1).bit_length()) // 2 + 1)


def sum_bits(terms: int) -> int:
    """Return the most bits of a grid of which `terms` numbers are added."""
    return min(MAX_BITS, grid.EXACT_BITS - (terms - 1).bit_length() + 1)


@dataclass(frozen=True, slots=True)
class Features:
    """Columns of numbers on their way: a register, and steps (op, row) not yet emitted.

    Steps are kept back because a product may take them into its weights.
    """

    register: int
    steps: tuple[tuple[str, Array], ...] = ()

    def then(self, op: str, row: Any) -> Features:
        """Return these features after one more step: add, subtract, multiply or divide by a row."""
        return Features(self.register, (*self.steps, (op, np.asarray(row, np.float64))))


class Writer:
    """Grows the program of a model. Registers are those of its builder `b`."""

    def __init__(self, features: int, batch: int) -> None:
        self.b = Builder()
        self.features = features
        self.x = Features(self.b.input(finite(batch, features)))
        self._parameters: dict[tuple[Type, bytes], int] = {}

    def parameter(self, kind: Type, array: Array) -> int:
        """Return the register of a parameter; equal ones are one."""
        raw = np.ascontiguousarray(array, storage(kind)).tobytes()
        if (kind, raw) not in self._parameters:
            self._parameters[kind, raw] = self.b.input(kind)
        return self._parameters[kind, raw]

    def numbers(self, array: Any) -> int:
        """Add a parameter of any binary64 numbers."""
        array = np.asarray(array, np.float64) + 0.0
        return self.parameter(finite(*array.shape), array)

    def integers(self, array: Any, count: int) -> int:
        """Add a parameter of integers below `count`."""
        array = np.asarray(array, np.int64)
        return self.parameter(labels(count, *array.shape), array)

    def on_grid(self, array: Any, bits: int) -> int:
        """Add a parameter rounded to a grid of `bits` bits.

        Raises:
            ConfigError: a number is not finite, or too large.
        """
        array = _checked(array)
        rounded = np.empty_like(array)
        grid.quantise(array, bits, grid.peak(array), rounded)
        return self.parameter(grid_type(bits, *array.shape), rounded + 0.0)

    def emit(self, name: str, *inputs: int, **attributes: Value) -> int:
        """Append a node of one output and return its register."""
        return self.b.emit(name, *inputs, **attributes)

    def settle(self, x: Features) -> int:
        """Emit the steps kept back, one operation each; return the register."""
        register = x.register
        for op, row in x.steps:
            register = self.emit(op, register, self.numbers(row))
        return register

    def linear(self, x: Features, weights: Any, bias: Any, is_fine: bool = False) -> int:
        """Emit x @ weights + bias, inputs x outputs, every row of x on a grid of its own.

        Steps kept back become a shift of x and part of the weights. Columns are scaled by powers
        of two against the weights, so that a row's grid serves what each column contributes.
        With `is_fine` what rounding left is multiplied, too: twice the bits for three products.
        """
        shift, factor = _affine(x, len(weights))
        weights = factor[:, None] * np.asarray(weights, np.float64)
        inputs = weights.shape[0]
        bits = product_bits(inputs)
        register = x.register
        if shift.any():
            register = self.emit("subtract", register, self.numbers(shift))
        balance = _balance(weights)
        if not np.all(balance == 1.0):
            register = self.emit("multiply", register, self.numbers(balance))
            zeros, is_used = np.zeros_like(weights), balance[:, None] > 0
            weights = np.divide(weights, balance[:, None], out=zeros, where=is_used)
        rows = self.emit("quantise_rows", register, bits=bits)
        product = self._product(rows, weights, bits)
        if is_fine:
            rest = self.emit("subtract", register, rows)
            rest = self.emit("quantise_rows", rest, bits=bits)
            coarse = _on_row_grid(weights.T, bits).T
            small = self._product(rows, weights - coarse, bits)
            small = self.emit("add", small, self._product(rest, weights, bits))
            product = self.emit("add", product, small)
        bias = np.broadcast_to(np.asarray(bias, np.float64), weights.shape[1:])
        return self.emit("add", product, self.numbers(bias)) if bias.any() else product

    def exact_product(self, x: int, weights: Any) -> int:
        """Emit x @ weights for x on a grid already, the weights with as many bits as there are."""
        kind, weights = self.b.type(x), np.asarray(weights, np.float64)
        bits = min(MAX_BITS, sum_bits(len(weights)) - (kind.bound - 1))
        return self._product(x, weights, bits)

    def _product(self, x: int, weights: Array, bits: int) -> int:
        """Emit x @ weights, the weights of every output on a grid of their own."""
        rounded = _on_row_grid(weights.T, bits)
        register = self.parameter(row_grid(bits, *rounded.shape), rounded)
        return self.emit("matmul", x, register, transpose_a=0, transpose_b=1)

    def model(self, scores: int, answer: str, classes: Sequence[Label] = ()) -> Model:
        """Return the model whose result is `scores`, examined."""
        b = self.b
        model = Model(
            b.program([scores]),
            tuple(raw for _, raw in self._parameters),
            (),
            b.type(scores).shape[1],
            answer,
            tuple(classes),
        )
        model.tensors()
        return model


def _checked(numbers: Any) -> Array:
    """Return numbers as a grid can take them.

    Raises:
        ConfigError: one is not finite, or too large.
    """
    array: Array = np.ascontiguousarray(numbers, np.float64)
    if not grid.peak(array) < grid.PEAK_TRAP:
        raise ConfigError("import: a weight is not finite, or reaches 2^500")
    return array


def _on_row_grid(array: Array, bits: int) -> Array:
    """Return numbers with every row rounded to its grid; raises as `_checked`."""
    array = _checked(array)
    rounded = np.empty_like(array)
    grid.quantise_rows(array, bits, rounded)
    return rounded + 0.0


def _affine(x: Features, width: int) -> tuple[Array, Array]:
    """Return (shift, factor) with steps(x) = (x - shift) * factor, up to rounding."""
    shift, factor = np.zeros(width), np.ones(width)
    for op, row in x.steps:
        if op == "subtract":
            shift = shift + row / factor
        elif op == "add":
            shift = shift - row / factor
        else:
            factor = factor * row if op == "multiply" else factor / row
    return shift, factor


def _balance(weights: Array) -> Array:
    """Return powers of two, one for each row of weights, below which they are of one size.

    0 for a row of zeros: what such a column holds must not set the grid of the others.
    """
    peaks = np.abs(weights).max(axis=1)
    exponents = np.frexp(peaks)[1]
    top = exponents[peaks > 0].max(initial=-400)
    is_even = bool(np.all(exponents[peaks > 0] >= top - _BALANCED))
    powers = np.ones(len(peaks)) if is_even else np.ldexp(1.0, np.maximum(exponents - top, -400))
    return np.where(peaks > 0, powers, 0.0)
