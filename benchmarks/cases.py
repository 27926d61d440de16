"""Cases of any op for benchmarks: types and attributes its rule accepts, drawn at random.

Nothing here knows ops by name but those whose operands chance would hardly hit, so an op that is
added tomorrow is measured tomorrow.
"""

from __future__ import annotations

import random
import sys
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlchain.errors import RejectedProgram
from mlchain.ml_runtime.grid import peak, quantise
from mlchain.ml_runtime.op import OPS, Op, decode_attributes, encode_attributes
from mlchain.ml_runtime.program import Node, Program, check
from mlchain.ml_runtime.tensor import Array, Type, allocate, finite, grid, labels, row_grid, stored

sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / "ml_runtime")]

from ml_attributes import FITTING  # noqa: E402
from ml_factory import _attributes  # noqa: E402

MAX_GAS, MAX_BYTES = 2 * 10**7, 64 << 20
"""Of one case: it has to run many times."""
TRIES = 3000


class Case(NamedTuple):
    """One node: what it reads, its raw attributes, how the numbers are chosen (see VALUES)."""

    op: str
    ins: tuple[Type, ...]
    raw: tuple[int, ...]
    values: str = "ordinary"

    @property
    def outs(self) -> tuple[Type, ...]:
        op = OPS[self.op]
        return op.infer(self.ins, decode_attributes(op, self.raw))

    @property
    def gas(self) -> int:
        op = OPS[self.op]
        return op.cost(self.ins, self.outs, decode_attributes(op, self.raw))

    @property
    def bytes(self) -> int:
        return sum(t.bytes for t in (*self.ins, *self.outs))

    def program(self, copies: int) -> Program:
        """The node so many times over, every result kept."""
        first, step = len(self.ins), len(self.outs)
        nodes = (Node(self.op, tuple(range(first)), self.raw),) * copies
        return Program(self.ins, nodes, tuple(first + step * i for i in range(copies)))

    def __str__(self) -> str:
        values = decode_attributes(OPS[self.op], self.raw)
        return f"{self.op} {' '.join(map(str, self.ins))} {list(values) or ''} {self.values}"


def fits(case: Case) -> bool:
    """Whether the check takes a case, and it is small enough to be run."""
    try:
        return check(case.program(1)).gas <= MAX_GAS and case.bytes <= MAX_BYTES
    except (RejectedProgram, OverflowError):  # another attribute may be no 64-bit word
        return False


def _size(r: random.Random, most: int) -> int:
    return max(1, int(most ** r.random()))


def _shape(r: random.Random, elements: int) -> tuple[int, ...]:
    """A shape of about so many elements: flat, tall, a stack; short and single axes are common."""
    if r.random() < 0.5:  # what defeats vector instructions: a last or first axis of a few
        few = r.choice([1, 2, 3, 4, 16])
        ends = (max(1, elements // few), few) if r.random() < 0.7 else (few, elements // few + 1)
        return r.choice([ends, ends, (1, *ends), (max(1, ends[0] // 9), 3, 3, ends[1])])
    shape: list[int] = []
    for _ in range(r.choice([0, 1, 1, 2, 3])):
        shape.append(1 if r.random() < 0.2 else _size(r, elements))
        elements = max(1, elements // shape[-1])
    shape.insert(r.randrange(len(shape) + 1), elements)
    return tuple(shape)


def _kind(r: random.Random, shape: tuple[int, ...], letters: str) -> Type:
    letter = r.choice(letters)
    last = shape[-1] if shape else 1
    makers = {"F": finite, "S": stored}
    if letter in makers:
        return makers[letter](*shape)
    if letter == "I":
        return labels(r.choice([last, 2, max(1, last // 2), 10, 1000]), *shape)
    bits = r.choice([16, 16, 16, 2, 8, 32])
    return (grid if letter == "G" else row_grid)(bits, *shape)


def _operands(r: random.Random, op: Op, shape: tuple[int, ...]) -> tuple[Type, ...]:
    if op.name == "adam":
        return (*(stored(*shape),) * 3, finite(*shape), stored(2))
    if op.name == "adam_powers":
        return (stored(2),)
    if op.name == "spread":
        return (finite(), finite(*shape))
    if op.name in ("log_loss", "softmax_residual"):
        n, k = (*shape, 1, 1)[:2]
        return (finite(n, k), labels(k, n), finite(n))[: op.arity]
    if op.name == "dropout":
        return (finite(*shape), stored(4), stored())
    if op.name == "matmul" and r.random() < 0.7:
        n, k, m = (_size(r, max(shape, default=1)) for _ in range(3))
        return (grid(16, n, k), grid(16, k, m))
    other = _size(r, 4096)
    near = [shape[1:], shape[:-1], shape[-1:], shape[:1], (), (2,), (*shape[:-1], other)]
    near += [(other, *shape[1:]), (*shape[:-2], *shape[-2:][::-1]), (*shape[:-2], shape[-1], other)]
    letters = r.choice(["F", "G", "FGR", "S", "FS", "FI", "I", "FGRSI"])
    first = _kind(r, shape, letters)
    rest = (_kind(r, shape if r.random() < 0.5 else r.choice(near), letters) for _ in range(9))
    return (first, *rest)[: op.arity]


def draw(r: random.Random, name: str, elements: int) -> Case | None:
    """Return a case whose first operand has about `elements`, None if chance finds none."""
    op = OPS[name]
    for _ in range(TRIES):
        ins = _operands(r, op, _shape(r, elements))
        try:
            attributes = _attributes(r, op)
            if name in FITTING and ins:
                attributes = FITTING[name](r, ins[0])
            if "count" in attributes and op.arity == 0:
                attributes["count"] = elements
            case = Case(name, ins, encode_attributes(op, attributes))
        except (AssertionError, IndexError, ValueError):
            continue
        if fits(case):
            return case
    return None


def neighbour(r: random.Random, case: Case) -> Case | None:
    """Return a case a step away: another length of an axis, other attributes, other numbers."""
    how = r.random()
    if how < 0.25:
        changed = case._replace(values=r.choice(list(VALUES)))
    elif how < 0.4 and case.ins:
        op, name = OPS[case.op], case.op
        try:
            attributes = FITTING[name](r, case.ins[0]) if name in FITTING else _attributes(r, op)
            changed = case._replace(raw=encode_attributes(op, attributes))
        except (AssertionError, IndexError, ValueError):
            return None
    else:
        sizes = sorted({d for t in case.ins for d in t.shape} | {v for v in case.raw if v < 2**31})
        old = r.choice([s for s in sizes if s > 0] or [1])
        new = max(1, r.choice([old * 2, old // 2, old * 8, old // 8, old + 1, old - 1, 1]))
        other = r.choice([s for s in sizes if s > 0] or [1])
        swap = {old: new}
        if r.random() < 0.5 and other != old:
            swap[other] = max(1, other * old // new)
        ins = tuple(
            Type(
                t.kind,
                swap.get(t.bound, t.bound) if t.kind == "I" else t.bound,
                tuple(swap.get(d, d) for d in t.shape),
            )
            for t in case.ins
        )
        raw = tuple(swap.get(v, v) if 4 < v < 2**31 else v for v in case.raw)
        changed = case._replace(ins=ins, raw=raw)
    return changed if changed != case and fits(changed) else None


VALUES = {
    "ordinary": lambda r, shape: r.normal(size=shape),
    "positive": lambda r, shape: r.random(size=shape) + 0.5,
    "subnormal": lambda r, shape: r.normal(size=shape) * 1e-310,
    "near subnormal": lambda r, shape: r.normal(size=shape) * 2.0**-530,
    "zero": lambda r, shape: np.zeros(shape),
    "huge": lambda r, shape: r.normal(size=shape) * 1e300,
    "not a number": lambda r, shape: np.full(shape, np.nan),
    "ascending": lambda r, shape: np.arange(prod(shape), dtype=float).reshape(shape),
    "mixed": lambda r, shape: r.normal(size=shape) * 2.0 ** r.integers(-1060, 400, shape),
}


def numbers(kind: Type, values: str, seed: int) -> Array:
    """Return an operand: any numbers where the type is F, what its rule allows elsewhere."""
    r = np.random.default_rng(seed)
    out = allocate(kind)
    with np.errstate(all="ignore"):
        if kind.kind == "I":
            out[...] = r.integers(0, kind.bound, kind.shape)
        elif kind.kind == "F":
            out[...] = VALUES[values](r, kind.shape)
        elif kind.kind == "S":
            small = values in ("subnormal", "near subnormal", "mixed")
            raw = r.normal(size=kind.shape) * (2.0**-100 if small else 0.25)
            out[...] = (raw + 2.0**-60) - 2.0**-60
            if kind.shape == (2,):
                out[...] = 0.5  # bias powers
        else:
            small = values in ("subnormal", "near subnormal")
            raw = r.normal(size=kind.shape) * (2.0**-390 if small else 1.0)
            quantise(raw, kind.bound, peak(raw), out)
    return out
