"""What an entry of a trace has to be, given the entries it rests on: one op, re-executed.

Nothing here trusts its input: sizes are compared before anything is allocated, operands with the
digests that the accused committed to, and with their types.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlchain import crypto
from mlchain.errors import Trap, VerificationFailed
from mlchain.ml_runtime import tree
from mlchain.ml_runtime.data import FRACTION
from mlchain.ml_runtime.grid import peak
from mlchain.ml_runtime.machine import Backend
from mlchain.ml_runtime.plan import Plan, input_types
from mlchain.ml_runtime.proof.claim import ROWS, TracedJob, row_leaves
from mlchain.ml_runtime.proof.freivalds import grid_exponent, in_units, is_product, multiplies, pays
from mlchain.ml_runtime.proof.layout import ABSENT, Layout, Rule, op_program
from mlchain.ml_runtime.proof.record import EntryFault
from mlchain.ml_runtime.state import initial_tensor
from mlchain.ml_runtime.tensor import (
    Array,
    Type,
    allocate,
    digest,
    digest_as_stored,
    storage,
    stored,
)
from mlchain.ml_runtime.train import Order

MAX_OP_BYTES = 4 << 30
"""Most memory of operands and results of one op that is re-executed."""
MAX_ORDER_ROWS = 1 << 27
"""Most training rows whose order is computed, two 8-byte words for each."""


class Case:
    """All that decides entries of one accused chunk."""

    def __init__(
        self, job: TracedJob, plan: Plan, layout: Layout, backend: Backend, seed: bytes | None
    ) -> None:
        self.job, self.plan, self.layout = job, plan, layout
        self.backend, self.seed = backend, seed

    def expected(
        self, fault: EntryFault, number: int, last: bool, known: dict[int, bytes], begin: bytes
    ) -> bytes:
        """Return what the entry has to be; ABSENT if it traps.

        `number`: of the step; `last`: whether it ends its chunk; `known`: the entries it rests
        on, none absent; `begin`: for the state before, the digest it had.

        Raises:
            VerificationFailed: what the fault carries does not decide it.
        """
        rule = self.layout.rules[fault.place]
        values = [known[r] for r in rule.reads]
        if rule.kind == "pair":
            return crypto.digest(tree.STATE.node, *values)
        if rule.kind == "root":
            return tree.seal(tree.STATE, self.layout.tensors, values[0])
        if rule.kind == "state":
            return begin or digest(
                stored(*self.plan.state[rule.part].shape),
                initial_tensor(self.plan, self.job.seed, rule.part),
            )
        if rule.kind in "xy":
            return self._load(fault, number)["xy".index(rule.kind)]
        if rule.kind == "after" and not last:
            return values[0]
        kinds = [self.layout.checked.types[r] for r in rule.reads]
        made = self._made(rule)
        if sum(kind.bytes for kind in (*kinds, *made)) > MAX_OP_BYTES:
            raise VerificationFailed(f"operands: the op takes more than {MAX_OP_BYTES} bytes")
        operands = _open(kinds, values, fault.operands)
        if rule.kind != "op":
            return values[0] if math.isfinite(peak(operands[0])) else ABSENT
        for kind, operand in zip(kinds, operands, strict=True):
            require_type(kind, operand)
        if fault.product and self._checks_products(rule.op):
            return self._product(rule, operands, made[0], fault.product)
        return self._run(rule, operands, made)

    def _checks_products(self, op: int) -> bool:
        """Tell whether to check the product that the fault brings: not if to repeat is quicker."""
        checked = self.layout.checked
        if self.seed is None or not multiplies(checked, op):
            return False
        return self.backend.name != "numpy" or pays(checked, op)

    def _made(self, rule: Rule) -> list[Type]:
        if rule.kind != "op":
            return []
        return [self.layout.checked.types[r] for r in self.layout.checked.steps[rule.op].outputs]

    def _run(self, rule: Rule, operands: list[Array], made: list[Type]) -> bytes:
        """Re-execute the op."""
        found: list[bytes] = []
        program = op_program(self.layout.checked, rule.op)
        try:
            self.backend.bind(program, operands, [allocate(k) for k in made], found)()
        except Trap:
            return ABSENT
        return found[rule.part]

    def _product(self, rule: Rule, operands: list[Array], kind: Type, claimed: bytes) -> bytes:
        """Return the digest of a product that holds up against a random vector."""
        assert self.seed is not None
        product = _array(kind, claimed, "product")
        checked = self.layout.checked
        a, b = (operands[rule.reads.index(r)] for r in checked.steps[rule.op].inputs)
        if not is_product(checked, rule.op, a, b, product, self.seed):
            raise VerificationFailed("product: it is not that of the operands")
        return digest_as_stored(kind, product)

    def _load(self, fault: EntryFault, number: int) -> tuple[bytes, bytes]:
        """Return the digests of x and y of a step, from rows that are those of the dataset."""
        task, plan, job = self.job.task, self.plan, self.job
        if max(task.train_rows, job.count) > MAX_ORDER_ROWS:
            raise VerificationFailed(f"rows: more than {MAX_ORDER_ROWS}")
        if task.train_rows > job.count:
            raise VerificationFailed("rows: the task trains on more than there are")
        order = Order(job.seed, task.train_rows, plan.batch).batch(number).tolist()
        numbers = sorted(dict.fromkeys(order))
        if len(fault.rows) != len(numbers):
            raise VerificationFailed(f"rows: {len(fault.rows)}, the batch has {len(numbers)}")
        x_kind, y_kind = input_types(plan)
        cut, size = 2 * plan.features, 2 * plan.features + y_kind.bytes // plan.batch
        if any(len(row) != size for row in fault.rows):
            raise VerificationFailed(f"rows: one has not {size} bytes")
        x = np.frombuffer(b"".join(row[:cut] for row in fault.rows), "<i2")
        y = np.frombuffer(b"".join(row[cut:] for row in fault.rows), storage(y_kind))
        x, y = x.reshape(len(numbers), -1), y.reshape(len(numbers), *y_kind.shape[1:])
        leaves = dict(zip(numbers, row_leaves(x, y), strict=True))
        if tree.climb_to_root(ROWS, job.count, leaves, fault.row_siblings) != job.rows:
            raise VerificationFailed("rows: they are not rows of the dataset")
        places = np.searchsorted(numbers, order)
        found = allocate(x_kind), allocate(y_kind)
        np.multiply(x[places], 2.0**-FRACTION, out=found[0])
        groups = plan.target == "cluster"  # it is shown places in the batch, and no labels
        found[1][...] = np.arange(plan.batch) if groups else y[places]
        return digest(x_kind, found[0]), digest(y_kind, found[1])


def _open(kinds: Sequence[Type], values: Sequence[bytes], operands: Sequence[bytes]) -> list[Array]:
    """Return operands as arrays, if they are the tensors whose digests are `values`."""
    if len(operands) != len(kinds):
        raise VerificationFailed(f"operands: {len(operands)}, the op reads {len(kinds)}")
    arrays = [
        _array(kind, data, f"operand {i}")
        for i, (kind, data) in enumerate(zip(kinds, operands, strict=True))
    ]
    for i, (kind, array, value) in enumerate(zip(kinds, arrays, values, strict=True)):
        if digest_as_stored(kind, array) != value:
            raise VerificationFailed(f"operand {i}: it is not what the accused committed to")
    return arrays


def _array(kind: Type, data: bytes, what: str) -> Array:
    if len(data) != kind.bytes:
        raise VerificationFailed(f"{what}: {len(data)} bytes, not {kind.bytes}")
    return np.frombuffer(data, storage(kind)).reshape(kind.shape)


def require_type(kind: Type, array: Array) -> None:
    """Return if the elements are ones the type allows, as ops rely on.

    Raises:
        VerificationFailed: a label out of range, or an element off the grid.
    """
    if kind.kind == "I" and not (array.min() >= 0 and array.max() < kind.bound):
        raise VerificationFailed(f"operand: a label outside {kind}; dispute the entry it came from")
    if kind.kind not in "GR":
        return
    if not math.isfinite(peak(array)):
        raise VerificationFailed(f"operand: not finite, not a {kind}; dispute where it came from")
    rows = array.reshape(-1, array.shape[-1] if kind.kind == "R" else array.size)
    if any(in_units(row, grid_exponent(row, kind.bound)) is None for row in rows):
        raise VerificationFailed(f"operand: off the grid of {kind}; dispute where it came from")
