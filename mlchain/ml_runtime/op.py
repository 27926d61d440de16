"""What an op is: one block that holds everything about it, and the table of all ops.

A block states its attributes, the rule from input types to output types (which also proves that
sums stay exact), its gas, the numpy forward pass, its gradient as further ops, how it behaves when
the batch is split over shards, and where it comes from.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from mlchain.errors import RejectedProgram
from mlchain.ml_runtime.functions import BLOCK, Scratch, constant
from mlchain.ml_runtime.grid import EXACT_BITS
from mlchain.ml_runtime.tensor import Array, Type

if TYPE_CHECKING:
    from mlchain.ml_runtime.builder import Builder, Emitted

MIN_BITS, MAX_BITS = 2, 48
Value = int | float
Values = Sequence[Value]
Types = tuple[Type, ...]


class Attribute(Enum):
    """How a 64-bit attribute of a node is read."""

    INTEGER = "integer"
    REAL = "real"  # the bit pattern of a finite binary64, -0 excluded


def integers(*names: str) -> Mapping[str, Attribute]:
    """Declare attributes that are integers."""
    return MappingProxyType(dict.fromkeys(names, Attribute.INTEGER))


def reals(*names: str) -> Mapping[str, Attribute]:
    """Declare attributes that are real constants."""
    return MappingProxyType(dict.fromkeys(names, Attribute.REAL))


def real_to_bits(value: float) -> int:
    """Return the bit pattern of a binary64 as a signed 64-bit integer."""
    return int.from_bytes(struct.pack("<d", value + 0.0), "little", signed=True)


def bits_to_real(pattern: int) -> float:
    """Return the binary64 behind a pattern.

    Raises:
        RejectedProgram: infinite, not a number, or -0 (a second encoding of 0).
    """
    value: float = struct.unpack("<d", pattern.to_bytes(8, "little", signed=True))[0]
    if not math.isfinite(value) or real_to_bits(value) != pattern:
        raise RejectedProgram("a real attribute is not a finite canonical number")
    return value


def require(condition: bool, reason: str) -> None:
    """Raise RejectedProgram unless `condition`."""
    if not condition:
        raise RejectedProgram(reason)


def require_exact(bits: int, terms: int) -> None:
    """Reject a sum of `terms` integers below 2^bits that might not fit 53 bits."""
    total = bits + max(terms - 1, 0).bit_length()  # bit_length(n - 1) is ceil(log2 n)
    require(total <= EXACT_BITS, f"not exact: {total} bits of {EXACT_BITS}")


class Call:
    """What a forward pass works on, the same arrays at every step, so views are made once."""

    def __init__(
        self,
        outs: Sequence[Array],
        ins: Sequence[Array],
        attrs: Values,
        scratch: Scratch,
        before: int = 0,
    ) -> None:
        self.outs, self.ins, self.attrs, self.scratch = outs, ins, attrs, scratch
        self.before = before
        """Elements of the whole first input that stand before this shard's; 0 without shards."""

    @cached_property
    def constants(self) -> list[Array]:
        """The attributes as numpy takes them fastest."""
        return [constant(value) for value in self.attrs]

    @cached_property
    def blocks(self) -> list[tuple[list[Array], list[Array], list[Array]]]:
        """Inputs and outputs shaped like the first output, cut into blocks that fit the cache.

        Each entry: pieces of the inputs, pieces of the outputs, rows of scratch of their size.
        """
        size, shape = self.outs[0].size, self.outs[0].shape
        ins = [a.reshape(-1) for a in self.ins if a.shape == shape]
        outs = [a.reshape(-1) for a in self.outs]
        parts = [slice(at, min(at + BLOCK, size)) for at in range(0, size, BLOCK)]
        return [
            (
                [a[part] for a in ins],
                [a[part] for a in outs],
                self.scratch.rows(part.stop - part.start)[0],
            )
            for part in parts
        ]

    @cached_property
    def rows(self) -> list[tuple[list[Array], list[Array], list[Array]]]:
        """Inputs and outputs as matrices of the first input's rows, cut like `blocks`.

        Each block has whole rows along the last axis, at most BLOCK elements of them together.
        """
        width = self.ins[0].shape[-1]
        count, step = self.ins[0].size // width, max(1, BLOCK // width)
        ins, outs = ([a.reshape(count, -1) for a in arrays] for arrays in (self.ins, self.outs))
        blocks = []
        for at in range(0, count, step):
            part = slice(at, min(at + step, count))
            size = (part.stop - part.start) * width
            scratch = [row.reshape(-1, width) for row in self.scratch.rows(size)[0]]
            blocks.append(([a[part] for a in ins], [a[part] for a in outs], scratch))
        return blocks


class Op:
    """Base of all ops. Attributes reach every method decoded, in the order declared."""

    name: ClassVar[str]
    arity: ClassVar[int]
    attributes: ClassVar[Mapping[str, Attribute]] = integers()
    in_place: ClassVar[bool] = False
    """Whether the output may take the memory of a dying input of the same size."""
    row_gas: ClassVar[int] = 0
    """Gas of each row along the last axis, of the tensor with the most: short rows are slow."""
    accumulates: ClassVar[bool] = False
    """Whether the outputs are raw sums, as they came out of the products."""
    shape_only: ClassVar[tuple[int, ...]] = ()
    """Places of inputs of which nothing but the shape is read: shards need not wait for them."""
    source: ClassVar[str]
    """Where the definition comes from."""

    def infer(self, ins: Types, attrs: Values) -> Types:
        """Return the output types. Raises RejectedProgram with the reason."""
        raise NotImplementedError

    def gas(self, ins: Types, outs: Types) -> int:
        """Return the gas, about nanoseconds on the reference machine, without `row_gas`."""
        return 3000 + most_elements(ins, outs)

    def cost(self, ins: Types, outs: Types, attrs: Values) -> int:
        """Return the gas of a node; for ops whose attributes count too."""
        gas = self.gas(ins, outs)
        if self.row_gas:
            gas += self.row_gas * max(t.elements // (t.shape or (1,))[-1] for t in (*ins, *outs))
        return gas

    def forward(self, c: Call) -> None:
        """Fill the outputs. Raises Trap when values leave the exact range."""
        raise NotImplementedError

    def gradient(self, b: Builder, node: Emitted, g: int) -> list[tuple[int, int]]:
        """Emit the gradient; return (register, its gradient) pairs for what the op read."""
        raise RejectedProgram(f"{self.name}: has no gradient")

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        """Say what becomes of inputs split by rows: "rows" again, a "sum" to add up, or "peak".

        `ins` are the types of the whole inputs. With "rows" each shard gets a share of the rows
        of the result; where the result has more or fewer rows than the input, in proportion.
        """
        return "rows"

    def share_attributes(self, attrs: Values, outs: Types) -> Values:
        """Return the attributes for a shard, whose share of the results has the types `outs`."""
        return attrs


def most_elements(ins: Types, outs: Types) -> int:
    """Return the size of the largest tensor an op touches: the n of the gas formulas."""
    return max(t.elements for t in (*ins, *outs))


def repeats(y: Type, x: Type) -> int:
    """Return how often y is met by a part of x: 0 if it is a number, or as large as x."""
    return x.elements // y.elements if 1 < y.elements < x.elements else 0


def require_real(*ins: Type) -> None:
    """Reject state and labels where binary64 arithmetic is meant."""
    require(all(t.kind in "FGR" for t in ins), "takes F, G or R; widen state first")


OPS: dict[str, Op] = {}


def register(kind: type[Op]) -> type[Op]:
    """Class decorator: enter an op into the table."""
    assert kind.name not in OPS, f"two ops are named {kind.name}"
    assert kind.__doc__ and kind.source, f"{kind.name}: say what it is and where it comes from"
    OPS[kind.name] = kind()
    return kind


def decode_attributes(op: Op, raw: Sequence[int]) -> tuple[Value, ...]:
    """Return the attributes of a node as numbers.

    Raises:
        RejectedProgram: a wrong count, or a real that is not canonical.
    """
    require(len(raw) == len(op.attributes), f"takes attributes {list(op.attributes)}")
    kinds = op.attributes.values()
    return tuple(
        bits_to_real(r) if k is Attribute.REAL else r for k, r in zip(kinds, raw, strict=True)
    )


def encode_attributes(op: Op, values: dict[str, Value]) -> tuple[int, ...]:
    """Return named attributes as a node stores them."""
    assert list(values) == list(op.attributes), f"{op.name} takes {list(op.attributes)}"
    return tuple(
        real_to_bits(v) if op.attributes[n] is Attribute.REAL else int(v) for n, v in values.items()
    )
