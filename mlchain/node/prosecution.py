"""A validator that found a disputed chunk wrong makes a file of it, which convinces anybody.

The chain needs no such file: it rules by re-execution. What is proven about the commit is read from
the chain while the segment still stands there; then the worker is asked for its trace, and whatever
it answers binds it. If it does not answer, the file carries the state to re-run the chunk from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import structlog
import trio
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.errors import MlchainError, NotFound, Rejected, VerificationFailed
from mlchain.ml_runtime.proof import ChunkClaim, FraudProof, Move
from mlchain.node.artifacts import Artifacts
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute
from mlchain.node.files import Files
from mlchain.node.subject import Subject
from mlchain.node.trace_wire import MAX_ANSWER_BYTES, TRACE_PROTOCOL, TraceAnswer, TraceQuestion
from mlchain.vm.accusation import (
    MAX_ACCUSATION_BYTES,
    Accusation,
    Ground,
    OtherAnswer,
    WrongChunk,
    WrongEnd,
    WrongOperation,
    WrongScore,
    WrongStart,
    answer_message,
    make_accusation,
)

log = structlog.get_logger("prosecution")

ANSWER_S = 60.0
"""For one answer of the accused: it traces a chunk, which takes several times its training."""
TRIES, RETRY_S = 5, 1.0
"""How often the accused is asked that knows of nothing, and the pause."""
MAX_WAITING = 8
"""Convictions that wait for their file."""
MAX_KEPT = 256
"""Files kept; the oldest go first."""

_NAME = re.compile(r"([0-9a-f]{64})-(\d+)-(\d+)-(\d+)\.fraud")


class CaseName(NamedTuple):
    """Which file: of a job's segment under one attempt, about one chunk."""

    job: bytes
    segment: int
    attempt: int
    chunk: int


class Cases:
    """The fraud files this node made."""

    def __init__(self, files: Files, folder: Path) -> None:
        self._files, self._folder = files, folder
        files.make_folder(folder)

    def add(self, name: CaseName, data: bytes) -> None:
        """Keep a file, whole or not at all; beyond `MAX_KEPT` in place of the oldest."""
        path = self._path(name)
        part = path.with_suffix(".part")
        file = self._files.open(part, is_new=True)
        try:
            file.append(data)
            file.sync()
        finally:
            file.close()
        self._files.replace(path, part)
        self._files.sync_folder(self._folder)
        others = [other for other in self.names() if other != name]
        others.sort(key=lambda other: self._files.written(self._path(other)))
        for old in others[: max(0, len(others) + 1 - MAX_KEPT)]:
            self._files.remove(self._path(old))

    def names(self, job: bytes = b"") -> Iterator[CaseName]:
        """Yield the names of all files, or those of one job, in order."""
        for name in self._files.names(self._folder):
            if (found := _NAME.fullmatch(name)) and found[1].startswith(job.hex()):
                yield CaseName(bytes.fromhex(found[1]), *(int(found[i]) for i in (2, 3, 4)))

    def read(self, name: CaseName) -> bytes | None:
        """Return a file, None if it is not here."""
        return self._files.read(self._path(name))

    def _path(self, name: CaseName) -> Path:
        return self._folder / f"{name.job.hex()}-{name.segment}-{name.attempt}-{name.chunk}.fraud"


class _Conviction(NamedTuple):
    subject: Subject
    offset: int
    before: bytes
    is_score: bool
    draft: Accusation


@dataclass
class Prosecutor:
    """Makes files of what this validator judged to be wrong, one after the other."""

    chain: Chain
    artifacts: Artifacts
    compute: Compute
    cases: Cases
    _waiting: tuple[trio.MemorySendChannel[_Conviction], trio.MemoryReceiveChannel[_Conviction]] = (
        field(default_factory=lambda: trio.open_memory_channel[_Conviction](MAX_WAITING))
    )

    def convict(self, subject: Subject, offset: int, before: bytes, is_score: bool) -> None:
        """Take up a chunk that we judged wrong; `before` is the state it starts from.

        What the chain proves of the commit is read now: it is gone once the segment has fallen.
        """
        chunk = subject.first + offset
        try:
            draft = make_accusation(
                self.chain.store, subject.job_id, subject.index, chunk, subject.leaves
            )
            self._waiting[0].send_nowait(_Conviction(subject, offset, before, is_score, draft))
        except (MlchainError, trio.WouldBlock) as error:
            log.warning("no-file", chunk=chunk, reason=str(error))

    async def run(self) -> None:
        """Make the files, for ever."""
        async for conviction in self._waiting[1]:
            try:
                await self._make(conviction)
            except MlchainError as error:
                log.warning("no-file", reason=error.message)

    async def _make(self, conviction: _Conviction) -> None:
        subject, draft = conviction.subject, conviction.draft
        ground = await self._ground(conviction)
        data = codec.encode(replace(draft, ground=ground))
        if len(data) > MAX_ACCUSATION_BYTES:
            raise VerificationFailed(f"the file would have {len(data)} bytes")
        name = CaseName(subject.job_id, subject.index, subject.segment.attempt, draft.chunk)
        self.cases.add(name, data)
        log.info("fraud-file", chunk=draft.chunk, ground=type(ground).__name__, size=len(data))

    async def _ground(self, conviction: _Conviction) -> Ground:
        subject, commit = conviction.subject, conviction.subject.commit
        if subject.leaves and subject.leaves[-1] != commit.end:
            return WrongEnd()
        if conviction.is_score:
            return WrongScore(self.artifacts.content.get(commit.end_content))
        if subject.index == 0 and conviction.offset == 0:
            _, digest = await self.compute.initial_state(subject.handle)
            if digest != commit.start:
                return WrongStart()
        try:
            return await self._dispute(subject, conviction.offset, conviction.before)
        except MlchainError as error:
            log.info("unanswered", chunk=conviction.draft.chunk, reason=error.message)
            return WrongChunk(conviction.before)

    async def _dispute(self, subject: Subject, offset: int, before: bytes) -> Ground:
        """Ask the worker until it has contradicted itself, or one operation is left.

        Raises:
            MlchainError: it does not answer, or nothing that it is bound to.
        """
        first = await self._ask_first(subject, offset)
        claim, chunk = first.claim, subject.first + offset
        is_trapped = offset == subject.commit.count
        committed = (
            subject.digest_before(offset),
            b"" if is_trapped else subject.leaves[offset],
            subject.commit.trap if is_trapped else 0,
        )
        answers: list[Move] = []
        asked: list[Move] = []
        mine = (await self.compute.answer_claim(subject.handle, chunk, before, None, ())).claim
        if (claim.job, claim.chunk) != (mine.job, chunk):
            raise VerificationFailed("the worker's answer is about something else")
        if (claim.start, claim.end, claim.trap) != committed:
            return OtherAnswer(claim, first.signature)
        while True:
            found = await self.compute.make_proof(
                subject.handle, chunk, before, claim, subject.segment.worker, tuple(answers)
            )
            if found.move is None:
                return WrongOperation(codec.decode(FraudProof, found.proof), first.signature)
            asked.append(found.move)
            answer = await self._ask(subject, offset, mine, tuple(asked))
            if answer.claim != claim or answer.move is None:
                raise VerificationFailed("the worker changes its answer")
            answers.append(answer.move)

    async def _ask_first(self, subject: Subject, offset: int) -> TraceAnswer:
        """Ask for the worker's claim; its node may not have seen the accusation yet."""
        for _ in range(TRIES - 1):
            try:
                return await self._ask(subject, offset, None, ())
            except (NotFound, Rejected):  # or is busy with what we asked before
                await trio.sleep(RETRY_S)
        return await self._ask(subject, offset, None, ())

    async def _ask(
        self, subject: Subject, offset: int, mine: ChunkClaim | None, moves: tuple[Move, ...]
    ) -> TraceAnswer:
        segment = subject.segment
        question = TraceQuestion(
            subject.job_id, subject.index, segment.attempt, offset, mine, moves
        )
        data = await self.artifacts.ask_member(
            segment.worker, TRACE_PROTOCOL, codec.encode(question), MAX_ANSWER_BYTES, ANSWER_S
        )
        answer = codec.decode(TraceAnswer, data, MAX_ANSWER_BYTES)
        message = answer_message(
            self.chain.genesis.chain_id, segment, subject.first + offset, answer.claim
        )
        crypto.verify(segment.worker, message, answer.signature, "trace answer")
        return answer
