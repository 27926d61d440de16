"""A job as people see it: segments, who re-ran how much, faults, and what could have slipped by.

Slices are not stored: they follow from the tickets in the attestations, and are drawn again here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from mlchain import crypto
from mlchain.ledger.block import SegmentRef
from mlchain.ledger.content import cid_text
from mlchain.ledger.state import State
from mlchain.ledger.transaction import Transaction
from mlchain.ledger.validators import ValidatorSet
from mlchain.ml_runtime import Metrics
from mlchain.node.plain import Json, to_json
from mlchain.vm.families import decode_payload
from mlchain.vm.families.jobs import (
    JOBS,
    SEGMENTS,
    Attested,
    Job,
    JobState,
    Segment,
    SegmentState,
    reviewed_offsets,
    segment_slice,
)
from mlchain.vm.families.members import FAULTS, Fault, get_validator_set
from mlchain.vm.families.models import MODELS
from mlchain.vm.families.segments import AdmitFault, CommitSegment, MakeClaim
from mlchain.vm.families.submit import SubmitJob
from mlchain.vm.receipt import decimal_text, get_validators_after, miss_text

MAX_CACHED_SLICES = 65_536


class ProgressSource(Protocol):
    """A worker that counts the chunks it has done of (job, segment, attempt)."""

    progress: dict[tuple[bytes, int, int], int]


class JobViews:
    """Turns jobs of one chain into JSON values (bytes are still bytes)."""

    def __init__(self, names: Mapping[bytes, str], role_of: Callable[[bytes], str]) -> None:
        self._names = names
        self._role_of = role_of
        self._slices: dict[tuple[bytes, bytes, int], tuple[int, ...]] = {}

    def row(self, state: State, job_id: bytes, job: Job, worker: ProgressSource | None) -> Json:
        """Return a job as one row of a list."""
        last_hard = max(job.hard - 1, 0)  # all before it are whole
        done = last_hard * job.segment
        for index in range(last_hard, job.assigned):
            segment = SEGMENTS.get(state, job_id, index)
            if segment is not None:
                done += _done_chunks(job_id, index, segment, worker)
        model = MODELS.get(state, job_id)
        return {
            "id": job_id,
            "name": job.name,
            "state": JobState(job.state).name.lower(),
            "submitter": self._name(job.submitter),
            "submitter_key": job.submitter,
            "tier": job.tier,
            "fee": job.fee,
            "gas": job.gas,
            "steps": job.steps,
            "chunk": job.chunk,
            "chunks": job.chunks,
            "dataset": cid_text(job.dataset),
            "train_rows": job.train_rows,
            "test_rows": job.test_rows,
            "submitted_ms": job.submitted_ms,
            "height": job.height,
            "progress": {"done_chunks": done, "total_chunks": job.chunks},
            "metrics": metrics_view(model.metrics) if model and model.metrics else None,
            "model": cid_text(model.content) if model else None,
            "state_digest": model.state if model else None,
        }

    def whole(self, state: State, job_id: bytes, job: Job, worker: ProgressSource | None) -> Json:
        """Return a job with its segments, its faults, and what of it was checked by whom."""
        segments, rerun, reviewed, seen = [], 0, 0, 0
        by: dict[str, None] = {}
        for index in range(job.assigned):
            segment = SEGMENTS.get(state, job_id, index)
            if segment is not None:
                row = self._segment(state, job, index, segment)
                segments.append(row)
                rerun += row["chunks_rerun"]
                reviewed += row["chunks_reviewed"]
                seen += row["chunks_seen"]
                by |= dict.fromkeys(row["attestations"])
        faults = [self.fault(fault) for _, fault in FAULTS.items(state) if fault.job == job_id]
        return {
            **self.row(state, job_id, job, worker),
            "seed": job.seed or None,
            "order_seed": job.order_seed,
            "segments": segments,
            "total_segments": job.segments,
            "faults": faults,
            "verified": {
                "rerun": rerun,
                "reviewed": reviewed,
                "seen": seen,
                "chunks": job.chunks,
                "by": sorted(by),
                "of": len(_voters(state, segments)),
                "miss_1_in_10": miss_text(job.chunks, rerun, 10),
                "miss_1_in_100": miss_text(job.chunks, rerun, 100),
            },
        }

    def model(self, state: State, job_id: bytes) -> Json:
        """Return the model that a job left behind; `job_id` must have one."""
        model = MODELS.get(state, job_id)
        assert model is not None, "the caller looked"
        return {
            "job": job_id,
            "name": model.name,
            "owner": self._name(model.owner),
            "owner_key": model.owner,
            "plan": model.plan,
            "dataset": cid_text(model.dataset),
            "model": cid_text(model.content),
            "state_digest": model.state,
            "metrics": metrics_view(model.metrics) if model.metrics else None,
            "height": model.height,
            "revoked_height": model.revoked_height or None,
        }

    def seen(self, state: State, ref: SegmentRef) -> tuple[tuple[int, ...], int]:
        """Return which chunks of a segment somebody re-ran, and how many it has."""
        job, segment = JOBS.get(state, ref.job), SEGMENTS.get(state, ref.job, ref.index)
        if job is None or segment is None or segment.commit is None:
            return (), 0  # fallen since
        drawn = [self._slice(job, segment, attested) for attested in segment.attestations]
        seen = sorted({offset for part in [*drawn, reviewed_offsets(segment)] for offset in part})
        return tuple(seen), segment.commit.count

    def fault(self, fault: Fault) -> Json:
        """Return a punished misdeed."""
        has_job = fault.job != bytes(32)
        return {
            "offender": self._name(fault.offender),
            "offender_key": fault.offender,
            "role": self._role_of(fault.offender),
            "kind": fault.kind,
            "job": fault.job if has_job else None,
            "segment": fault.segment if has_job else None,
            "chunk": fault.chunk if has_job else None,
            "slashed": fault.slashed,
            "finders": [self._name(key) for key in fault.finders],
            "height": fault.height,
        }

    def _segment(self, state: State, job: Job, index: int, segment: Segment) -> Json:
        first, count = job.segment_range(index)
        commit = segment.commit
        slices: dict[str, int] = {}
        rerun: dict[int, None] = {}
        if commit is not None:
            for attested in segment.attestations:
                drawn = self._slice(job, segment, attested)
                slices[self._name(attested.validator)] = len(drawn)
                rerun |= dict.fromkeys(drawn)
        claim, reviewed = segment.claim, reviewed_offsets(segment)
        return {
            "index": index,
            "state": SegmentState(segment.state).name.lower(),
            "worker": self._name(segment.worker),
            "worker_key": segment.worker,
            "attempt": segment.attempt,
            "first": first,
            "chunks": commit.count if commit and commit.trap else count,
            "deadline_ms": segment.deadline_ms,
            "commit_height": segment.commit_height or None,
            "end_digest": commit.end if commit else None,
            "end": cid_text(commit.end_content) if commit else None,
            "trap_step": commit.trap - 1 if commit and commit.trap else None,
            "slices": slices,
            "chunks_rerun": len(rerun),
            "chunks_reviewed": len(reviewed),
            "chunks_seen": len(rerun | dict.fromkeys(reviewed)),
            "attestations": list(slices),
            "disputed_chunk": claim.chunk if claim else None,
            "hard_height": segment.hard_height or None,
        }

    def _slice(self, job: Job, segment: Segment, by: Attested) -> tuple[int, ...]:
        commit = segment.commit
        assert commit is not None, "only committed segments are attested"
        key = commit.leaf_root, by.ticket, segment.attest_from
        if key not in self._slices:
            if len(self._slices) >= MAX_CACHED_SLICES:
                self._slices.clear()
            self._slices[key] = segment_slice(job, segment, by.validator, by.ticket)
        return self._slices[key]

    def _name(self, key: bytes) -> str:
        return self._names.get(key) or crypto.address(key)


def job_event(transaction: Transaction, identity: bytes, height: int) -> Iterator[Json]:
    """Yield what a transaction that succeeded did to a job."""
    payload = decode_payload(transaction.body.kind, transaction.body.payload)
    row: Json
    if isinstance(payload, SubmitJob):
        row = {"job": identity, "segment": None, "what": "submitted"}
    elif isinstance(payload, CommitSegment):
        row = {"job": payload.commit.job, "segment": payload.commit.segment, "what": "committed"}
    elif isinstance(payload, MakeClaim):
        row = {"job": payload.job, "segment": payload.segment, "what": "disputed"}
    elif isinstance(payload, AdmitFault):
        row = {"job": payload.job, "segment": payload.segment, "what": "admitted"}
    else:
        return
    yield to_json({**row, "height": height})


def metrics_view(metrics: Metrics) -> Json:
    """Return a score: `value` is exact up to rounding it for print, "nan" where it is none."""
    try:
        text = decimal_text(metrics.value, 6) if metrics.value >= 0 else "nan"
    except (ZeroDivisionError, ValueError, OverflowError):
        text = "nan"
    return {
        "name": metrics.name,
        "correct": metrics.correct,
        "total": metrics.total,
        "value": text,
    }


def _voters(state: State, segments: list[Json]) -> ValidatorSet:
    """Return all who could attest these segments: validators leave, and none come back.

    Those of today would leave out one that checked and was removed since.
    """
    heights = [row["commit_height"] for row in segments if row["commit_height"]]
    return get_validators_after(state, min(heights)) if heights else get_validator_set(state)


def _done_chunks(job_id: bytes, index: int, segment: Segment, worker: ProgressSource | None) -> int:
    """Chunks done: committed ones, and those our own worker has behind it."""
    if segment.commit is not None:
        return segment.commit.count
    return worker.progress.get((job_id, index, segment.attempt), 0) if worker else 0
