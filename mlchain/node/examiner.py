"""Re-execution: fetches what a committed segment rests on, replays chunks, says what is wrong.

What to examine and when, and what to say on chain, is the auditor's business (`auditor.py`). Before
it calls a chunk wrong, it computes twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.commitment import SegmentCommit
from mlchain.consensus.work.custody import NO_DIGEST
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.errors import MlchainError, VerificationFailed
from mlchain.ledger.state import State
from mlchain.node.artifacts import Artifacts, evaluate, state_digest
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute, Trapped
from mlchain.node.subject import Finding, Stale, Subject, Target
from mlchain.vm.families.jobs import SEGMENTS, Claim, SegmentState

T = TypeVar("T")

SERVE_PATIENCE_S = 12.0
"""How long a worker may fail to serve a chunk before that is said on chain."""
RETRY_S = 0.5
PREFETCH = 4
"""States fetched ahead of the one being replayed."""


@dataclass
class Examiner:
    """One validator's re-execution. `key` is its own: it asks everybody but itself."""

    key: bytes
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    complain: Callable[[Subject, Finding], None]
    """Told of a worker that trickles its chunks, while they still come."""
    convict: Callable[[Subject, int, bytes, bool], None] = lambda *chunk: None
    """Told of a disputed chunk that we judge wrong: offset, state before, whether the score is."""
    on_slice: Callable[[str, float], None] = lambda result, seconds: None
    """Told of each chunk of our slices: `equal`, `differ` or `skipped` (not served), and how long
    re-running it took."""

    async def examine(
        self, state: State, target: Target, offsets: tuple[int, ...], key: bytes
    ) -> Finding | tuple[bytes, ...]:
        """Return what is wrong with a segment as far as our slice shows.

        If nothing is: the custody digests of the slice, under `key`.
        """
        _, job, index, _, commit = target
        first, _ = job.segment_range(index)
        at = first + (offsets[0] if offsets else 0)
        subject = await self._subject(state, target, key)
        if isinstance(subject, MlchainError):
            return Finding(ClaimKind.UNSERVED, at, subject.message)
        if index == 0 and (await self.compute.initial_state(subject.handle))[1] != commit.start:
            return Finding(ClaimKind.FRAUD, first, "does not start from the initial state")
        if subject.leaves and subject.leaves[-1] != commit.end:  # whoever draws the last chunk
            last = first + commit.count - 1  # would see it; all others see it for nothing
            return Finding(ClaimKind.FRAUD, last, "does not end with its last chunk's state")
        finding = await self._replay_slice(subject, offsets)
        finding = finding or await self._check_metrics(subject)
        return finding or tuple(subject.digests.get(offset, NO_DIGEST) for offset in offsets)

    async def make_digest(self, state: State, target: Target, chunk: int, key: bytes) -> bytes:
        """Return the custody digest of a chunk under `key`, empty if the chunk does not hold.

        Raises:
            MlchainError: it could not be re-run.
        """
        subject = await self._subject(state, target, key)
        if isinstance(subject, MlchainError):
            raise subject
        offset = chunk - subject.first
        data = await self._start_of(state, subject, offset)
        if await self._replay(subject, offset, data) == Outcome.DIFFERS:
            return b""
        return subject.digests.get(offset, NO_DIGEST)

    async def _start_of(self, state: State, subject: Subject, offset: int) -> bytes:
        """Return the state before a chunk: what is served, or else computed from the boundary."""
        if offset:
            served = await self._fetch_patiently(subject, offset, self._sources(subject))
            if isinstance(served, bytes):
                return served
        return await self._compute_start(state, subject, offset)

    async def _compute_start(
        self, state: State, subject: Subject, offset: int, claim: Claim | None = None
    ) -> bytes:
        """Return the state before a chunk, computed from where its segment starts.

        Chunk by chunk, so that audits need not wait for all of them.

        Raises:
            MlchainError: it cannot be, or is not what was committed; Stale: `claim` is settled.
        """
        job_id, index, handle = subject.job_id, subject.index, subject.handle
        data = await self.artifacts.start_state(state, job_id, index, self.compute, handle)
        for chunk in range(subject.first, subject.first + offset):
            self._check_open(subject, claim)
            async with self.compute.run_chunks(handle, chunk, 1, data) as results:
                async for result in results:
                    if isinstance(result, Trapped):
                        raise VerificationFailed(f"traps at step {result.step}, before the chunk")
                    data = result.state
        if state_digest(data, subject.plan) != subject.digest_before(offset):
            raise VerificationFailed("the segment before the chunk is not what was committed")
        return data

    async def _replay_slice(self, subject: Subject, offsets: tuple[int, ...]) -> Finding | None:
        """Replay one chunk while the states of the next ones are on their way."""
        send, receive = trio.open_memory_channel[tuple[int, bytes | MlchainError]](PREFETCH)

        sources = self._sources(subject)

        async def fetch_all() -> None:
            async with send:
                for offset in offsets:
                    data: bytes | MlchainError
                    try:
                        data = await self._fetch_patiently(subject, offset, sources)
                    except Stale as stale:  # not through the nursery either
                        data = stale
                    await send.send((offset, data))

        found: Finding | MlchainError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_all)
            try:
                found = await self._replay_each(subject, receive)
            except MlchainError as error:  # not through the nursery, which would wrap it
                found = error
            nursery.cancel_scope.cancel()
        if isinstance(found, MlchainError):
            raise found
        return found

    async def _replay_each(
        self, subject: Subject, states: trio.MemoryReceiveChannel[tuple[int, bytes | MlchainError]]
    ) -> Finding | None:
        waited_s = 0.0
        while True:
            asked = trio.current_time()
            try:
                offset, data = await states.receive()
            except trio.EndOfChannel:
                return None
            self._check_current(subject.commit)
            chunk = subject.first + offset
            waited_s += trio.current_time() - asked
            if waited_s > SERVE_PATIENCE_S:  # trickled: say so, lest FINALISE come before us
                self.complain(subject, Finding(ClaimKind.UNSERVED, chunk, "served too slowly"))
                waited_s = 0.0
            if isinstance(data, Stale):
                raise data
            if isinstance(data, MlchainError) and chunk in subject.segment.cleared:
                # Not served to us, but a quorum has re-run it since, and it was right. We still
                # owe its custody digest.
                data = await self._compute_start(self.chain.state(), subject, offset)
            if isinstance(data, MlchainError):
                self.on_slice("skipped", 0.0)
                return Finding(ClaimKind.UNSERVED, chunk, data.message)
            began = trio.current_time()
            outcome = await self._replay(subject, offset, data)
            took_s = trio.current_time() - began
            self.on_slice("equal" if outcome == Outcome.EQUAL else "differ", took_s)
            if outcome == Outcome.DIFFERS:
                self.artifacts.exhibit(subject.segment, offset, data)
                return Finding(ClaimKind.FRAUD, chunk, "re-running it differs")

    async def judge(self, state: State, target: Target, claim: Claim) -> Outcome:
        """Re-run the disputed chunk, from the state the worker (or else the accuser) serves.

        Of a HARD segment nobody need have it any more: then from the segment's start.
        """
        commit = target.commit
        subject = await self._subject(state, target)
        if isinstance(subject, MlchainError):
            return Outcome.UNSERVED
        offset = claim.chunk - subject.first
        if target.number == 0 and offset == 0:
            data, digest = await self.compute.initial_state(subject.handle)
            if digest != commit.start:
                self.convict(subject, offset, data, False)
                return Outcome.DIFFERS
        else:
            sources = self._sources(subject, claim.accuser)
            served = await self._fetch_patiently(subject, offset, sources)
            if isinstance(served, MlchainError):
                if target.segment.state != SegmentState.HARD:
                    return Outcome.UNSERVED
                try:  # nobody need have it any more, and nobody gains by showing it to nobody
                    served = await self._compute_start(state, subject, offset, claim)
                except Stale:
                    raise
                except MlchainError:
                    return Outcome.UNSERVED
            data = served
        outcome = await self._replay(subject, offset, data)
        is_end = offset == commit.count - 1
        if outcome == Outcome.EQUAL and is_end and await self._check_metrics(subject):
            self.convict(subject, offset, data, True)
            return Outcome.DIFFERS
        if outcome == Outcome.DIFFERS:
            self.convict(subject, offset, data, False)
        return outcome

    async def _subject(
        self, state: State, target: Target, key: bytes = b""
    ) -> Subject | MlchainError:
        """Return a segment with all that is needed to examine it, or why that is not served.

        The end state is fetched and kept, so that the job survives its worker.
        """
        job_id, job, _, segment, commit = target
        handle, plan = await self.artifacts.load(state, job, self.compute)

        async def fetch() -> Subject:
            leaves = await self.artifacts.fetch_leaves(job_id, job, segment)
            end = await self.artifacts.fetch_end(segment)
            if state_digest(end, plan) != commit.end:
                raise VerificationFailed("the end state has another digest than committed")
            return Subject(*target, handle, plan, leaves, key)

        return await self._patiently(commit, fetch)

    async def _patiently(
        self, commit: SegmentCommit, fetch: Callable[[], Awaitable[T]]
    ) -> T | MlchainError:
        """Try for `SERVE_PATIENCE_S`; return what came, or the last reason why nothing did.

        Raises:
            Stale: the chain took the segment away meanwhile; nobody is to blame.
        """
        reason: MlchainError = VerificationFailed("not served in time")
        with trio.move_on_after(SERVE_PATIENCE_S) as scope:
            while not scope.cancel_called:
                self._check_current(commit)
                try:
                    return await fetch()
                except MlchainError as error:
                    reason = error
                    await trio.sleep(RETRY_S)
        self._check_current(commit)
        return reason

    def _check_current(self, commit: SegmentCommit) -> None:
        segment = SEGMENTS.get(self.chain.state(), commit.job, commit.segment)
        if segment is None or segment.commit != commit:
            raise Stale(f"segment {commit.segment} is no longer at work")

    def _check_open(self, subject: Subject, claim: Claim | None) -> None:
        self._check_current(subject.commit)
        segment = SEGMENTS.get(self.chain.state(), subject.job_id, subject.index)
        now = segment.claim if segment else None
        if claim and (now is None or (now.chunk, now.height) != (claim.chunk, claim.height)):
            raise Stale(f"the claim of chunk {claim.chunk} is settled")

    async def _check_metrics(self, subject: Subject) -> Finding | None:
        """Evaluate the end of a job: its metrics are re-computed by every attester."""
        commit, job = subject.commit, subject.job
        if subject.index != job.segments - 1 or commit.trap or not job.test_rows:
            return None
        end = self.artifacts.content.get(commit.end_content)
        if await evaluate(self.compute, subject.handle, end) == commit.metrics:
            return None
        return Finding(ClaimKind.FRAUD, subject.first + commit.count - 1, "metrics differ")

    def _sources(self, subject: Subject, accuser: bytes = b"") -> deque[bytes]:
        """Return whom to ask for chunk states: the worker, the accuser, then other validators.

        The accuser has what it accuses with: an accused worker that falls silent must not get away
        with the smaller penalty. The others relay: a worker that serves some and leaves one waiting
        does not know for whom they ask.
        """
        others = [key for key in self.chain.validators.keys if key not in (self.key, accuser)]
        first = [subject.segment.worker, *([accuser] if accuser else [])]
        return deque([*first, *others])

    async def _fetch_patiently(
        self, subject: Subject, offset: int, sources: deque[bytes]
    ) -> bytes | MlchainError:
        """Return the state before a chunk, or the last reason why it could not be had in time.

        `sources` begins with who is asked first; one that fails goes to the end.
        """

        async def fetch() -> bytes:
            digest = subject.digest_before(offset)
            try:
                return await self.artifacts.fetch_state(
                    subject.segment, offset, digest, subject.plan, sources[0]
                )
            except MlchainError:
                sources.rotate(-1)
                raise

        return await self._patiently(subject.commit, fetch)

    async def _replay(self, subject: Subject, offset: int, data: bytes) -> Outcome:
        """Re-run one chunk; when it differs, once more before anybody is accused."""
        for _ in range(2):
            if await self._is_equal(subject, offset, data):
                return Outcome.EQUAL
        return Outcome.DIFFERS

    async def _is_equal(self, subject: Subject, offset: int, data: bytes) -> bool:
        commit = subject.commit
        chunk = subject.first + offset
        result = await self.compute.replay(subject.handle, chunk, data, subject.key)
        if isinstance(result, Trapped):
            return offset == commit.count and commit.trap == result.step + 1
        if offset == commit.count:
            return False  # a trap was claimed and there is none
        is_last = offset == commit.count - 1
        digest, subject.digests[offset] = result.digest, result.custody
        return digest == subject.leaves[offset] and (not is_last or digest == commit.end)
