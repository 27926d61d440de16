"""Writing programs: a builder that infers types as it goes and emits each computation once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from mlchain.ml_runtime import grid
from mlchain.ml_runtime.op import MAX_BITS, OPS, Value, decode_attributes, encode_attributes
from mlchain.ml_runtime.program import Node, Program, check_type
from mlchain.ml_runtime.tensor import MAX_RANK, Type


@dataclass(frozen=True, slots=True)
class Emitted:
    """A node in the making: op, registers read, attributes decoded and as stored, outputs."""

    op: str
    inputs: tuple[int, ...]
    attrs: tuple[Value, ...]
    raw: tuple[int, ...]
    outputs: tuple[int, ...]


class Builder:
    """Grows a program. Registers are small integers, valid inside this builder."""

    def __init__(self) -> None:
        self.inputs: list[int] = []
        self.nodes: list[Emitted] = []
        self._types: list[Type] = []
        self._producers: dict[int, Emitted] = {}
        self._known: dict[tuple[object, ...], Emitted] = {}

    def type(self, register: int) -> Type:
        """Return the type of a register."""
        return self._types[register]

    def producer(self, register: int) -> Emitted | None:
        """Return the node that fills a register, None for an input."""
        return self._producers.get(register)

    def _new(self, kind: Type) -> int:
        self._types.append(kind)
        return len(self._types) - 1

    def input(self, kind: Type) -> int:
        """Declare the next input of the program."""
        self.inputs.append(self._new(kind))
        return self.inputs[-1]

    def reorder_inputs(self, registers: Sequence[int]) -> None:
        """Let the program take its inputs in another order than they were declared in."""
        assert sorted(registers) == sorted(self.inputs), "the same inputs, in another order"
        self.inputs = list(registers)

    def emit_all(self, name: str, *inputs: int, **attributes: Value) -> tuple[int, ...]:
        """Append a node and return its output registers; an equal earlier node serves again.

        Raises:
            RejectedProgram: the op refuses these types or attributes.
        """
        op = OPS[name]
        raw = encode_attributes(op, attributes)
        key = (name, inputs, raw)
        node = self._known.get(key)
        if node is None:
            attrs = decode_attributes(op, raw)
            types = op.infer(tuple(self._types[i] for i in inputs), attrs)
            for kind in types:
                check_type(kind, f"op {len(self.nodes)} ({name})")
            node = Emitted(name, inputs, attrs, raw, tuple(self._new(t) for t in types))
            self._known[key] = node
            self.nodes.append(node)
            self._producers.update(dict.fromkeys(node.outputs, node))
        return node.outputs

    def emit(self, name: str, *inputs: int, **attributes: Value) -> int:
        """Append a node of one output and return its register."""
        (output,) = self.emit_all(name, *inputs, **attributes)
        return output

    def on_grid(self, x: int, bits: int) -> int:
        """Return x on a grid of at most `bits` bits, quantising where it is not yet."""
        kind = self._types[x]
        if kind.kind == "G" and kind.bound <= bits:
            return x
        return self.emit("quantise", x, bits=bits)

    def matmul(self, a: int, b: int, transpose_a: bool = False, transpose_b: bool = False) -> int:
        """Emit the product of two matrices or stacks of them, quantised first."""
        a, b = (self.on_grid(r, grid.PRODUCT_BITS) for r in (a, b))
        return self.emit("matmul", a, b, transpose_a=transpose_a, transpose_b=transpose_b)

    def wide_matmul(self, x: int, w: int, transpose_x: bool = False) -> int:
        """Emit x times w, x on its grid and w on the widest that keeps the product exact."""
        x = self.on_grid(x, grid.PRODUCT_BITS)
        inner = self._types[w].shape[0]
        spare = grid.EXACT_BITS - (self._types[x].bound - 1) - (inner - 1).bit_length()
        w = self.on_grid(w, min(spare + 1, MAX_BITS))
        return self.emit("matmul", x, w, transpose_a=transpose_x, transpose_b=False)

    def squares(self, x: int) -> int:
        """Emit x squared, element by element, for x on the grid of products.

        A square of 16 bits has 31 and fits the grid of 32 below the largest: it stays exact.
        """
        x = self.on_grid(x, grid.PRODUCT_BITS)
        return self.on_grid(self.emit("multiply", x, x), grid.SUM_BITS)

    def sum_rows(self, x: int) -> int:
        """Emit the sum over the first axis, quantised first."""
        return self.emit("sum_rows", self.on_grid(x, grid.SUM_BITS))

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        """Emit x in another shape, or return x if it has that shape."""
        if self._types[x].shape == tuple(shape):
            return x
        d0, d1, d2, d3 = (*shape, *[0] * (MAX_RANK - len(shape)))
        return self.emit("reshape", x, d0=d0, d1=d1, d2=d2, d3=d3)

    def transpose(self, x: int, *axes: int) -> int:
        """Emit x with its axes in another order, or return x if it is the same."""
        d0, d1, d2, d3 = (*axes, *range(len(axes), MAX_RANK))
        if (d0, d1, d2, d3) == tuple(range(MAX_RANK)):
            return x
        return self.emit("transpose", x, d0=d0, d1=d1, d2=d2, d3=d3)

    def sum_to(self, x: int, shape: Sequence[int]) -> int:
        """Emit the exact sum of x over its leading axes, down to `shape`: its last ones."""
        kind = self._types[x]
        if kind.shape == tuple(shape):
            return x
        x = self.on_grid(x, grid.SUM_BITS)
        if not shape:
            return self.emit("sum_all", x)
        size = prod(shape)
        rows = self.reshape(x, (kind.elements // size, size))
        return self.reshape(self.emit("sum_rows", rows), shape)

    def mean(self, x: int) -> int:
        """Emit the mean of all elements, quantised first."""
        total = self.emit("sum_all", self.on_grid(x, grid.SUM_BITS))
        return self.emit("scale", total, factor=1 / self._types[x].elements)

    def program(self, outputs: Sequence[int]) -> Program:
        """Return the program of these outputs, without nodes they do not need."""
        needed = set(outputs)
        kept: list[Emitted] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        number = {r: i for i, r in enumerate(self.inputs)}
        nodes = []
        for node in reversed(kept):
            nodes.append(Node(node.op, tuple(number[r] for r in node.inputs), node.raw))
            for register in node.outputs:
                number[register] = len(number)
        return Program(
            tuple(self._types[r] for r in self.inputs),
            tuple(nodes),
            tuple(number[r] for r in outputs),
        )
