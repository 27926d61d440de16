"""Operators: a worker and a validator say that they belong together (docs/adr/0041).

From then on the work of the one earns turns to propose for the other, which attests it no more.
Each segment says whose it is from when it is assigned: no work counts for two, and nobody both
judges work and gains turns by it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from mlchain.codec import PublicKey, Record
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import State, Table
from mlchain.ledger.validators import ValidatorSet
from mlchain.vm.context import BlockContext, Context, Payload
from mlchain.vm.families.jobs import SEGMENTS, Phase, in_phase
from mlchain.vm.families.members import VALIDATORS, WORKERS, bond_holder

OPERATOR_GAS = 2_000


class Operator(Record, frozen=True):
    """The validator that a worker says it belongs to; it counts once that has confirmed."""

    validator: PublicKey
    is_confirmed: bool


OPERATORS = Table(b"operator/", Operator, bytes)
"""By worker."""


class NameOperator(Payload, frozen=True):
    """A worker says which validator it belongs to, in place of any before; empty: to none."""

    KIND: ClassVar[int] = 44
    ROLE: ClassVar[str] = "worker"
    validator: Annotated[bytes, Meta(max_length=32)]

    def execute(self, ctx: Context) -> None:
        """Note it; the validator has yet to confirm."""
        ctx.charge(OPERATOR_GAS)
        known = OPERATORS.get(ctx.state, ctx.sender)
        if (known.validator if known else b"") == self.validator:
            raise InvalidTransaction("this is what the worker says already")
        if not self.validator:
            OPERATORS.delete(ctx.state, ctx.sender)
            ctx.emit("the worker belongs to no validator")
            return
        record = VALIDATORS.get(ctx.state, self.validator)
        if record is None or record.left_height:
            raise InvalidTransaction(f"{self.validator.hex()[:16]} is not a validator")
        OPERATORS.put(ctx.state, Operator(self.validator, False), ctx.sender)
        ctx.emit(f"{record.name} is named, and has yet to confirm")


class ConfirmWorker(Payload, frozen=True):
    """A validator confirms that a worker belongs to it, or says that it does not."""

    KIND: ClassVar[int] = 45
    ROLE: ClassVar[str] = "validator"
    worker: PublicKey
    is_own: bool

    def execute(self, ctx: Context) -> None:
        """Have segments that the worker is given from now on count as the validator's."""
        ctx.charge(OPERATOR_GAS)
        known, record = OPERATORS.get(ctx.state, self.worker), WORKERS.get(ctx.state, self.worker)
        if known is None or bond_holder(ctx.state, known.validator) != ctx.sender:
            raise InvalidTransaction("the worker does not name this validator", "it goes first")
        if not self.is_own:
            OPERATORS.delete(ctx.state, self.worker)
            ctx.emit("the worker belongs to no validator")
            return
        if known.is_confirmed or record is None or record.left_height:
            raise InvalidTransaction("the worker has gone, or is confirmed already")
        if not _can_spare(ctx.block.validators, ctx.sender):
            raise InvalidTransaction(
                f"of {len(ctx.block.validators)} validators all must attest every segment",
                "with four one can be the worker's own",
            )
        OPERATORS.put(ctx.state, replace(known, is_confirmed=True), self.worker)
        ctx.emit(f"the work of {record.name} is the validator's own")


def operator_of(block: BlockContext, worker: bytes) -> bytes:
    """Return the validator whose own work `worker` does now; empty if there is none.

    None either while the others are no quorum: what nobody could attest would never be HARD.
    """
    known = OPERATORS.get(block.state, worker)
    if known is None or not known.is_confirmed:
        return b""
    holder = bond_holder(block.state, known.validator)
    return holder if _can_spare(block.validators, holder) else b""


def carry_over(state: State, old: bytes, new: bytes) -> None:
    """Let `new`, which takes the place of `old`, belong to whom it belonged, work in hand, too."""
    if known := OPERATORS.get(state, old):
        OPERATORS.delete(state, old)
        OPERATORS.put(state, known, new)
    for job_id, job in list(in_phase(state, Phase.WORKER, Phase.VERDICT)):
        for index in range(job.hard, job.assigned):
            segment = SEGMENTS.get(state, job_id, index)
            if segment is not None and segment.operator == old:
                SEGMENTS.put(state, replace(segment, operator=new), job_id, index)


def _can_spare(validators: ValidatorSet, key: bytes) -> bool:
    return key in validators and validators.total - validators.weight(key) >= validators.quorum
