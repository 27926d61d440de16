"""The reviewer: re-runs work that is HARD already, while this validator has nothing else to do.

It takes a stretch of chunks at a time, of the segment that the least was reviewed of, and there the
stretch that the fewest have reviewed; among equals the one that our own ticket puts first. So
validators spread out without speaking, and what they have seen adds up (docs/adr/0029). When a
duty comes it stops at once. What it has seen rides in votes that are cast anyway; only a forgery
is news that asks for a block.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio
from msgspec.structs import replace

from mlchain.consensus.work.attestation import STRETCHES, Reviewed, count_stretches, stretch_range
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.crypto import digest
from mlchain.errors import MlchainError
from mlchain.ledger.block import SegmentRef
from mlchain.ledger.state import State
from mlchain.node.artifacts import Artifacts
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute, Handle, Trapped
from mlchain.node.duties import Duties
from mlchain.node.outbox import Outbox
from mlchain.node.subject import Target
from mlchain.vm.families.jobs import (
    JOBS,
    LATE,
    SEGMENTS,
    JobState,
    Phase,
    SegmentState,
    get_review,
    in_phase,
)
from mlchain.vm.families.segments import NO_TICKET, MakeClaim

log = structlog.get_logger("reviewer")

IDLE_S = 10.0
"""How long nothing must have been due before old work is looked at."""
MAX_TRACKED = 256
"""HARD segments we come back to, the newest ones."""
RETRY_S = 1.0


@dataclass
class Reviewer:
    """One validator's idle time."""

    key: bytes
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    duties: Duties
    outbox: Outbox
    is_busy: Callable[[], bool]
    """Whether an audit or a ruling is under way."""
    rerun: int = 0
    """Chunks re-run since start, for people."""
    _hard: deque[SegmentRef] = field(default_factory=lambda: deque(maxlen=MAX_TRACKED))
    _claims: dict[bytes, MakeClaim] = field(default_factory=dict)
    """Forgeries we found, by commit."""
    _seen: dict[bytes, int] = field(default_factory=dict)
    """Stretches we are done with, for better or worse, by commit."""
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _quiet_since: float = 0.0

    def on_block(self) -> None:
        """Stop at once if there is something due now."""
        if not self._is_idle():
            self._scope.cancel()

    async def run(self) -> None:
        """Review while nothing is due; for ever."""
        self._recall()
        self._quiet_since = trio.current_time()
        while True:
            await trio.sleep(min(RETRY_S, IDLE_S))
            if not self._is_idle():
                self._quiet_since = trio.current_time()
                continue
            self._press_claims()
            plan = self._plan(self.chain.state())
            if plan is None or trio.current_time() < self._quiet_since + IDLE_S:
                continue
            with trio.CancelScope() as self._scope:
                try:
                    await self._review(*plan)
                except MlchainError as error:  # not to be had now; others may have more luck
                    log.info("review-interrupted", reason=error.message)
                    self._note(plan[0], 1 << plan[1])

    def _recall(self) -> None:
        """Find what became HARD before our start and can still be claimed wrong, newest last."""
        oldest = self.chain.height - self.chain.params.unbonding_blocks
        known = [
            (segment.hard_height, job, index)
            for (job, index), segment in SEGMENTS.items(self.chain.state())
            if segment.state == SegmentState.HARD and segment.hard_height > oldest
        ]
        newest = heapq.nlargest(MAX_TRACKED, known)
        self._hard.extend(SegmentRef(job, index) for _, job, index in reversed(newest))

    def note_hard(self, refs: tuple[SegmentRef, ...]) -> None:
        """Segments became HARD in the last block."""
        self._hard.extend(refs)

    # ---- what to do -----------------------------------------------------------------------------

    def _is_idle(self) -> bool:
        state = self.chain.state()
        if self.is_busy() or self.key not in self.chain.validators:
            return False
        is_waited_for = any(True for _ in in_phase(state, Phase.VERDICT))
        return not is_waited_for and not any(True for _ in LATE.items(state))

    def _plan(self, state: State) -> tuple[Target, int] | None:
        """Return the stretch to review next, None if all is seen."""
        open_ = [found for ref in self._hard if (found := self._open(state, ref)) is not None]
        if not open_:
            return None
        target = min(open_, key=self._rank)
        parts = count_stretches(target.commit.count)
        left = [i for i in range(parts) if not self._done(target) >> i & 1]
        masks = [review.stretches for review in target.segment.reviews]
        secret = self.duties.ticket(target.segment.commit_height) or b""

        def rank(stretch: int) -> tuple[int, bytes]:
            order = digest("mlchain/review", secret, target.commit.leaf_root, bytes([stretch]))
            return sum(mask >> stretch & 1 for mask in masks), order

        return target, min(left, key=rank)

    def _open(self, state: State, ref: SegmentRef) -> Target | None:
        """Return a HARD segment that has something left for us, and can still be claimed wrong."""
        job, segment = JOBS.get(state, ref.job), SEGMENTS.get(state, ref.job, ref.index)
        if job is None or segment is None or segment.commit is None or not segment.commit.count:
            return None
        last = segment.hard_height + self.chain.params.unbonding_blocks
        if job.state == JobState.REVOKED or segment.is_own(self.key) or self.chain.height >= last:
            return None
        target = Target(ref.job, job, ref.index, segment, segment.commit)
        everything = (1 << count_stretches(segment.commit.count)) - 1
        is_open = segment.claim is None and commit_id(segment.commit) not in self._claims
        return target if is_open and self._done(target) & everything != everything else None

    def _rank(self, target: Target) -> tuple[int, bytes]:
        """Order segments by how much of them was reviewed by all together, in thousandths."""
        bits = sum(review.stretches.bit_count() for review in target.segment.reviews)
        bits += self._done(target).bit_count()
        parts = count_stretches(target.commit.count)
        secret = self.duties.ticket(target.segment.commit_height) or b""
        return bits * 1000 // parts, digest("mlchain/review", secret, target.commit.leaf_root)

    def _done(self, target: Target) -> int:
        known = get_review(target.segment, self.key)
        return known | self._seen.get(commit_id(target.commit), 0)

    def _note(self, target: Target, stretches: int) -> None:
        identity = commit_id(target.commit)
        self._seen[identity] = self._seen.get(identity, 0) | stretches

    # ---- doing it -------------------------------------------------------------------------------

    async def _review(self, target: Target, stretch: int) -> None:
        """Re-run one stretch; if its first state is not to be had, all up to its end."""
        job_id, job, _, segment, commit = target
        wanted = stretch_range(commit.count, stretch)
        handle, _ = await self.artifacts.load(self.chain.state(), job, self.compute)
        leaves = await self.artifacts.fetch_leaves(job_id, job, segment)
        begin, data = await self._state_before(target, leaves, wanted.start, handle)
        first = job.segment_range(target.number)[0]
        offset = begin
        async with self.compute.run_chunks(
            handle, first + begin, wanted.stop - begin, data
        ) as results:
            async for result in results:
                self.rerun += 1
                if isinstance(result, Trapped) or result.digest != leaves[offset]:
                    break
                data, offset = result.state, offset + 1
        if offset < wanted.stop:
            await self._found(target, leaves, offset, data, handle)
            return
        ranges = [stretch_range(commit.count, i) for i in range(count_stretches(commit.count))]
        bits = sum(
            1 << i for i, r in enumerate(ranges) if begin <= r.start and r.stop <= wanted.stop
        )
        self._note(target, bits)
        self.duties.add_review(Reviewed(job_id, target.number, commit_id(commit), bits))
        log.info("reviewed", job=job_id.hex()[:8], segment=target.number, chunks=offset - begin)

    async def _state_before(
        self, target: Target, leaves: tuple[bytes, ...], offset: int, handle: Handle
    ) -> tuple[int, bytes]:
        """Return the state before a chunk, or else the one before the segment, and its offset."""
        job_id, job, index, segment, _ = target
        state = self.chain.state()
        if offset:
            _, plan = await self.artifacts.load(state, job, self.compute)
            try:
                return offset, await self.artifacts.fetch_state(
                    segment, offset, leaves[offset - 1], plan
                )
            except MlchainError:
                pass
        return 0, await self.artifacts.start_state(state, job_id, index, self.compute, handle)

    async def _found(
        self, target: Target, leaves: tuple[bytes, ...], offset: int, data: bytes, handle: Handle
    ) -> None:
        """A chunk differs: run it once more, and then say so."""
        chunk = target.job.segment_range(target.number)[0] + offset
        again = await self.compute.replay(handle, chunk, data)
        if not isinstance(again, Trapped) and again.digest == leaves[offset]:
            log.error("unsteady", hint="this machine computed one chunk in two ways")
            return
        if chunk in target.segment.cleared:
            log.error("overruled", hint="this machine computes otherwise than a quorum")
            self._note(target, (1 << count_stretches(target.commit.count)) - 1)
            return
        self.artifacts.exhibit(target.segment, offset, data)
        identity = commit_id(target.commit)
        claim = MakeClaim(
            target.job_id, target.number, identity, chunk, int(ClaimKind.FRAUD), NO_TICKET
        )
        self._claims[identity] = replace(claim, ticket=self.outbox.salt(claim))
        log.warning("late-claim", job=target.job_id.hex()[:8], chunk=chunk)
        self._press_claims()

    def _press_claims(self) -> None:
        """Send what we found, until the chain has ruled on it."""
        state = self.chain.state()
        for identity, claim in list(self._claims.items()):
            job, segment = JOBS.get(state, claim.job), SEGMENTS.get(state, claim.job, claim.segment)
            if job is None or segment is None or job.state == JobState.REVOKED:
                del self._claims[identity]
            elif claim.chunk in segment.cleared:
                log.error("overruled", hint="this machine computes otherwise than a quorum")
                self._seen[identity] = (1 << STRETCHES) - 1
                del self._claims[identity]
            elif self.key in segment.lapsed:  # nobody could follow us; others may find it, too
                self._seen[identity] = (1 << STRETCHES) - 1
                del self._claims[identity]
            elif segment.claim is None:
                self.outbox.send_announced(claim)
