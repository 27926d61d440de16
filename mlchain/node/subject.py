"""What an auditor examines, and what it can find."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from mlchain.consensus.work.commitment import SegmentCommit
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.errors import MlchainError
from mlchain.ml_runtime import Plan
from mlchain.node.compute import Handle
from mlchain.vm.families.jobs import Job, Segment


class Stale(MlchainError):
    """The segment under examination fell; what was found about it no longer matters."""


class Finding(NamedTuple):
    """A chunk that could not be confirmed."""

    kind: ClaimKind
    chunk: int
    reason: str


class Target(NamedTuple):
    """A segment at work that its worker has committed to, the `number`-th of its job."""

    job_id: bytes
    job: Job
    number: int
    segment: Segment
    commit: SegmentCommit


@dataclass(frozen=True, slots=True)
class Subject:
    """A target with all that is needed to examine it."""

    job_id: bytes
    job: Job
    index: int
    segment: Segment
    commit: SegmentCommit
    handle: Handle
    plan: Plan
    leaves: tuple[bytes, ...]
    key: bytes = b""
    """What keys the custody digests of the chunks that are re-run; empty for none."""
    digests: dict[int, bytes] = field(default_factory=dict)
    """Those digests, by offset."""

    @property
    def first(self) -> int:
        """Number of the segment's first chunk, counted from the start of the job."""
        return self.job.segment_range(self.index)[0]

    def digest_before(self, offset: int) -> bytes:
        """Return the digest of the state before the chunk at `offset`."""
        return self.leaves[offset - 1] if offset else self.commit.start
