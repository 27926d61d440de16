"""Merges: one model of the models that jobs trained on the parts of a draw.

`MergeModels` says which model file the states of the jobs make (`ml_runtime.merging`). It holds
once a quorum of validators has merged them itself and got this file, byte for byte: what they
confirm, and how, is as with the names of parts.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.codec import ContentId, Hash, PublicKey, Record, Uint
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import Mark, State, Table
from mlchain.ml_runtime import check_plan, decode_plan
from mlchain.ml_runtime.merging import require_mergeable
from mlchain.ml_runtime.model import MAX_MODEL_BYTES
from mlchain.vm.context import BlockContext, Context, Payload
from mlchain.vm.families.data import get_held_weight, with_holder
from mlchain.vm.families.jobs import JOBS, PLANS, Job
from mlchain.vm.families.models import MODELS
from mlchain.vm.families.partitions import DRAWS, MAX_PARTS, PART_GAS, SAID, Draw, Holders
from mlchain.vm.gas import PLAN_BYTE_GAS, check_gas

MERGE_GAS = 20_000
MAX_STATES_BYTES = 1 << 30
"""Of the states of all parties together: an ML process takes them at once."""

Jobs = Annotated[tuple[Hash, ...], Meta(max_length=MAX_PARTS)]


class Merge(Record, frozen=True):
    """A model file that the jobs make, one for each part of a draw, and who found it so."""

    owner: PublicKey
    draw: Hash
    jobs: Jobs
    content: ContentId
    size: Uint
    height: Uint
    holders: Holders


MERGES = Table(b"merge/", Merge, bytes)
"""By the id of what is said."""
OPEN_MERGES = Table(b"merge-open/", Mark, bytes)
"""Those that no quorum has confirmed."""
MERGES_OF = Table(b"merge-of/", Mark, bytes, bytes)
"""By draw, and the id of what is said."""


class MergeModels(Payload, frozen=True):
    """Say which model file the models of all parts make; validators make it and compare."""

    KIND: ClassVar[int] = 32
    draw: Hash
    jobs: Jobs
    content: ContentId
    size: Annotated[int, Meta(ge=1, le=MAX_MODEL_BYTES)]

    def execute(self, ctx: Context) -> None:
        """Note what is said of settled jobs, each on its part, with one plan for all."""
        ctx.charge(MERGE_GAS + PART_GAS * len(self.jobs))
        draw = DRAWS.get(ctx.state, self.draw)
        if draw is None or not draw.named:
            raise InvalidTransaction("no draw with this id has parts")
        if len(self.jobs) != draw.parts:
            raise InvalidTransaction(f"{len(self.jobs)} jobs for {draw.parts} parts")
        jobs = [find_trained(ctx.state, identity) for identity in self.jobs]
        for number, (job, part) in enumerate(zip(jobs, draw.named, strict=True), 1):
            rows = part.rows - draw.test_rows
            if (job.dataset, job.train_rows) != (part.content, rows):
                raise InvalidTransaction(f"job {number} is not on the {rows} rows of part {number}")
            if job.plan != jobs[0].plan:
                raise InvalidTransaction(f"job {number} has another plan than job 1")
        self._charge_states(ctx, jobs[0], len(jobs))
        identity = merge_id(self.draw, self.jobs, self.content, self.size)
        if MERGES.get(ctx.state, identity) is not None:
            raise InvalidTransaction("this was said before")
        merge = Merge(
            ctx.sender, self.draw, self.jobs, self.content, self.size, ctx.block.height, ()
        )
        MERGES.put(ctx.state, merge, identity)
        OPEN_MERGES.put(ctx.state, Mark(), identity)
        MERGES_OF.put(ctx.state, Mark(), self.draw, identity)
        ctx.emit(f"merge {identity.hex()}")

    def _charge_states(self, ctx: Context, job: Job, count: int) -> None:
        record = PLANS.get(ctx.state, job.plan)
        assert record is not None, "a job's plan is stored with it"
        ctx.charge(PLAN_BYTE_GAS * len(record.plan))
        plan = decode_plan(record.plan)
        ctx.charge(check_gas(plan))
        require_mergeable(plan)
        size = count * check_plan(plan).state_bytes
        if size > MAX_STATES_BYTES:
            raise InvalidTransaction(
                f"the states have {size} bytes, at most {MAX_STATES_BYTES} allowed"
            )
        ctx.charge((size + self.size) // 64)


def find_trained(state: State, identity: bytes) -> Job:
    """Return a job whose model stands.

    Raises:
        InvalidTransaction: there is none, or it was revoked.
    """
    job, model = JOBS.get(state, identity), MODELS.get(state, identity)
    if job is None or model is None or model.revoked_height:
        raise InvalidTransaction(f"job {identity.hex()[:8]} has no model that stands")
    return job


def merge_id(draw: bytes, jobs: tuple[bytes, ...], content: bytes, size: int) -> bytes:
    """Return the id of what is said: that these jobs make this model file."""
    return SAID + crypto.digest("mlchain/merge", codec.encode((draw, jobs, content, size)))


def add_merge_holder(block: BlockContext, identity: bytes, validator: bytes) -> None:
    """Note that a validator has made the merge itself and got the same file."""
    merge = MERGES.get(block.state, identity)
    if merge is None or validator in merge.holders or validator not in block.validators:
        return
    holders = with_holder(merge.holders, validator, block.validators)
    merge = replace(merge, holders=holders)
    MERGES.put(block.state, merge, identity)
    if get_held_weight(holders, block.validators) >= block.validators.quorum:
        OPEN_MERGES.delete(block.state, identity)


def is_standing(state: State, identity: bytes, merge: Merge) -> bool:
    """Tell whether a quorum confirmed a merge, and nothing of it was found forged since."""
    models = [MODELS.get(state, job) for job in merge.jobs]
    is_open = OPEN_MERGES.get(state, identity) is not None
    return not is_open and all(m is not None and not m.revoked_height for m in models)


def get_merges(state: State, draw: bytes) -> list[tuple[bytes, Merge]]:
    """Return what is said of the models of a draw, with ids, the latest first."""
    found = []
    for (_, identity), _ in MERGES_OF.items(state, draw):
        merge = MERGES.get(state, identity)
        assert merge is not None, "merges stay"
        found.append((identity, merge))
    return sorted(found, key=lambda pair: -pair[1].height)


def get_parties(draw: Draw) -> list[int]:
    """Return the training rows of each part."""
    return [part.rows - draw.test_rows for part in draw.named]
