"""Programs as an attacker writes them: good ones with a few parts changed for the worse."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from msgspec.structs import replace

sys.path.append(str(Path(__file__).parent.parent / "ml_runtime"))

from ml_factory import make_program, make_values

from mlchain.ml_runtime.op import OPS, real_to_bits
from mlchain.ml_runtime.program import MAX_NODES, Node, Program
from mlchain.ml_runtime.tensor import Array, Type, allocate

WORDS = (
    *(0, 1, -1, 2, 3, 48, 49, 400, 501, 2**26, 2**31 - 1, 2**31, 2**53, 2**63 - 1, -(2**63)),
    0x7FF0000000000000,  # infinity
    0x7FF8000000000000,  # not a number
    0xFFF0000000000000 - 2**64,
    *map(real_to_bits, (5e-324, 2.0**-1022, -1.5, 2.0**26 + 1, 2.0**500, 1.7976931348623157e308)),
)
"""Attributes: the ends of every range, patterns that are no numbers, -0 (-2^63), subnormals."""
SIZES = (0, 1, 2, 3, 64, 65, 4096, 8193, 2**16, 2**23 + 1, 2**26, 2**27 + 1, 2**31 - 1, 2**31)
NUMBERS = (5e-324, 2.0**-1040, 2.0**-400, 2.0**26, 2.0**499, 2.0**500, 1e308, np.inf, np.nan, -0.0)
BAD = len(NUMBERS) // 2


def _node(change: Callable[[random.Random, Program, Node], Node]):
    """A change of one node of a program."""

    def apply(r: random.Random, program: Program) -> Program:
        nodes = list(program.nodes)
        i = r.randrange(len(nodes))
        nodes[i] = change(r, program, nodes[i])
        return replace(program, nodes=tuple(nodes))

    return apply


@_node
def another_op(r: random.Random, program: Program, node: Node) -> Node:
    return replace(node, op=r.choice([*OPS, *OPS, "exec", "", "Matmul", "matmul ", "add\u200b"]))


@_node
def another_arity(r: random.Random, program: Program, node: Node) -> Node:
    return replace(node, inputs=tuple(r.choices(node.inputs or (0,), k=r.randrange(10))))


@_node
def another_register(r: random.Random, program: Program, node: Node) -> Node:
    """One filled earlier, or later, or by itself, or never."""
    filled = len(program.inputs) + len(program.nodes)
    register = r.choice([r.randrange(filled), r.randrange(filled), filled, 2**31 - 1, -1])
    spoilt = [register if r.random() < 0.6 else old for old in node.inputs]
    return replace(node, inputs=tuple(spoilt))


@_node
def another_attribute(r: random.Random, program: Program, node: Node) -> Node:
    spoilt = [r.choice(WORDS) if r.random() < 0.6 else old for old in node.attributes]
    return replace(node, attributes=tuple(spoilt))


@_node
def more_attributes(r: random.Random, program: Program, node: Node) -> Node:
    return replace(node, attributes=tuple(r.choices(WORDS, k=r.randrange(10))))


def another_type(r: random.Random, program: Program) -> Program:
    kinds = list(program.inputs)
    i = r.randrange(len(kinds))
    kind = kinds[i]
    kinds[i] = r.choice(
        [
            replace(kind, kind=r.choice("FGRSIX"), bound=r.choice([kind.bound, 0, 2, 16, 48, 49])),
            replace(kind, bound=r.choice([0, 1, 2, 26, 27, 28, 48, 49, 2**31])),
            replace(kind, shape=tuple(r.choices(SIZES, k=r.randrange(6)))),
            replace(kind, shape=tuple(r.choice(SIZES[1:5]) for _ in kind.shape)),
            replace(kind, shape=(*kind.shape, 1)),
            replace(kind, shape=kind.shape[::-1]),
        ]
    )
    return replace(program, inputs=tuple(kinds))


def other_results(r: random.Random, program: Program) -> Program:
    """Inputs as results, one result many times, a result that nobody fills."""
    filled = len(program.inputs) + len(program.nodes)
    some = [r.randrange(filled) for _ in range(r.randrange(4))]
    more = r.choice([[], [0, 0], [0] * 50, some * 2, [filled + 40], [-1], list(program.outputs)])
    return replace(program, outputs=tuple(some + more))


def many_nodes(r: random.Random, program: Program) -> Program:
    count = r.choice([40, 200, MAX_NODES, MAX_NODES + 1])
    return replace(program, nodes=(program.nodes * count)[:count])


CHANGES = (
    another_op,
    another_arity,
    *(another_register,) * 3,
    *(another_attribute,) * 4,
    more_attributes,
    *(another_type,) * 4,
    *(other_results,) * 2,
    many_nodes,
)


def hostile_program(seed: int) -> Program:
    """Return a program that was good before one to three changes."""
    r = random.Random(seed)
    program, _ = make_program(r.randrange(10**9), r.choice([1, 3, 8, 14]))
    for _ in range(r.choice([1, 1, 2, 3])):
        if program.inputs and program.nodes:
            program = r.choice(CHANGES)(r, program)
    return program


def hostile_inputs(seed: int, kinds: tuple[Type, ...]) -> list[Array]:
    """Return inputs of the types, the worst that a caller may pass: any bits where F allows."""
    r = random.Random(seed)
    arrays = []
    for kind in kinds:
        array = make_values(r, kind) if kind.kind != "R" else allocate(kind)
        if kind.kind == "F" and array.size and r.random() < 0.3:
            flat, worst = array.reshape(-1), r.choice([NUMBERS[:BAD], NUMBERS])
            for _ in range(r.choice([1, flat.size])):
                flat[r.randrange(flat.size)] = r.choice(worst)
        arrays.append(array)
    return arrays
