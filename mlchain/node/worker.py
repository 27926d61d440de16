"""The worker: trains the segments that are assigned to its identity, and commits to the results.

It follows the chain block by block. Whatever it was doing is dropped when the chain takes the
segment away; a commit that got lost is sent again until the chain has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

import structlog
import trio

from mlchain.consensus.work.commitment import SegmentCommit, segment_root
from mlchain.errors import MlchainError, VerificationFailed
from mlchain.ledger.state import State
from mlchain.node.artifacts import Artifacts, evaluate, state_digest
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute, Handle, Trapped
from mlchain.node.outbox import Outbox
from mlchain.node.spool import Place, Spool
from mlchain.vm.families.custody import is_under_audit
from mlchain.vm.families.jobs import (
    JOBS,
    SEGMENTS,
    Job,
    Phase,
    Segment,
    SegmentState,
    in_phase,
)
from mlchain.vm.families.segments import CommitSegment

log = structlog.get_logger("worker")

RETRY_S = 1.0
LONGEST_REST_S = 15.0
"""What fails rests for `RETRY_S`, then twice as long each time, at most so long."""
KEPT_HARD = 8
"""HARD segments whose states are kept for those who review them, the last ones."""

Skips = Callable[[int], bool]
"""Tells which chunks a cheating worker does not compute; an honest one skips none."""


def skips_nothing(chunk: int) -> bool:
    """Be honest."""
    return False


class _Failed(NamedTuple):
    """How often a segment failed, and when it may be tried again."""

    times: int
    until: float


@dataclass
class Worker:
    """One worker identity of a node."""

    key: bytes
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    spool: Spool
    outbox: Outbox
    skips: Skips = skips_nothing
    progress: dict[Place, int] = field(default_factory=dict)
    """Chunks done of the segments in work, for people."""
    _done: dict[Place, CommitSegment] = field(default_factory=dict)
    _failures: dict[Place, _Failed] = field(default_factory=dict)
    _wake: trio.Event = field(default_factory=trio.Event)
    _current: tuple[Place, trio.CancelScope] | None = None

    def on_block(self) -> None:
        """Look at the new state: drop what was taken away, take what was given."""
        mine = self._assigned(self.chain.state())
        if self._current and self._current[0] not in mine:
            self._current[1].cancel()
        self._forget()
        self._wake.set()

    async def run(self) -> None:
        """Train one segment after the other, for ever; one that fails delays no other."""
        while True:
            self._wake = trio.Event()
            mine = self._assigned(self.chain.state())
            for place in mine:
                if place in self._done:
                    self.outbox.send(self._done[place])
            if (place := self._choose(mine)) is not None:
                await self._attempt(place)
                continue
            with trio.move_on_after(RETRY_S):
                await self._wake.wait()

    def _choose(self, mine: list[Place]) -> Place | None:
        """Return what to train next, if anything is due: what failed makes way for the rest."""
        self._failures = {place: self._failures[place] for place in mine if place in self._failures}
        now = trio.current_time()
        due = [p for p in mine if p not in self._done and self._failed(p).until <= now]
        return min(due, key=lambda place: self._failed(place).times, default=None)

    def _failed(self, place: Place) -> _Failed:
        return self._failures.get(place, _Failed(0, 0.0))

    def _assigned(self, state: State) -> list[Place]:
        return [p for p, segment in self._mine(state) if segment.state == SegmentState.ASSIGNED]

    def _mine(self, state: State) -> Iterator[tuple[Place, Segment]]:
        """Yield our segments that are not HARD yet, jobs in key order, segments in theirs."""
        ours = in_phase(state, Phase.WORKER, Phase.VERDICT)
        for job_id, job in sorted(ours, key=itemgetter(0)):
            for index in range(job.hard, job.assigned):
                segment = SEGMENTS.get(state, job_id, index)
                if segment is not None and segment.worker == self.key:
                    yield (job_id, index, segment.attempt), segment

    async def _attempt(self, place: Place) -> None:
        with trio.CancelScope() as scope:
            self._current = place, scope
            try:
                self._done[place] = await self._train(place)
            except MlchainError as error:
                log.warning("segment-failed", segment=place[1], reason=error.message)
                times = self._failed(place).times
                rest_s = min(RETRY_S * 2 ** min(times, 32), LONGEST_REST_S)
                self._failures[place] = _Failed(times + 1, trio.current_time() + rest_s)
            finally:
                self._current = None
                self.progress.pop(place, None)

    async def _train(self, place: Place) -> CommitSegment:
        job_id, index, _ = place
        state = self.chain.state()
        job = JOBS.get(state, job_id)
        assert job is not None, "assigned jobs exist"
        handle, plan = await self.artifacts.load(state, job, self.compute)
        data = await self.artifacts.start_state(state, job_id, index, self.compute, handle)
        start = state_digest(data, plan)
        before = SEGMENTS.get(state, job_id, index - 1) if index else None
        if before is not None and before.commit is not None and before.commit.end != start:
            raise VerificationFailed("the segment before ends in another state than committed")
        first, count = job.segment_range(index)
        log.info("segment-started", job=job_id.hex()[:8], segment=index, chunks=count)
        self.spool.start(place, data)
        digests: list[bytes] = []
        trap = 0
        while len(digests) < count and not trap:
            chunk = first + len(digests)
            stretch = next((i for i in range(count - len(digests)) if self.skips(chunk + i)), None)
            if stretch == 0:  # the cheat: the state stays what it was
                self.spool.append(place, data)
                digests.append(digests[-1] if digests else start)
                continue
            length = count - len(digests) if stretch is None else stretch
            async with self.compute.run_chunks(handle, chunk, length, data) as results:
                async for result in results:
                    if isinstance(result, Trapped):
                        trap = result.step + 1
                        break
                    data = result.state
                    self.spool.append(place, data)
                    digests.append(result.digest)
                    self.progress[place] = len(digests)
        self.spool.sync(place)  # from the commit on we owe these states to whoever checks
        commit = await self._commit(job, place, start, digests, data, trap, handle)
        return CommitSegment(commit)

    async def _commit(
        self,
        job: Job,
        place: Place,
        start: bytes,
        digests: list[bytes],
        end: bytes,
        trap: int,
        handle: Handle,
    ) -> SegmentCommit:
        job_id, index, attempt = place
        metrics = None
        if index == job.segments - 1 and not trap and job.test_rows:
            metrics = await evaluate(self.compute, handle, end)
        first, _ = job.segment_range(index)
        root = segment_root(
            self.chain.genesis.chain_id, job_id, index, attempt, self.key, first, tuple(digests)
        )
        content = self.artifacts.content
        return SegmentCommit(
            job_id, index, attempt, start, digests[-1] if digests else start, content.put(end),
            root, content.put(b"".join(digests)), len(digests), trap, metrics,
        )  # fmt: skip

    def _forget(self) -> None:
        """Drop results of segments that ended, fell or became HARD, and states nobody asks for."""
        mine = [place for place, _ in self._mine(self.chain.state())]
        self._done = {place: self._done[place] for place in mine if place in self._done}
        hard = [(height, place) for place in self.spool.places if (height := self._hard_at(place))]
        asked = [place for _, place in hard if self._is_asked(place)]
        newest = [place for _, place in sorted(hard)[-KEPT_HARD:]]  # somebody may review them
        self.spool.keep([*mine, *asked, *newest])

    def _hard_at(self, place: Place) -> int:
        """Return since when a segment of ours is HARD, 0 if it is not."""
        segment = SEGMENTS.get(self.chain.state(), place[0], place[1])
        if segment is None or (segment.worker, segment.attempt) != (self.key, place[2]):
            return 0
        return segment.hard_height if segment.state == SegmentState.HARD else 0

    def _is_asked(self, place: Place) -> bool:
        """Tell whether validators may still audit each other on a HARD segment of ours."""
        state = self.chain.state()
        segment = SEGMENTS.get(state, place[0], place[1])
        assert segment is not None, "it is HARD"
        height, params = self.chain.height, self.chain.params
        return is_under_audit(state, place[0], place[1], segment, height, params)
