"""What stands where in the trace of a step, and from what each entry follows.

A step's trace lists 32-byte digests of everything it computes, in this order:

    x, y, the state before        the inputs of the step program
    every output of every op      registers, in order
    the loss                      again, if it is finite
    the state after               tensor by tensor, again; in a chunk's last step if it is finite
    the pairs over it, its root   the Merkle tree of the state digest, so the last entry is that

Where a step traps, that entry and all later ones of the chunk are *absent*: empty instead of 32
bytes. So a trap is claimed, disputed and refuted like any other value.
"""

from __future__ import annotations

from typing import NamedTuple

from mlchain import codec, crypto
from mlchain.ml_runtime import tree
from mlchain.ml_runtime.plan import Plan
from mlchain.ml_runtime.program import Checked, Node, Program, check

ENTRIES = tree.Tags("mlchain/trace-node", "mlchain/trace-step")
"""The tree over the entries of a step."""
STEPS = tree.Tags("mlchain/trace-pair", "mlchain/trace")
"""The tree over the roots of a chunk's steps."""

ABSENT = b""


class Rule(NamedTuple):
    """How an entry is computed: `kind`, from the entries `reads` of the same step.

    Kinds: "x", "y", "state" (tensor `part` of the state before), "op" (output `part` of node
    `op`), "loss", "after" (tensor `part` of the state after), "pair", "root".
    """

    kind: str
    op: int
    part: int
    reads: tuple[int, ...]


class Layout:
    """The entries of one step of a plan, which has passed its check."""

    def __init__(self, plan: Plan) -> None:
        self.checked: Checked = check(plan.step)
        self.tensors = len(plan.state)
        outputs = self.checked.program.outputs
        ops = len(self.checked.steps)
        rules = [Rule("x", -1, 0, ()), Rule("y", -1, 0, ())]
        rules += [Rule("state", -1, i, ()) for i in range(self.tensors)]
        for number, step in enumerate(self.checked.steps):
            reads = tuple(sorted(dict.fromkeys(step.inputs)))
            rules += [Rule("op", number, k, reads) for k in range(len(step.outputs))]
        rules.append(Rule("loss", ops, 0, (outputs[-1],)))
        self.after = len(rules)
        """Where the state after the step begins."""
        rules += [Rule("after", ops, i, (outputs[i],)) for i in range(self.tensors)]
        level = list(range(self.after, len(rules)))
        while len(level) > 1:
            made = range(len(rules), len(rules) + len(level) // 2)
            rules += [
                Rule("pair", ops, 0, tuple(level[2 * i : 2 * i + 2])) for i in range(len(made))
            ]
            level = [*made, *level[len(level) & ~1 :]]
        rules.append(Rule("root", ops, 0, (level[0],)))
        self.rules: tuple[Rule, ...] = tuple(rules)

    @property
    def count(self) -> int:
        """Number of entries."""
        return len(self.rules)

    @property
    def last(self) -> int:
        """Place of the last entry, the digest of the state after the step."""
        return len(self.rules) - 1

    def leaf(self, step: int, place: int, value: bytes) -> bytes:
        """Return the leaf of an entry: it binds step, op, place and what is claimed there."""
        bound = codec.encode((step, self.rules[place].op, place))
        return crypto.digest("mlchain/trace-entry", bound, value)

    def tree(self, step: int, values: list[bytes]) -> tree.Levels:
        """Return the tree over the entries of a step."""
        return tree.grow(ENTRIES, [self.leaf(step, i, v) for i, v in enumerate(values)])

    def premises(self, first: bool, place: int) -> tuple[list[int], list[int]]:
        """Return the entries of (the step before, the same step) that decide an entry.

        They are what its rule reads and the entry just before it, which tells whether the chunk
        had trapped. `first`: it is the first step of its chunk.
        """
        rule, before = self.rules[place], []
        here = list(rule.reads) + ([place - 1] if place else [])
        if not first and place == 0:
            before.append(self.last)
        if not first and rule.kind == "state":
            before.append(self.after + rule.part)
        return before, sorted(dict.fromkeys(here))

    def describe(self, place: int) -> str:
        """Return an entry in words."""
        kind, op, index, _ = self.rules[place]
        words = {
            "x": "the rows x of the batch",
            "y": "the targets y of the batch",
            "state": f"tensor {index} of the state before the step",
            "loss": "whether the loss is finite",
            "after": f"tensor {index} of the state after the step",
            "pair": "a pair in the digest of the state",
            "root": "the digest of the state after the step",
        }
        if kind != "op":
            return words[kind]
        node = self.checked.program.nodes[op]
        return f"op {op} ({node.op})" + (f", output {index}" if index else "")


def op_program(checked: Checked, op: int) -> Program:
    """Return one op as a program: its inputs are the registers it reads, in ascending order."""
    step, node = checked.steps[op], checked.program.nodes[op]
    reads = sorted(dict.fromkeys(step.inputs))
    number = {r: i for i, r in enumerate(reads)}
    outputs = tuple(range(len(reads), len(reads) + len(step.outputs)))
    alone = Node(node.op, tuple(number[r] for r in node.inputs), node.attributes)
    return Program(tuple(checked.types[r] for r in reads), (alone,), outputs)
