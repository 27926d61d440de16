"""Programs as data, and the check that every node makes before one runs.

A program is a flat list of ops in single-assignment form. Registers count up: first the inputs,
then the outputs of each op. An op reads only registers below its own, so there are no cycles, no
loops, and the cost is known exactly in advance. The check is integer arithmetic alone; nothing is
allocated for a program it refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mlchain.codec import Name, Record
from mlchain.errors import RejectedProgram
from mlchain.ml_runtime.op import OPS, Op, Value, decode_attributes
from mlchain.ml_runtime.tensor import MAX_ELEMENTS, MAX_RANK, Type

MAX_NODES = 4096
"""Most ops of a program; a small transformer trains in 256. Bounds the time of the check."""
MAX_TENSORS = 4096
MAX_GAS = 10**13
"""Most gas of one program, about three hours."""

Register = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Word = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Node(Record, frozen=True):
    """One op: its name, the registers it reads, its attributes as 64-bit words."""

    op: Name
    inputs: Annotated[tuple[Register, ...], Meta(max_length=8)]
    attributes: Annotated[tuple[Word, ...], Meta(max_length=8)]


class Program(Record, frozen=True):
    """Types of the inputs, ops in order, and the registers that are the result."""

    inputs: Annotated[tuple[Type, ...], Meta(max_length=MAX_TENSORS)]
    nodes: Annotated[tuple[Node, ...], Meta(max_length=MAX_NODES)]
    outputs: Annotated[tuple[Register, ...], Meta(min_length=1, max_length=MAX_TENSORS)]


@dataclass(frozen=True, slots=True)
class Step:
    """A checked node: op, registers read, registers filled, attributes decoded."""

    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attrs: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check found: steps ready to run, the type of every register, exact gas."""

    program: Program
    steps: tuple[Step, ...]
    types: tuple[Type, ...]
    gas: int


def check(program: Program) -> Checked:
    """Return the checked form of `program`.

    Raises:
        RejectedProgram: names the op and says what is wrong with it.
    """
    types = list(program.inputs)
    for i, kind in enumerate(types):
        check_type(kind, f"input {i}")
    steps, gas = [], 0
    for i, node in enumerate(program.nodes):
        where = f"op {i} ({node.op})"
        op = OPS.get(node.op)
        if op is None:
            raise RejectedProgram(f"{where}: no such op", "ops: " + ", ".join(sorted(OPS)))
        if len(node.inputs) != op.arity:
            raise RejectedProgram(f"{where}: reads {len(node.inputs)} registers, not {op.arity}")
        if any(r >= len(types) for r in node.inputs):
            raise RejectedProgram(f"{where}: reads a register that is not filled yet")
        ins = tuple(types[r] for r in node.inputs)
        try:
            attrs = decode_attributes(op, node.attributes)
            outs = op.infer(ins, attrs)
        except RejectedProgram as error:
            raise RejectedProgram(f"{where}: {error.message}") from error
        for kind in outs:
            check_type(kind, where)
        gas += op.cost(ins, outs, attrs)
        if gas > MAX_GAS:
            raise RejectedProgram(f"{where}: the program passes {MAX_GAS} gas")
        filled = tuple(range(len(types), len(types) + len(outs)))
        steps.append(Step(op, node.inputs, filled, attrs))
        types.extend(outs)
    if any(r >= len(types) for r in program.outputs):
        raise RejectedProgram("outputs: a register that is never filled")
    return Checked(program, tuple(steps), tuple(types), gas)


def slice_program(checked: Checked, start: int, stop: int) -> Program:
    """Return ops `start` to `stop` (excluded) as a program of their own, to re-run a part.

    Its inputs are the registers read from before `start`, its outputs those that are read after
    `stop` or are results; both in ascending order.
    """
    steps = checked.steps[start:stop]
    inside = [r for s in steps for r in s.outputs]
    wanted = {r for s in checked.steps[stop:] for r in s.inputs} | set(checked.program.outputs)
    reads = sorted({r for s in steps for r in s.inputs} - set(inside))
    results = [r for r in inside if r in wanted]
    number = {r: i for i, r in enumerate(reads + inside)}
    nodes = tuple(
        Node(n.op, tuple(number[r] for r in n.inputs), n.attributes)
        for n in checked.program.nodes[start:stop]
    )
    return Program(tuple(checked.types[r] for r in reads), nodes, tuple(number[r] for r in results))


def check_type(kind: Type, where: str) -> None:
    """Return if a register may have such a type.

    Raises:
        RejectedProgram: too many axes or elements, or a bound that its kind cannot have.
    """
    if len(kind.shape) > MAX_RANK:
        raise RejectedProgram(f"{where}: {kind} has more than {MAX_RANK} axes")
    if kind.elements > MAX_ELEMENTS:
        raise RejectedProgram(f"{where}: {kind} has more than {MAX_ELEMENTS} elements")
    if kind.kind in "GR" and not 2 <= kind.bound <= 48:
        raise RejectedProgram(f"{where}: a grid of {kind.bound} bits, not 2 to 48")
    if kind.kind == "I" and kind.bound < 1:
        raise RejectedProgram(f"{where}: labels below {kind.bound}")
    if kind.kind in "FS" and kind.bound:
        raise RejectedProgram(f"{where}: {kind.kind} has no bound")
