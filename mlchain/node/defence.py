"""A worker under accusation: it looks again, admits what is wrong, and shows its trace.

What was accused on chain is kept a while, for the segment may fall before everybody has asked. The
worker signs what it computes *now*: if its memory failed when it trained, that convicts it as
surely as a lie would, and so it admits the fault first, while that is cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio

from mlchain import codec
from mlchain.consensus.work.commitment import SegmentCommit, commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.crypto import SecretKey
from mlchain.errors import MlchainError, NotFound, Rejected
from mlchain.node.artifacts import Artifacts
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute, Handle, Trapped
from mlchain.node.outbox import Outbox
from mlchain.node.spool import Place, Spool
from mlchain.node.trace_wire import MAX_QUESTION_BYTES, TraceAnswer, TraceQuestion
from mlchain.vm.accusation import answer_message
from mlchain.vm.families.jobs import (
    SEGMENTS,
    Job,
    Phase,
    Segment,
    SegmentState,
    in_phase,
)
from mlchain.vm.families.segments import AdmitFault

log = structlog.get_logger("defence")

RETRY_S = 0.5
MAX_CASES = 8
"""Accused chunks that are kept to be shown."""

Pick = Callable[[int], int]
"""Draws one of so many chunks of our own, to be looked at again; it must be chance."""


@dataclass(slots=True)
class _Case:
    """A chunk of ours, at `offset` of its segment, and the state before it."""

    job: Job
    segment: Segment
    offset: int
    state: bytes
    handle: Handle | None = None
    """The job, once it is loaded."""

    @property
    def commit(self) -> SegmentCommit:
        assert self.segment.commit is not None, "only what is committed is looked at"
        return self.segment.commit

    @property
    def chunk(self) -> int:
        return self.job.segment_range(self.commit.segment)[0] + self.offset


@dataclass
class Defence:
    """One worker identity's part in disputes about its own chunks. `key` signs its answers."""

    key: SecretKey
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    spool: Spool
    outbox: Outbox
    admits: bool = True
    """Whether it admits what it finds wrong; a cheat does not."""
    pick: Pick | None = None
    """If given, one chunk of each own commit is run again, unasked."""
    _cases: dict[tuple[Place, int], _Case] = field(default_factory=dict)
    _looked: dict[tuple[Place, int], None] = field(default_factory=dict)
    _admissions: dict[bytes, AdmitFault] = field(default_factory=dict)
    _busy: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    _asking: dict[bytes, None] = field(default_factory=dict)
    _wake: trio.Event = field(default_factory=trio.Event)

    def on_block(self) -> None:
        """A block is final: somebody may have accused us."""
        self._wake.set()

    async def run(self) -> None:
        """Look again at what is accused, and at a chunk of each own commit; for ever."""
        while True:
            self._wake = trio.Event()
            state = self.chain.state()
            for job_id, job in in_phase(state, Phase.VERDICT):
                for index in range(job.hard, job.assigned):
                    segment = SEGMENTS.get(state, job_id, index)
                    if segment and segment.worker == self.key.public and segment.commit:
                        await self._try(job, segment, segment.commit)
            with trio.move_on_after(RETRY_S):
                await self._wake.wait()

    async def serve(self, peer: bytes, payload: bytes) -> bytes:
        """Answer a `TraceQuestion` about a chunk that was accused on chain.

        One question of each peer waits for its turn: nobody can keep the others from theirs.

        Raises:
            NotFound: it was not, or is long past.
            Rejected: this peer has not waited for its last answer.
        """
        asked = codec.decode(TraceQuestion, payload, MAX_QUESTION_BYTES)
        case = self._cases.get(((asked.job, asked.segment, asked.attempt), asked.offset))
        if case is None:
            raise NotFound("nobody accuses that chunk")
        if peer in self._asking:
            raise Rejected("busy: one question at a time")
        self._asking[peer] = None
        try:
            async with self._busy:
                found = await self.compute.answer_claim(
                    await self._load(case), case.chunk, case.state, asked.mine, asked.moves
                )
        finally:
            del self._asking[peer]
        message = answer_message(self.chain.genesis.chain_id, case.segment, case.chunk, found.claim)
        return codec.encode(TraceAnswer(found.claim, self.key.sign(message), found.move))

    async def _try(self, job: Job, segment: Segment, commit: SegmentCommit) -> None:
        claim, identity = segment.claim, commit_id(commit)
        try:
            if claim is not None and claim.kind == ClaimKind.FRAUD:
                await self._look(job, segment, claim.chunk, is_accused=True)
            elif self.pick and segment.state == SegmentState.COMMITTED and commit.count:
                first, _ = job.segment_range(commit.segment)
                place = commit.job, commit.segment, segment.attempt
                if not any(seen == place for seen, _ in self._looked):
                    chunk = first + self.pick(commit.count)
                    await self._look(job, segment, chunk, is_accused=False)
        except MlchainError as error:
            log.warning("not-looked-at", segment=commit.segment, reason=error.message)
        if identity in self._admissions and segment.state != SegmentState.ADMITTED:
            self.outbox.send(self._admissions[identity])

    async def _look(self, job: Job, segment: Segment, chunk: int, is_accused: bool) -> None:
        """Keep an accused chunk to be shown; run it again, and admit what is wrong."""
        commit = segment.commit
        assert commit is not None
        place = commit.job, commit.segment, segment.attempt
        offset = chunk - job.segment_range(commit.segment)[0]
        if (place, offset) in self._looked:
            return
        case = _Case(job, segment, offset, self.spool.read(place, offset))
        if is_accused:  # at once: the segment may fall before we have loaded anything
            self._cases[place, offset] = case
            while len(self._cases) > MAX_CASES:
                del self._cases[next(iter(self._cases))]
        self._looked[place, offset] = None
        while len(self._looked) > 64 * MAX_CASES:
            del self._looked[next(iter(self._looked))]
        is_wrong = self.admits and not await self._is_right(case)
        if is_wrong and (is_accused or not await self._is_right(case)):  # two say so
            log.warning("admitted", job=commit.job.hex()[:8], segment=commit.segment, chunk=chunk)
            fault = AdmitFault(commit.job, commit.segment, commit_id(commit), chunk)
            self._admissions = {commit_id(commit): fault}

    async def _load(self, case: _Case) -> Handle:
        if case.handle is None:
            state = self.chain.state()
            case.handle, _ = await self.artifacts.load(state, case.job, self.compute)
        return case.handle

    async def _is_right(self, case: _Case) -> bool:
        commit, offset = case.commit, case.offset
        leaves = self.artifacts.content.get(commit.leaves_content)
        found = await self.compute.replay(await self._load(case), case.chunk, case.state)
        if isinstance(found, Trapped) or offset == commit.count:
            is_trap = isinstance(found, Trapped) and found.step + 1 == commit.trap
            return is_trap and offset == commit.count
        return found.digest == leaves[32 * offset : 32 * offset + 32]
