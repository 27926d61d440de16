"""Verified work, by epoch and member: from it follow the weights of proposers, and nothing else.

Units are gas of HARD segments: of all chunks for the worker, of its slice for each verifier. Those
of a worker that belongs to a validator are that validator's; those of any other lead nowhere. The
same training earns once. Work that could have been done before it was asked for, because the job
fixed its own seed, earns nothing (attack 19).
"""

from __future__ import annotations

from collections.abc import Iterable

from mlchain import codec, crypto
from mlchain.codec import Record, Uint
from mlchain.consensus.work.assurance import parse_tier, slice_size
from mlchain.ledger.state import State, Table
from mlchain.vm.context import BlockContext
from mlchain.vm.families.jobs import Job, Segment
from mlchain.vm.params import epoch_of

KEPT_EPOCHS = 8
"""Epochs after which nobody asks for them any more, and they are forgotten."""


class Work(Record, frozen=True):
    """What a member did in an epoch, in gas."""

    units: Uint


class Credited(Record, frozen=True):
    """How many steps of one training have earned credit, whoever posted it and however often."""

    steps: Uint


WORK = Table(b"work/", Work, int, bytes)
"""By epoch and member's key."""
CREDITED = Table(b"credited/", Credited, bytes)
"""By the digest of what is trained."""


def get_work(state: State, epoch: int) -> dict[bytes, int]:
    """Return the units of every member that earned some in an epoch, in key order."""
    return {key: record.units for (_, key), record in WORK.items(state, epoch)}


def credit_segment(
    block: BlockContext, job: Job, index: int, segment: Segment, verifiers: Iterable[bytes]
) -> int:
    """Credit a segment that becomes HARD to its worker's operator and those who attested it.

    Returns the worker's units.
    """
    commit = segment.commit
    assert commit is not None, "HARD segments are committed"
    if job.seed or not commit.count:
        return 0
    first, _ = job.segment_range(index)
    start, end = first * job.chunk, min((first + commit.count) * job.chunk, job.steps)
    training = training_id(job)
    known = CREDITED.get(block.state, training)
    fresh = end - max(start, known.steps if known else 0)
    if fresh <= 0:
        return 0
    CREDITED.put(block.state, Credited(end), training)
    units = job.gas * fresh // job.steps
    epoch, share = epoch_of(block.params, block.height), _share(job, segment, units)
    _add(block, epoch, segment.operator or segment.worker, units)
    for key in verifiers:
        _add(block, epoch, key, share)
    return units


def take_back(block: BlockContext, job: Job, index: int, segment: Segment) -> None:
    """Take back what a HARD segment was credited with: a chunk of it is forged.

    Whoever trains the same again can earn it.
    """
    if not segment.credited:
        return
    epoch = epoch_of(block.params, segment.hard_height)
    share = _share(job, segment, segment.credited)
    _add(block, epoch, segment.operator or segment.worker, -segment.credited)
    for attested in segment.attestations:
        _add(block, epoch, attested.validator, -share)
    start, training = job.segment_range(index)[0] * job.chunk, training_id(job)
    known = CREDITED.get(block.state, training)
    if known is not None and known.steps > start:
        CREDITED.put(block.state, Credited(start), training)


def training_id(job: Job) -> bytes:
    """Return what two jobs have in common if the second is the first again.

    Not the order of data, which the chain draws; not the length: a longer training earns what it
    adds; and nothing of how it is cut, checked or paid.
    """
    what = codec.encode((job.plan, job.dataset, job.train_rows))
    return crypto.digest("mlchain/training", what)


def forget_old_work(block: BlockContext) -> None:
    """At the end of a block: drop the epochs that are long over."""
    epoch = epoch_of(block.params, block.height)
    if block.height % block.params.epoch_blocks or epoch < KEPT_EPOCHS:
        return
    for key in list(get_work(block.state, epoch - KEPT_EPOCHS)):
        WORK.delete(block.state, epoch - KEPT_EPOCHS, key)


def _share(job: Job, segment: Segment, units: int) -> int:
    """Return a verifier's part of the worker's units: that of its slice."""
    assert segment.commit is not None, "HARD segments are committed"
    count = segment.commit.count
    return units * slice_size(parse_tier(job.tier), job.chunks, count, segment.voters) // count


def _add(block: BlockContext, epoch: int, key: bytes, units: int) -> None:
    known = WORK.get(block.state, epoch, key)
    after = (known.units if known else 0) + units
    if after > 0:
        WORK.put(block.state, Work(after), epoch, key)
    elif known is not None:
        WORK.delete(block.state, epoch, key)
