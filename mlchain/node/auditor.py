"""The auditor: has this validator's secret slices and every disputed chunk re-executed.

It decides what is due and says on chain what was found; `examiner.py` re-executes. Nothing leaves
this node about a segment before the block of its commit is final: no fetch, no ticket, no verdict
(protocol.md section 7).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from mlchain.consensus.work.attestation import Attestation, Outcome, Verdict
from mlchain.consensus.work.commitment import SegmentCommit, commit_id
from mlchain.consensus.work.custody import digest_key, result_root
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.errors import MlchainError
from mlchain.ledger.block import SegmentRef
from mlchain.ledger.content import cid_text
from mlchain.ledger.state import State
from mlchain.node.artifacts import Artifacts
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute
from mlchain.node.custodian import Custodian
from mlchain.node.duties import Duties
from mlchain.node.examiner import RETRY_S, Examiner
from mlchain.node.informer import Informer
from mlchain.node.outbox import Outbox
from mlchain.node.partitioner import hold_dataset
from mlchain.node.rota import FETCH_S, Act, Rota
from mlchain.node.subject import Finding, Stale, Subject, Target
from mlchain.vm.families.data import DATASETS
from mlchain.vm.families.governance import leaving_keys
from mlchain.vm.families.jobs import (
    JOBS,
    LATE,
    SEGMENTS,
    Claim,
    Phase,
    Segment,
    SegmentState,
    in_phase,
    is_checker,
    is_in_slice,
    segment_slice,
)
from mlchain.vm.families.segments import MakeClaim

log = structlog.get_logger("auditor")

Targets = list[Target]
Convict = Callable[[Subject, int, bytes, bool], None]
Deed = Callable[[State, Target], Awaitable[None]]
PLACES = 16
"""Datasets that are fetched at a time; whoever is too slow makes way for the next."""


@dataclass
class Auditor:
    """One validator's re-execution."""

    key: bytes
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    duties: Duties
    outbox: Outbox
    convict: Convict = lambda subject, offset, before, is_score: None
    """Told of disputed chunks that we judge wrong (`prosecution.py`)."""
    examiner: Examiner = field(init=False)
    informer: Informer = field(init=False)
    """Reports secrets of others that are shown to us."""
    data: Rota = field(default_factory=lambda: Rota(PLACES, RETRY_S, FETCH_S))
    """Datasets that jobs wait for."""
    custodian: Custodian | None = None
    """Keeps our custody digests and looks at those of the others."""
    _claims: dict[bytes, MakeClaim] = field(default_factory=dict)
    """What we hold against commits at work, by commit."""
    _overruled: dict[bytes, None] = field(default_factory=dict)
    """Commits of which a quorum computed otherwise than we: we neither attest nor accuse."""
    _busy: dict[tuple[str, bytes], None] = field(default_factory=dict)
    """Audits and rulings under way, by kind and worker."""
    _wakes: dict[str, trio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Have an examiner and an informer of our own."""
        self.informer = Informer(self.key, self.chain, self.outbox)
        self.examiner = Examiner(
            self.key, self.chain, self.artifacts, self.compute, self._complain, self.convict
        )

    @property
    def is_busy(self) -> bool:
        """Whether an audit or a ruling is under way."""
        return bool(self._busy)

    def on_block(self) -> None:
        """A block is final: there may be something to do."""
        self.duties.settle(self.chain.state())
        if self.custodian:
            self.custodian.on_block()
        for wake in self._wakes.values():
            wake.set()
        self.data.wake()

    async def run(self) -> None:
        """Hold data, rule on disputes, audit segments; for ever.

        Data has a rota of its own: a job whose data is large, slow or nowhere delays no other job.
        So have the disputes and the audits of each worker: one that serves slowly delays nobody
        else's segments, and no ruling.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.data.run, self._find_data)
            nursery.start_soon(self._repeat, "segments", partial(self._begin_all, nursery))
            nursery.start_soon(self._repeat, "chains", partial(self._try, self._renew))
            nursery.start_soon(self._repeat, "reports", partial(self._try, self.informer.press))
            for act in self.custodian.acts if self.custodian else ():
                nursery.start_soon(self._repeat, act.__name__, partial(self._try, act))

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

    async def _renew(self, state: State) -> None:
        """Have our hash chains ready, and register the next ones in time."""
        await self.duties.prepare(self.chain.height)
        epoch_blocks = self.chain.params.epoch_blocks
        await self.duties.chains.renew(self.chain.height, epoch_blocks, self.outbox)

    async def _find_data(self) -> Mapping[bytes, Act]:
        """Return the datasets that jobs wait for and we have not said to hold."""
        if self.key not in self.chain.validators:
            return {}
        state = self.chain.state()
        wanted = {job.dataset: None for _, job in in_phase(state, Phase.DATA)}
        return {
            content: partial(self._hold, state, content)
            for content in wanted
            if (record := DATASETS.get(state, content)) is not None
            and self.key not in record.holders
            and not self.duties.is_announced(content, record.facts)
        }

    async def _hold(self, state: State, content: bytes) -> None:
        try:
            await hold_dataset(self.key, self.artifacts, self.duties, state, content)
        except MlchainError as error:
            log.warning("data-not-held", content=cid_text(content), reason=error.message)
            raise

    async def _begin_all(self, nursery: trio.Nursery, state: State) -> None:
        """Begin whatever is due, worker by worker, unless the last of its kind goes on still."""
        committed = [
            Target(job_id, job, index, segment, segment.commit)
            for job_id, job in in_phase(state, Phase.VERDICT)
            for index in range(job.hard, job.assigned)
            if (segment := SEGMENTS.get(state, job_id, index)) is not None
            and segment.commit is not None
            and segment.worker != self.key
        ]
        at_work = {commit_id(target.commit): None for target in committed}
        self._claims = {key: claim for key, claim in self._claims.items() if key in at_work}
        self._overruled = {key: None for key in self._overruled if key in at_work}
        due = [t for t in committed if self._is_due(t.number, t.segment, t.commit)]
        if self.key in leaving_keys(state):
            due = []  # to attest is to stay until that was audited
        disputed = [t for t in committed if t.segment.claim is not None]
        late = self._late(state)  # by itself: it may take long, and no payment waits for it
        for kind, act, targets in (
            ("rule", self._vote, disputed), ("late", self._vote, late), ("audit", self._audit, due),
        ):  # fmt: skip
            for worker in dict.fromkeys(target.segment.worker for target in targets):
                task = (kind, worker)
                if task not in self._busy:
                    self._busy[task] = None
                    own = [target for target in targets if target.segment.worker == worker]
                    nursery.start_soon(self._do_each, task, act, state, own)

    def _late(self, state: State) -> list[Target]:
        """Return the HARD segments of others that somebody claims fraud in."""
        return [
            Target(job_id, job, index, segment, segment.commit)
            for (job_id, index), _ in LATE.items(state)
            if (job := JOBS.get(state, job_id)) is not None
            and (segment := SEGMENTS.get(state, job_id, index)) is not None
            and segment.commit is not None
            and segment.worker != self.key
        ]

    async def _do_each(self, task: tuple[str, bytes], act: Deed, state: State, on: Targets) -> None:
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
        job = JOBS.get(self.chain.state(), commit.job)
        if job is None or not is_checker(job, segment, self.key):
            return False
        is_sent = self.duties.has_attested(SegmentRef(commit.job, index), identity)
        return self.key not in done and not is_sent

    # ---- auditing one's own slice ---------------------------------------------------------------

    async def _audit(self, state: State, target: Target) -> None:
        job_id, job, index, segment, commit = target
        identity, ticket = commit_id(commit), self.duties.ticket(segment.commit_height)
        if ticket is None:
            return
        offsets = segment_slice(job, segment, self.key, ticket)
        element = self.duties.custody_key(segment.attest_from)
        if element is None:
            return
        finding = await self.examiner.examine(state, target, offsets, digest_key(element))
        if not isinstance(finding, Finding):
            chunks = tuple(job.segment_range(index)[0] + offset for offset in offsets)
            root = result_root(chunks, finding)
            now = SEGMENTS.get(self.chain.state(), job_id, index)
            if now is None or now.attest_from != segment.attest_from:
                raise Stale(f"segment {index} was dealt anew")
            if self.custodian:
                self.custodian.keep(target, finding)
            mine = Attestation(job_id, index, identity, ticket, root)
            self.duties.add_attestation(mine, segment.attest_from)
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

    # ---- ruling on a dispute --------------------------------------------------------------------

    async def _vote(self, state: State, target: Target) -> None:
        job_id, _, index, segment, commit = target
        claim, identity = segment.claim, commit_id(commit)
        assert claim is not None, "only disputed segments are ruled on"
        has_voted = self.key in [ballot.validator for ballot in claim.ballots]
        if has_voted or self.duties.has_verdict(identity, claim.chunk):
            return
        outcome = await self.examiner.judge(state, target, claim)
        log.info(
            "verdict", job=job_id.hex()[:8], segment=index, chunk=claim.chunk, found=outcome.name
        )
        self.duties.add_verdict(Verdict(job_id, index, identity, claim.chunk, int(outcome)))
        if outcome == Outcome.DIFFERS:
            self._join(target, claim)

    def _join(self, target: Target, claim: Claim) -> None:
        """Say that we found what another was first to claim, if it is in our slice."""
        job_id, job, index, segment, commit = target
        ticket = self.duties.ticket(segment.commit_height)
        offset = claim.chunk - job.segment_range(index)[0]
        said = [*claim.finders, *(attested.validator for attested in segment.attestations)]
        if self.duties.has_attested(SegmentRef(job_id, index), commit_id(commit)):
            return
        if ticket is None or self.key in said or segment.state != SegmentState.DISPUTED:
            return
        if is_in_slice(job, segment, self.key, ticket, offset):
            finding = Finding(ClaimKind.FRAUD, claim.chunk, "disputed, and it differs")
            self._send_claim(commit, finding, ticket)
