"""Writing the program: what every operator is made of, whatever it is called in ONNX.

Rows stand for themselves all the way. The batch is the first axis of every register; operands of
products and sums are rounded on a grid for each row along the last axis, so that a product always
sums along the last axis of both operands: a @ b.T. No step needs data to choose a scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from mlchain.ml_runtime.importers.onnx.graph import Refused
from mlchain.ml_runtime.importers.onnx.values import Shape, Tensor
from mlchain.ml_runtime.importers.writer import Features, Writer, product_bits, sum_bits
from mlchain.ml_runtime.tensor import MAX_ELEMENTS, MAX_RANK, Array

MAX_WORK = 1 << 33
"""Most operations on constants while a file is read: some ten seconds."""
MINUS_INFINITY = -(2.0**100)
"""Stands for the minus infinity of masks: finite, and exp of it is 2^-100 by rule 6."""


class Trace:
    """The program in the making, and its parameters."""

    def __init__(self, features: int) -> None:
        """Declare x, one row of raw features: register 0."""
        self.writer = Writer(features, 1)
        self.builder = self.writer.b
        self.whole: set[int] = set()
        """Registers whose elements are known to be integers."""
        self._known: dict[tuple[Shape, bytes], int] = {}
        self._made = self._work = 0

    def spend(self, elements: int, where: str) -> None:
        """Count elements of constants that are made. Raises Refused beyond MAX_ELEMENTS."""
        self._made += elements
        if self._made > MAX_ELEMENTS:
            raise Refused(f"onnx: {where}: constants of more than {MAX_ELEMENTS} elements")

    def work(self, operations: int, where: str) -> None:
        """Count operations on constants, before they are done. Raises Refused beyond MAX_WORK."""
        self._work += operations
        if self._work > MAX_WORK:
            raise Refused(f"onnx: {where}: more than {MAX_WORK} operations on constants")

    def parameter(self, array: Array) -> int:
        """Return the register of a constant; an equal one declared before serves again.

        Raises:
            Refused: an element is not finite.
        """
        array = np.ascontiguousarray(array, "<f8")
        if not np.all(np.isfinite(array)):
            raise Refused("onnx: a constant is not finite")
        key = (array.shape, array.tobytes())
        if key not in self._known:
            self.spend(array.size, "weights")
            self._known[key] = self.writer.numbers(array)
        return self._known[key]

    # Moving

    def emit(self, op: str, x: Tensor, *others: int, **attributes: float) -> Tensor:
        """Emit an op whose result has the shape of x."""
        return Tensor(self.builder.emit(op, x.register, *others, **attributes), x.shape)

    def place(self, register: int, shape: Shape) -> Tensor:
        """Return a register, whose elements are those of `shape` in order, as a tensor."""
        return Tensor(self.shaped(register, (1, *packed(shape))), shape)

    def shaped(self, register: int, shape: Sequence[int]) -> int:
        """Return the elements of a register in exactly this shape; two reshapes become one."""
        if len(shape) > MAX_RANK:
            raise Refused(f"onnx: a tensor of {len(shape)} axes beside those of 1, batch included")
        made = self.builder.producer(register)
        if made is not None and made.op == "reshape":
            register = made.inputs[0]
        return self.builder.reshape(register, shape)

    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        """Return x in another shape of as many elements."""
        return self.place(x.register, shape)

    def rows(self, x: Tensor, *shape: int) -> int:
        """Return the register of x as an array of exactly this shape, the batch in its first."""
        return self.shaped(x.register, shape)

    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
        """Return x with its axes in another order; two in a row become one."""
        moved = [a for a in order if x.shape[a] != 1]
        kept = sorted(moved)
        axes = [0, *(1 + kept.index(a) for a in moved)]
        shape = tuple(x.shape[a] for a in order)
        source, made = x.register, self.builder.producer(x.register)
        if made is not None and made.op == "transpose":
            source = made.inputs[0]
            axes = [int(made.attrs[a]) for a in axes]
        return Tensor(self.builder.transpose(source, *axes), shape)

    def expand(self, x: Tensor, shape: Shape) -> Tensor:
        """Return x stretched to `shape`, as ONNX broadcasts."""
        dims = [1] * (len(shape) - len(x.shape)) + list(x.shape)
        register = x.register
        for i, size in enumerate(shape):
            if dims[i] != size:
                flat = self.shaped(register, (prod(dims[:i]), prod(dims[i + 1 :])))
                register = self.builder.emit("repeat", flat, axis=1, count=size)
                dims[i] = size
        return self.place(register, shape)

    def number(self, array: Array) -> float:
        """Return a constant of one element as a real.

        Raises:
            Refused: it has more, or is not finite.
        """
        if array.size != 1 or not np.isfinite(array.reshape(-1)[0]):
            raise Refused("onnx: a constant is not one finite number")
        return float(array.reshape(-1)[0])

    def filled(self, value: float, like: Tensor) -> Tensor:
        """Return a number in every place of a tensor shaped like another."""
        number = self.builder.emit("constant", value=value)
        return Tensor(self.builder.emit("spread", number, like.register), like.shape)

    def back(self, x: Tensor, shape: Shape, axes: Sequence[int]) -> Tensor:
        """Undo `last`: return its result, computed on, in the shape it came from."""
        rest = [a for a in range(len(shape)) if a not in axes]
        order = [*rest, *axes]
        apart = self.reshape(x, tuple(shape[a] for a in order))
        return self.transpose(apart, [order.index(a) for a in range(len(shape))])

    def zero(self) -> int:
        """Return the register of the number 0."""
        return self.builder.emit("constant", value=0.0)

    def lift(self, array: Array) -> Tensor:
        """Return a constant as a tensor that every row of the batch has."""
        x = self.builder.inputs[0]
        if self.builder.type(x).shape[1] > 1:
            x = self.builder.emit("slice", x, axis=1, start=0, stop=1)
        nothing = self.place(self.builder.emit("scale", x, factor=0.0), ())
        return self.meet("add", nothing, array, array.shape)

    # Meeting

    def constant(self, array: Array, shape: Shape) -> int:
        """Return the register of a constant that meets a tensor of `shape`.

        It holds no more than the last axes it differs along; a single number has no axis.
        """
        dims = (1,) * (len(shape) - array.ndim) + array.shape
        array = np.where(np.isneginf(array), MINUS_INFINITY, array.astype(np.float64))
        first = next((i for i, d in enumerate(dims) if d != 1), len(dims))
        if first == len(dims):
            if not np.all(np.isfinite(array)):
                raise Refused("onnx: a constant is not a finite number")
            return self.builder.emit("constant", value=float(array.reshape(-1)[0]))
        whole = np.broadcast_to(array.reshape(dims[first:]), shape[first:])
        return self.parameter(whole.reshape(packed(shape[first:])))

    def meet(self, op: str, x: Tensor, y: Tensor | Array, shape: Shape) -> Tensor:
        """Emit x op y, both stretched to `shape`."""
        x = self.expand(x, shape)
        if isinstance(y, np.ndarray):
            return self.emit(op, x, self.constant(y, shape))
        dims = (1,) * (len(shape) - len(y.shape)) + y.shape
        if dims != shape:
            y = self.expand(y, shape)
        return self.emit(op, x, y.register)

    # Exact products and sums

    def product(self, x: Tensor, weights: Array) -> Tensor:
        """Emit x @ weights.T over the last axis of x: [..., k] by [m, k] gives [..., m]."""
        m, k = weights.shape
        if not np.all(np.isfinite(weights)):
            raise Refused("onnx: a weight is not finite")
        rows = self.rows(x, prod(x.shape[:-1]), k)
        out = self.writer.linear(Features(rows), weights.T, 0.0)
        return self.place(out, (*x.shape[:-1], m))

    def products(self, x: Tensor, y: Tensor) -> Tensor:
        """Emit x @ y.T for each pair of matrices: [..., n, k] by [..., m, k]."""
        (*lead, n, k), m = x.shape, y.shape[-2]
        bits, stack = product_bits(k), prod(lead)
        left, right = (
            self.builder.emit("quantise_rows", self.rows(t, stack, rows, k), bits=bits)
            for t, rows in ((x, n), (y, m))
        )
        out = self.builder.emit("matmul", left, right, transpose_a=0, transpose_b=1)
        return self.place(out, (*lead, n, m))

    def sum_last(self, x: Tensor) -> Tensor:
        """Emit the exact sum over the last axis, which becomes 1."""
        *lead, k = x.shape
        rows = self.rows(x, prod(lead), k)
        on_grid = self.builder.emit("quantise_rows", rows, bits=sum_bits(k))
        return self.place(self.builder.emit("sum_axis", on_grid, axis=1), (*lead, 1))

    def last(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Return x with these axes behind the others and taken together as one."""
        rest = [a for a in range(len(x.shape)) if a not in axes]
        moved = self.transpose(x, (*rest, *axes))
        size = prod(x.shape[a] for a in axes)
        return self.reshape(moved, (*(x.shape[a] for a in rest), size))


def packed(shape: Sequence[int]) -> Shape:
    """Return the dimensions that are not 1: those that a register has behind its batch."""
    return tuple(d for d in shape if d != 1)
