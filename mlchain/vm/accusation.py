"""A dispute as a file: what a worker committed to on this chain, and what shows it to be wrong.

    genesis (the reader's own copy)
      └─ header + certificate, as in a receipt: signed by a quorum
          └─ state proofs: job, program, the segment under dispute with its commit
              └─ openings: the digests of the states before and after the chunk
                  └─ ground: what is wrong there

There are six grounds. The weakest needs whoever reads it to re-run one chunk, the strongest one
operation; none needs to trust who made the file. `client.accusation` checks it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain import codec, crypto
from mlchain.codec import Hash, Record, Signature, Uint
from mlchain.consensus.work.commitment import chunk_leaf
from mlchain.errors import NotFound
from mlchain.ledger.block import Header
from mlchain.ledger.commit import Commit
from mlchain.ledger.merkle import list_proof
from mlchain.ledger.store import Store
from mlchain.ml_runtime.proof import ChunkClaim, FraudProof, claim_id
from mlchain.ml_runtime.proof.record import MAX_PROOF_BYTES
from mlchain.vm.families.jobs import JOBS, PLANS, SEGMENTS, Segment
from mlchain.vm.families.submit import MAX_STATE_BYTES
from mlchain.vm.receipt import MAX_CHANGES, Proven, SetChange, prove_record, read_head, set_changes

KIND = "mlchain/accusation/1"
MAX_ACCUSATION_BYTES = MAX_PROOF_BYTES + (64 << 20)

StateBytes = Annotated[bytes, Meta(max_length=MAX_STATE_BYTES + (1 << 20))]


class WrongStart(Record, frozen=True, tag="start"):
    """The commit of segment 0 does not begin with the state that the job's seed gives."""


class WrongEnd(Record, frozen=True, tag="end"):
    """The commit does not end with the state after its own last chunk."""


class OtherAnswer(Record, frozen=True, tag="answer"):
    """Asked for its trace, the worker signed another start, end or trap than it committed to."""

    claim: ChunkClaim
    signature: Signature


class WrongOperation(Record, frozen=True, tag="operation"):
    """One operation of the trace the worker signed is wrong. The proof's own signature is empty."""

    proof: FraudProof
    signature: Signature


class WrongChunk(Record, frozen=True, tag="chunk"):
    """The worker gave no usable answer: `state` is the one before the chunk, to be re-run from."""

    state: StateBytes


class WrongScore(Record, frozen=True, tag="score"):
    """`state` is the committed end of the job, whose evaluation gives other metrics."""

    state: StateBytes


Ground = WrongStart | WrongEnd | OtherAnswer | WrongOperation | WrongChunk | WrongScore


class Opening(Record, frozen=True):
    """The digest of the state after a chunk, and what leads from its leaf to the leaf root."""

    state: Hash
    siblings: Annotated[tuple[Hash, ...], Meta(max_length=64)]


class Accusation(Record, frozen=True):
    """Anybody can check it offline. `chunk` counts from the start of the job.

    `before` opens the chunk before it in the segment, None at the first; `after` the chunk itself,
    None if the commit says that it traps.
    """

    kind: Annotated[str, Meta(pattern="^mlchain/accusation/1$")]
    genesis: Hash
    header: Header
    commit: Commit
    changes: Annotated[tuple[SetChange, ...], Meta(max_length=MAX_CHANGES)]
    job_id: Hash
    job: Proven
    plan: Proven
    segment: Proven
    chunk: Uint
    before: Opening | None
    after: Opening | None
    ground: Ground


def answer_message(chain_id: str, segment: Segment, chunk: int, claim: ChunkClaim) -> bytes:
    """Return what a worker signs when it answers with a claim: it names the place on this chain."""
    commit = segment.commit
    assert commit is not None, "who is asked has committed"
    place = chain_id, commit.job, commit.segment, segment.attempt, segment.worker, chunk
    return crypto.digest("mlchain/trace-answer", codec.encode(place), claim_id(claim))


def make_accusation(
    store: Store, job_id: bytes, index: int, chunk: int, leaves: tuple[bytes, ...]
) -> Accusation:
    """Return an accusation of a segment at work, against the last block, whose ground is open yet.

    `leaves` are the digests after the segment's chunks. The ground is `WrongChunk` of no state.

    Raises:
        NotFound: the segment is no longer at work.
    """
    header, state = read_head(store)
    job, segment = JOBS.get(state, job_id), SEGMENTS.get(state, job_id, index)
    if job is None or segment is None or segment.commit is None:
        raise NotFound(f"segment {index} of {job_id.hex()[:8]} is no longer at work")
    first, _ = job.segment_range(index)
    items = [
        chunk_leaf(
            store.genesis.chain_id, job_id, index, segment.attempt, segment.worker, first + i, leaf
        )
        for i, leaf in enumerate(leaves)
    ]

    def open_leaf(offset: int) -> Opening | None:
        if not 0 <= offset < len(leaves):
            return None
        return Opening(leaves[offset], list_proof(items, offset))

    return Accusation(
        KIND, store.genesis.hash, header, store.commit(header.height),
        set_changes(store, header.height), job_id,
        prove_record(state, JOBS.key(job_id)), prove_record(state, PLANS.key(job.plan)),
        prove_record(state, SEGMENTS.key(job_id, index)), chunk,
        open_leaf(chunk - first - 1), open_leaf(chunk - first), WrongChunk(b""),
    )  # fmt: skip
