"""The auditor: re-executes this validator's secret slices and every disputed chunk.

Nothing leaves this node about a segment before the block of its commit is final: no fetch, no
ticket, no verdict (protocol.md section 7). Before accusing, it computes twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog
import trio

from mlchain.consensus.work.attestation import Attestation, Outcome, Verdict, result_root
from mlchain.consensus.work.commitment import SegmentCommit, commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.errors import MlchainError, VerificationFailed
from mlchain.ledger.block import SegmentRef
from mlchain.ledger.state import State
from mlchain.ml_runtime import Dataset
from mlchain.node.artifacts import Artifacts, evaluate, state_digest
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute, Trapped
from mlchain.node.duties import Duties
from mlchain.node.outbox import Outbox
from mlchain.node.subject import Finding, Stale, Subject, Target
from mlchain.vm.families.data import DATASETS
from mlchain.vm.families.jobs import (
    ACTIVE,
    JOBS,
    SEGMENTS,
    Claim,
    Job,
    JobState,
    MakeClaim,
    Segment,
    SegmentState,
    segment_slice,
)

log = structlog.get_logger("auditor")

T = TypeVar("T")
Targets = list[Target]
Act = Callable[[State, Target], Awaitable[None]]

SERVE_PATIENCE_S = 12.0
"""How long a worker may fail to serve a chunk before that is said on chain."""
RETRY_S = 0.5
PREFETCH = 4
"""States fetched ahead of the one being replayed."""


@dataclass
class Auditor:
    """One validator's re-execution."""

    key: bytes
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    duties: Duties
    outbox: Outbox
    rerun: int = 0
    """Chunks re-executed since start, for people."""
    _claims: dict[bytes, MakeClaim] = field(default_factory=dict)
    """What we hold against commits at work, by commit."""
    _overruled: dict[bytes, None] = field(default_factory=dict)
    """Commits of which a quorum computed otherwise than we: we neither attest nor accuse."""
    _busy: dict[tuple[str, bytes], None] = field(default_factory=dict)
    """Audits and rulings under way, by kind and worker."""
    _wakes: dict[str, trio.Event] = field(default_factory=dict)

    def on_block(self) -> None:
        """A block is final: there may be something to do."""
        self.duties.settle(self.chain.state())
        for wake in self._wakes.values():
            wake.set()

    async def run(self) -> None:
        """Hold data, rule on disputes, audit segments; for ever.

        Data has a task of its own: a job whose data is large, or nowhere, delays no other job.
        So have the disputes and the audits of each worker: one that serves slowly delays nobody
        else's segments, and no ruling.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._repeat, "data", self._hold_all)
            nursery.start_soon(self._repeat, "segments", partial(self._begin_all, nursery))

    async def _repeat(self, name: str, act: Callable[[State], Awaitable[None]]) -> None:
        while True:
            wake = self._wakes[name] = trio.Event()
            if self.key in self.chain.validators:  # else nothing we say counts any more
                await act(self.chain.state())
            with trio.move_on_after(RETRY_S):
                await wake.wait()

    async def _try(self, act: Callable[..., Awaitable[None]], *args: object) -> None:
        """Do one thing; that it fails must not keep us from the next."""
        try:
            await act(*args)
        except Stale as stale:
            log.info("audit-dropped", reason=stale.message)
        except MlchainError as error:
            log.warning("audit-interrupted", reason=error.message)

    async def _hold_all(self, state: State) -> None:
        for (job_id,), _ in ACTIVE.items(state):
            job = JOBS.get(state, job_id)
            if job is not None and job.state == JobState.SUBMITTED:
                await self._try(self._hold_data, state, job)

    async def _begin_all(self, nursery: trio.Nursery, state: State) -> None:
        """Begin whatever is due, worker by worker, unless the last of its kind goes on still."""
        keys = [key for (key,), _ in ACTIVE.items(state)]
        jobs = [(key, job) for key in keys if (job := JOBS.get(state, key)) is not None]
        committed = [
            Target(job_id, job, index, segment, segment.commit)
            for job_id, job in jobs
            for index in range(job.hard, job.assigned)
            if (segment := SEGMENTS.get(state, job_id, index)) is not None
            and segment.commit is not None
            and segment.worker != self.key
        ]
        at_work = {commit_id(target.commit): None for target in committed}
        self._claims = {key: claim for key, claim in self._claims.items() if key in at_work}
        self._overruled = {key: None for key in self._overruled if key in at_work}
        due = [t for t in committed if self._is_due(t.number, t.segment, t.commit)]
        disputed = [t for t in committed if t.segment.claim is not None]
        for act, targets in ((self._vote, disputed), (self._audit, due)):
            for worker in dict.fromkeys(target.segment.worker for target in targets):
                task = (act.__name__, worker)
                if task not in self._busy:
                    self._busy[task] = None
                    own = [target for target in targets if target.segment.worker == worker]
                    nursery.start_soon(self._do_each, task, act, state, own)

    async def _do_each(self, task: tuple[str, bytes], act: Act, state: State, on: Targets) -> None:
        try:
            for target in on:
                await self._try(act, state, target)
        finally:
            del self._busy[task]

    def _is_due(self, index: int, segment: Segment, commit: SegmentCommit) -> bool:
        """Tell whether to audit a segment now; an accusation of it goes out again if it must."""
        identity = commit_id(commit)
        if segment.state != SegmentState.COMMITTED or identity in self._overruled:
            return False
        claim = self._claims.get(identity)
        if claim is not None and claim.chunk not in segment.cleared:
            self.outbox.send(claim)
            return False
        if claim is not None:
            log.warning("claim-rejected", job=commit.job.hex()[:8], segment=index)
            del self._claims[identity]
        done = [a.validator for a in segment.attestations]
        is_sent = self.duties.has_attested(SegmentRef(commit.job, index), identity)
        return self.key not in done and not is_sent

    async def _hold_data(self, state: State, job: Job) -> None:
        """Fetch a dataset somebody wants to use; announce it once it is whole and readable."""
        record = DATASETS.get(state, job.dataset)
        if record is None or self.key in record.holders:
            return
        data = await self.artifacts.fetch_dataset(state, job)
        try:
            dataset = await trio.to_thread.run_sync(Dataset.decode, data)
        except MlchainError as error:
            log.warning("dataset-unreadable", reason=error.message)
            return
        found = (len(data), dataset.rows, dataset.features)
        if found == (record.size, record.rows, record.features):
            self.duties.add_available(job.dataset)
        else:
            log.warning("dataset-differs", found=found)

    # ---- auditing one's own slice ---------------------------------------------------------------

    async def _audit(self, state: State, target: Target) -> None:
        job_id, job, index, segment, commit = target
        identity, ticket = commit_id(commit), self.duties.ticket(segment.commit_height)
        if ticket is None:
            return
        offsets = segment_slice(job, commit, ticket, len(self.chain.validators))
        finding = await self._examine(state, target, offsets)
        if finding is None:
            chunks = tuple(job.segment_range(index)[0] + offset for offset in offsets)
            root = result_root(chunks, tuple(bytes(32) for _ in chunks))
            self.duties.add_attestation(Attestation(job_id, index, identity, ticket, root))
            log.info("attested", job=job_id.hex()[:8], segment=index, rerun=len(offsets))
            return
        log.warning(
            "claim", job=job_id.hex()[:8], segment=index, chunk=finding.chunk,
            kind=finding.kind.name, reason=finding.reason,
        )  # fmt: skip
        if finding.chunk in segment.cleared:  # settled: asking the chain again cannot help
            if finding.kind == ClaimKind.FRAUD:
                log.error("overruled", hint="this machine computes otherwise than a quorum")
                self._overruled[identity] = None
            return
        self._claims[identity] = self._send_claim(commit, finding, ticket)

    async def _examine(
        self, state: State, target: Target, offsets: tuple[int, ...]
    ) -> Finding | None:
        """Return what is wrong with a segment as far as our slice shows, None if nothing."""
        _, job, index, _, commit = target
        first, _ = job.segment_range(index)
        at = first + (offsets[0] if offsets else 0)
        subject = await self._subject(state, target)
        if isinstance(subject, MlchainError):
            return Finding(ClaimKind.UNSERVED, at, subject.message)
        if index == 0 and (await self.compute.initial_state(subject.handle))[1] != commit.start:
            return Finding(ClaimKind.FRAUD, first, "does not start from the initial state")
        if subject.leaves and subject.leaves[-1] != commit.end:  # whoever draws the last chunk
            last = first + commit.count - 1  # would see it; all others see it for nothing
            return Finding(ClaimKind.FRAUD, last, "does not end with its last chunk's state")
        finding = await self._replay_slice(subject, offsets)
        return finding or await self._check_metrics(subject)

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
                self._complain(subject, Finding(ClaimKind.UNSERVED, chunk, "served too slowly"))
                waited_s = 0.0
            if isinstance(data, Stale):
                raise data
            if isinstance(data, MlchainError) and chunk in subject.segment.cleared:
                continue  # not served to us, but a quorum has re-run it since, and it was right
            if isinstance(data, MlchainError):
                return Finding(ClaimKind.UNSERVED, chunk, data.message)
            if await self._replay(subject, offset, data) == Outcome.DIFFERS:
                self.artifacts.exhibit(subject.segment, offset, data)
                return Finding(ClaimKind.FRAUD, chunk, "re-running it differs")

    def _complain(self, subject: Subject, finding: Finding) -> None:
        ticket = self.duties.ticket(subject.segment.commit_height)
        if ticket is not None and finding.chunk not in subject.segment.cleared:
            self._send_claim(subject.commit, finding, ticket)

    def _send_claim(self, commit: SegmentCommit, finding: Finding, ticket: bytes) -> MakeClaim:
        claim = MakeClaim(
            commit.job, commit.segment, commit_id(commit), finding.chunk, int(finding.kind), ticket
        )
        self.outbox.send(claim)
        return claim

    async def _subject(self, state: State, target: Target) -> Subject | MlchainError:
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
            return Subject(*target, handle, plan, leaves)

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
        commit, self.rerun = subject.commit, self.rerun + 1
        digest = await self.compute.replay(subject.handle, subject.first + offset, data)
        if isinstance(digest, Trapped):
            return offset == commit.count and commit.trap == digest.step + 1
        if offset == commit.count:
            return False  # a trap was claimed and there is none
        is_last = offset == commit.count - 1
        return digest == subject.leaves[offset] and (not is_last or digest == commit.end)

    # ---- ruling on a dispute --------------------------------------------------------------------

    async def _vote(self, state: State, target: Target) -> None:
        job_id, _, index, segment, commit = target
        claim, identity = segment.claim, commit_id(commit)
        assert claim is not None, "only disputed segments are ruled on"
        has_voted = self.key in [ballot.validator for ballot in claim.ballots]
        if has_voted or self.duties.has_verdict(identity, claim.chunk):
            return
        outcome = await self._judge(state, target, claim)
        log.info(
            "verdict", job=job_id.hex()[:8], segment=index, chunk=claim.chunk, found=outcome.name
        )
        self.duties.add_verdict(Verdict(job_id, index, identity, claim.chunk, int(outcome)))

    async def _judge(self, state: State, target: Target, claim: Claim) -> Outcome:
        """Re-run the disputed chunk, from the state the worker (or else the accuser) serves."""
        commit = target.commit
        subject = await self._subject(state, target)
        if isinstance(subject, MlchainError):
            return Outcome.UNSERVED
        offset = claim.chunk - subject.first
        if target.number == 0 and offset == 0:
            data, digest = await self.compute.initial_state(subject.handle)
            if digest != commit.start:
                return Outcome.DIFFERS
        else:
            sources = self._sources(subject, claim.accuser)
            served = await self._fetch_patiently(subject, offset, sources)
            if isinstance(served, MlchainError):
                return Outcome.UNSERVED
            data = served
        outcome = await self._replay(subject, offset, data)
        is_end = offset == commit.count - 1
        if outcome == Outcome.EQUAL and is_end and await self._check_metrics(subject):
            return Outcome.DIFFERS
        return outcome
