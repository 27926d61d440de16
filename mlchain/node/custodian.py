"""Custody digests: keeps our own, opens them to who may ask, and looks at those of the others.

When the key of an attestation is public, each of its chunks is re-run by a few validators, each of
which decides that by a secret of its own. What does not fit is claimed on chain; what the chain
disputes, everybody re-runs (protocol.md, "Proof of re-execution").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from msgspec.structs import replace

from mlchain import codec
from mlchain.codec import Hash, Record, Uint
from mlchain.consensus.work.attestation import Outcome, Verdict
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.custody import (
    Opening,
    digest_key,
    is_audited,
    open_result,
    result_root,
    verify_opening,
)
from mlchain.errors import MlchainError, NotFound
from mlchain.ledger.state import State
from mlchain.node.artifacts import Artifacts
from mlchain.node.chain import Chain
from mlchain.node.duties import Duties
from mlchain.node.examiner import Examiner
from mlchain.node.outbox import Outbox
from mlchain.node.spool import Spool
from mlchain.node.subject import Finding, Target
from mlchain.vm.families.custody import (
    CUSTODY_CLAIMS,
    MAX_OPEN,
    Attestment,
    ClaimDigest,
    ClaimState,
    ShowDigest,
    audit_begin,
    claim_end,
    find_key,
    get_attestment,
    is_under_audit,
    may_claim,
)
from mlchain.vm.families.jobs import SEGMENTS, Phase, Segment, in_phase

log = structlog.get_logger("custodian")

OPENING_PROTOCOL = "/mlchain/opening/1"
MAX_OPENING_BYTES = 4096
TRIES = 8
"""Times that we ask for an opening, in as many rounds, before we ask for it on chain."""

Place = tuple[bytes, int, bytes, int]
"""(job, segment, validator, chunk)"""


class OpeningRequest(Record, frozen=True):
    """Asks a validator for its digest of a chunk that it attested."""

    job: Hash
    segment: Uint
    chunk: Uint


@dataclass
class Custodian:
    """One validator's part in showing that it re-ran, and in seeing whether others did."""

    key: bytes
    secret: bytes
    """Decides which chunks of others we re-run; nobody else knows it."""
    chain: Chain
    artifacts: Artifacts
    examiner: Examiner
    duties: Duties
    outbox: Outbox
    book: Spool
    """Our digests, 32 bytes a chunk, by attempt of a segment."""
    audited: int = 0
    """Chunks of others that we re-ran."""
    _watched: dict[tuple[bytes, int], None] | None = None
    """Segments whose audits have not ended; None before the first look at the chain. We keep our
    digests as long: a claim made in the last block may be answered a whole window later."""
    _settled: dict[tuple[bytes, Place], None] = field(default_factory=dict)
    """What we need not look at again, by commit and place."""
    _tries: dict[Place, int] = field(default_factory=dict)
    _claims: dict[Place, tuple[ClaimDigest, bytes]] = field(default_factory=dict)
    """What we claim until the chain takes it, and the digest that we have found wrong: none while
    we only ask, and what is shown meanwhile may be right."""

    @property
    def acts(self) -> tuple[Callable[[State], Awaitable[None]], ...]:
        """What is to be done again and again, each beside the others."""
        return self.answer, self.judge, self.audit, self.press

    # ---- our own digests ----------------------------------------------------------------------

    def keep(self, target: Target, digests: tuple[bytes, ...]) -> None:
        """Keep the digests of our slice, before the attestation that commits to them is made."""
        place = (target.job_id, target.number, target.segment.attempt)
        for number, value in enumerate(digests):
            if number:
                self.book.append(place, value)
            else:
                self.book.start(place, value)
        if digests:
            self.book.sync(place)

    async def serve(self, peer: bytes, payload: bytes) -> bytes:
        """Answer an `OpeningRequest`, once our key is due.

        Raises:
            NotFound: too early, or we attested no such thing.
        """
        request = codec.decode(OpeningRequest, payload, 256)
        state = self.chain.state()
        about = get_attestment(state, request.job, request.segment, self.key)
        if self.chain.height + 1 < audit_begin(about.segment, self.chain.params):
            raise NotFound("the key of these digests is not public yet")
        return codec.encode(await self._open(state, request.job, about, request.chunk))

    async def _open(self, state: State, job: bytes, about: Attestment, chunk: int) -> Opening:
        if chunk not in about.auditable:
            raise NotFound(f"chunk {chunk} is not in our slice")
        return open_result(about.chunks, await self._digests(state, job, about), chunk)

    async def _digests(self, state: State, job_id: bytes, about: Attestment) -> tuple[bytes, ...]:
        """Return the digests we committed to; those that a crash took are made again."""
        commit, segment = about.segment.commit, about.segment
        assert commit is not None, "what is attested is committed"
        place = (job_id, commit.segment, segment.attempt)
        count = len(about.chunks)
        try:
            digests = tuple(self.book.read(place, i) for i in range(count))
        except NotFound:
            digests = ()
        if result_root(about.chunks[: len(digests)], digests) == about.attested.result_root:
            return digests
        element = self.duties.custody_key(segment.attest_from)
        target = Target(job_id, about.job, commit.segment, segment, commit)
        first, _ = about.job.segment_range(commit.segment)
        offsets = tuple(chunk - first for chunk in about.chunks)
        found = await self.examiner.examine(state, target, offsets, digest_key(element or b""))
        if isinstance(found, Finding):
            raise NotFound(f"our digests are lost, and cannot be made again: {found.reason}")
        self.keep(target, found)
        return found

    async def answer(self, state: State) -> None:
        """Show on chain what we are asked for there."""
        for (job, index, accused, chunk), claim in CUSTODY_CLAIMS.items(state):
            if accused != self.key or claim.state != ClaimState.ASKED:
                continue
            about = get_attestment(state, job, index, self.key)
            element = self.duties.custody_key(about.segment.attest_from)
            try:
                opening = await self._open(state, job, about, chunk)
            except MlchainError as error:  # the others that are asked for can still be shown
                log.error("not-shown", chunk=chunk, reason=error.message)
                continue
            if element is not None:
                self.outbox.send(ShowDigest(job, index, chunk, element, opening))

    # ---- those of the others ------------------------------------------------------------------

    def on_block(self) -> None:
        """Note which segments will have to be audited, and forget those of before."""
        state = self.chain.state()
        if self._watched is None:
            keys = [key for key, _ in SEGMENTS.items(state)]
        else:
            recent = [
                (key, index)
                for key, job in in_phase(state, Phase.VERDICT)
                for index in range(job.hard, job.assigned)
            ]
            keys = [*self._watched, *recent]
        self._watched = {
            (job, index): None
            for job, index in keys
            if (segment := SEGMENTS.get(state, job, index)) is not None
            and segment.commit is not None
            and is_under_audit(state, job, index, segment, self.chain.height, self.chain.params)
        }
        places = [
            (job, index, segment.attempt)
            for job, index in self._watched
            if (segment := SEGMENTS.get(state, job, index)) is not None
        ]
        self.book.keep(places)
        at_work = {place[:2] for place in places}
        self._settled = {key: None for key in self._settled if key[1][:2] in at_work}
        self._claims = {at: claim for at, claim in self._claims.items() if at[:2] in at_work}

    async def judge(self, state: State) -> None:
        """Re-run the chunks whose digests are disputed, with the keys of their makers."""
        for place, claim in CUSTODY_CLAIMS.items(state):
            job, index, accused, chunk = place
            if claim.state != ClaimState.DISPUTED:
                continue
            about = get_attestment(state, job, index, accused)
            assert about.segment.commit is not None, "what is attested is committed"
            identity = commit_id(about.segment.commit)
            has_voted = self.key in [ballot.validator for ballot in claim.ballots]
            if has_voted or self.duties.has_verdict(identity, chunk, accused):
                continue
            try:
                right = await self._make(state, place, about)
                outcome = Outcome.EQUAL if right == claim.digest else Outcome.DIFFERS
            except MlchainError as error:
                log.warning("not-judged", chunk=chunk, reason=error.message)
                outcome = Outcome.UNSERVED
            log.info("digest-verdict", job=job.hex()[:8], chunk=chunk, found=outcome.name)
            self.duties.add_verdict(Verdict(job, index, identity, chunk, int(outcome), accused))

    async def audit(self, state: State) -> None:
        """Look at the digests that are ours to look at and whose keys are public."""
        for job, index in list(self._watched or ()):
            segment = SEGMENTS.get(state, job, index)
            if segment is None or segment.commit is None:
                continue
            if self.chain.height >= audit_begin(segment, self.chain.params):
                await self._audit_segment(state, job, index, segment)

    async def press(self, state: State) -> None:
        """Send what we claim, until the chain has taken it."""
        for place, (claim, wrong) in list(self._claims.items()):
            known = CUSTODY_CLAIMS.get(state, *place)
            if known is not None and not (wrong and may_claim(known, claim.opening)):
                del self._claims[place]
            elif wrong or place[2] in self.chain.validators:  # who has gone is not asked
                self.outbox.send_announced(claim)

    async def _audit_segment(self, state: State, job: bytes, index: int, segment: Segment) -> None:
        assert segment.commit is not None, "only committed segments are audited"
        identity = commit_id(segment.commit)
        others = max(1, segment.voters - 1)
        for attested in segment.attestations:
            maker = attested.validator
            if maker == self.key:
                continue
            is_gone = maker not in self.chain.validators
            about = get_attestment(state, job, index, maker)
            for chunk in about.auditable:
                place = (job, index, maker, chunk)
                is_mine = is_audited(
                    self.secret, maker, identity, chunk, others, self.chain.params.audit_permille
                )
                if not is_mine or (identity, place) in self._settled:
                    continue
                if is_gone and CUSTODY_CLAIMS.get(state, *place) is None:
                    continue  # it cannot be asked; what it showed is looked at
                try:
                    is_settled = await self._audit_digest(state, place, about)
                except MlchainError as error:  # the others can still be looked at
                    log.warning("not-audited", chunk=chunk, reason=error.message)
                    continue
                if is_settled:
                    self._settled[identity, place] = None
                    self._tries.pop(place, None)

    async def _audit_digest(self, state: State, place: Place, about: Attestment) -> bool:
        """Compare one digest with ours; return whether that is settled as far as we care."""
        claim = CUSTODY_CLAIMS.get(state, *place)
        if claim is not None and claim.state in (ClaimState.DISPUTED, ClaimState.CLOSED):
            return claim.state == ClaimState.CLOSED
        if self.chain.height >= claim_end(about.segment, claim, self.chain.params):
            return True
        if place in self._claims:
            return False
        opening: Opening | None = None
        shown = claim.digest if claim else b""
        if not shown:
            opening = await self._fetch(place, about)
            shown = opening.digest if opening else b""
        if not shown:
            self._tries[place] = self._tries.get(place, 0) + 1
            if claim is None and self._tries[place] >= TRIES:
                self._claim(state, place, None, b"")
            return False
        right = await self._make(state, place, about)
        if right != shown:
            right = await self._make(state, place, about)  # before anybody is accused
        self.audited += 1
        if right == shown:
            return True
        log.warning("wrong-digest", validator=place[2].hex()[:8], chunk=place[3])
        self._claim(state, place, opening, shown)
        return False

    def _claim(self, state: State, place: Place, opening: Opening | None, wrong: bytes) -> None:
        mine = [
            claim
            for at, claim in CUSTODY_CLAIMS.items(state)
            if claim.accuser == self.key
            and at != place
            and claim.state in (ClaimState.ASKED, ClaimState.DISPUTED)
        ]
        if len(mine) < MAX_OPEN:
            claim = ClaimDigest(*place, opening, bytes(32), 0)
            claim = replace(claim, salt=self.outbox.salt(claim))
            self._claims[place] = claim, wrong
            self.outbox.send_announced(claim)

    async def _fetch(self, place: Place, about: Attestment) -> Opening | None:
        job, index, maker, chunk = place
        request = codec.encode(OpeningRequest(job, index, chunk))
        try:
            data = await self.artifacts.ask_member(
                maker, OPENING_PROTOCOL, request, MAX_OPENING_BYTES
            )
            opening = codec.decode(Opening, data, MAX_OPENING_BYTES)
            verify_opening(about.attested.result_root, about.chunks, chunk, opening)
        except MlchainError as error:
            log.info("no-opening", validator=maker.hex()[:8], chunk=chunk, reason=error.message)
            return None
        return opening

    async def _make(self, state: State, place: Place, about: Attestment) -> bytes:
        """Return the digest that re-running a chunk with its maker's key gives; empty if the chunk
        itself is wrong, which nobody should have attested.

        Raises:
            NotFound: the key is not public.
            MlchainError: the chunk could not be re-run here.
        """
        job, index, maker, chunk = place
        segment = about.segment
        assert segment.commit is not None, "what is attested is committed"
        element = find_key(state, maker, about, self.chain.params)
        if element is None:
            raise NotFound("its key is not public")
        target = Target(job, about.job, index, segment, segment.commit)
        return await self.examiner.make_digest(state, target, chunk, digest_key(element))
