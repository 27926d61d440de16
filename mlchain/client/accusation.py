"""Checking an accusation offline: the chain's part as of a receipt, then what is wrong there.

Trusted are the reader's own genesis file and this program. An honest worker cannot be convicted:
what it committed to stands under a certificate, what it answered bears its signature for this place
on this chain, and the rest is computed again here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlchain import codec, crypto
from mlchain.client.checks import (
    FindFile,
    Standing,
    check_certificate,
    check_genesis_hash,
    check_validators,
    require,
    require_proven,
)
from mlchain.client.userfile import read_file
from mlchain.consensus.work.commitment import SegmentCommit, chunk_leaf
from mlchain.errors import ConfigError, NotFound, Trap
from mlchain.ledger.content import cid_of
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.merkle import verify_list_proof
from mlchain.ml_runtime import Dataset, State, Task, Trainer, check_plan, decode_plan
from mlchain.ml_runtime.proof import Outcome, Verdict, claim_id, verify_fraud_proof
from mlchain.ml_runtime.state import initial_state
from mlchain.vm.accusation import (
    KIND,
    MAX_ACCUSATION_BYTES,
    Accusation,
    OtherAnswer,
    WrongChunk,
    WrongEnd,
    WrongOperation,
    WrongScore,
    WrongStart,
    answer_message,
)
from mlchain.vm.families.jobs import JOBS, PLANS, SEGMENTS, Job, PlanRecord, Segment, plan_id
from mlchain.vm.registry import check_registry

HEAD = b"\x9d" + bytes([0xA0 | len(KIND)]) + KIND.encode()
"""How the canonical bytes of an accusation begin: a record of 13 fields, the first its kind."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an accusation turns out to be: FRAUD or UNFOUNDED, and what it rests on."""

    outcome: Outcome
    text: str
    ground: str
    job: bytes
    worker: bytes
    segment: int
    chunk: int
    certified: str
    """Which block proves the commit, and who signed it."""


def is_accusation(path: Path) -> bool:
    """Tell whether a file claims to be an accusation, by how it begins.

    Raises:
        ConfigError: it cannot be read.
    """
    return begins_with(path, HEAD)


def begins_with(path: Path, head: bytes) -> bool:
    """Tell whether a file's first bytes are `head`.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "name a receipt or a fraud proof") from error


def read_accusation(path: Path) -> Accusation:
    """Return the accusation in a file.

    Raises:
        ConfigError: it cannot be read.
        CodecError: too large, malformed or not canonical.
    """
    data = read_file(path, MAX_ACCUSATION_BYTES, "name a fraud proof")
    return codec.decode(Accusation, data, MAX_ACCUSATION_BYTES)


def judge_accusation(
    accusation: Accusation, genesis: Genesis, find_file: FindFile = lambda content: None
) -> Judgement:
    """Judge an accusation against the reader's own genesis file.

    Raises:
        NotFound: a whole chunk or the score has to be computed, and `find_file` lacks the dataset.
        GenesisError: this installation computes by other tables than the chain.
        MlchainError: any other says why the file shows nothing.
    """
    return _Hearing(accusation, genesis, find_file).judge()


class _Hearing:
    """One accusation under examination. What is read was proven before."""

    def __init__(self, accusation: Accusation, genesis: Genesis, find_file: FindFile) -> None:
        self.accusation, self.genesis, self._find_file = accusation, genesis, find_file

    def judge(self) -> Judgement:
        """Go from the certificate to the ground."""
        accusation = self.accusation
        audit = Standing(accusation, self.genesis)
        check_genesis_hash(audit)
        check_registry(self.genesis)
        check_validators(audit)
        certified = check_certificate(audit)
        self._read(audit)
        self._check_place()
        ground = accusation.ground
        wrong = self._fault()
        outcome = Outcome.FRAUD if wrong else Outcome.UNFOUNDED
        text = wrong or "what the worker committed to is right there"
        return Judgement(
            outcome, text, str(type(ground).__struct_config__.tag), accusation.job_id,
            self.segment.worker, self.commit.segment, accusation.chunk, certified,
        )  # fmt: skip

    def _read(self, audit: Standing) -> None:
        accusation = self.accusation
        require_proven(audit, JOBS.key(accusation.job_id), accusation.job)
        self.job = codec.decode(Job, accusation.job.value)
        require_proven(audit, PLANS.key(self.job.plan), accusation.plan)
        self.plan_bytes = codec.decode(PlanRecord, accusation.plan.value).plan
        require(plan_id(self.plan_bytes) == self.job.plan, "not the program that the job names")
        self.segment = codec.decode(Segment, accusation.segment.value)
        commit = self.segment.commit
        require(commit is not None, "the segment is not committed")
        assert commit is not None
        self.commit: SegmentCommit = commit
        require_proven(audit, SEGMENTS.key(accusation.job_id, commit.segment), accusation.segment)
        require(commit.job == accusation.job_id, "the commit is of another job")
        self.plan = decode_plan(self.plan_bytes)
        check_plan(self.plan)

    def _check_place(self) -> None:
        """The openings show the digests before and after the chunk, as they were committed."""
        accusation, commit = self.accusation, self.commit
        first, _ = self.job.segment_range(commit.segment)
        self.offset = accusation.chunk - first
        reach = commit.count + bool(commit.trap)
        require(0 <= self.offset < reach, "the chunk is not in the segment")
        before, after = accusation.before, accusation.after
        require((before is None) == (self.offset == 0), "the chunk before is opened, or is not")
        require((after is None) == (self.offset == commit.count), "the chunk is opened, or is not")
        for offset, opening in ((self.offset - 1, before), (self.offset, after)):
            if opening is not None:
                leaf = chunk_leaf(
                    self.genesis.chain_id, accusation.job_id, commit.segment,
                    self.segment.attempt, self.segment.worker, first + offset, opening.state,
                )  # fmt: skip
                verify_list_proof(commit.leaf_root, leaf, offset, commit.count, opening.siblings)
        self.start = before.state if before else commit.start
        self.end = after.state if after else b""
        self.trap = 0 if after else commit.trap

    def _fault(self) -> str:
        """Return what is wrong, "" if nothing is.

        Raises:
            MlchainError: the file does not show it either way.
        """
        ground, commit = self.accusation.ground, self.commit
        if isinstance(ground, WrongStart):
            require(commit.segment == 0 and self.offset == 0, "only segment 0 starts from the seed")
            right = initial_state(self.plan, self.job.order_seed).digest()
            return "" if commit.start == right else "it does not start from the initial state"
        if isinstance(ground, WrongEnd):
            require(self.offset == commit.count - 1, "the end is that of the last chunk")
            return "" if commit.end == self.end else "it does not end with its last chunk's state"
        if isinstance(ground, OtherAnswer):
            return self._contradiction(ground)
        if isinstance(ground, WrongOperation):
            return self._operation(ground)
        if isinstance(ground, WrongScore):
            return self._score(ground.state)
        return self._chunk(ground)

    def _contradiction(self, ground: OtherAnswer) -> str:
        claim = ground.claim
        self._require_signed(claim_of=ground)
        if (claim.start, claim.end, claim.trap) == (self.start, self.end, self.trap):
            return ""
        return "asked again, the worker signed another result than it had committed to"

    def _operation(self, ground: WrongOperation) -> str:
        proof = ground.proof
        self._require_signed(claim_of=ground)
        accused = proof.accused
        require(accused.signature == b"", "the proof's own signature has no place here")
        require(accused.party == self.segment.worker, "the proof accuses somebody else")
        ours = proof.job.task == self.task and proof.job.seed == self.job.order_seed
        require(ours, "the proof is about another job")
        found = self._verify(ground)
        require(found.outcome is not Outcome.INVALID, found.text)
        if found.outcome is Outcome.UNFOUNDED:
            return ""
        where = f"step {found.step}, " if found.step >= 0 else ""
        return f"{where}{found.entry}: {found.text}"

    def _verify(self, ground: WrongOperation) -> Verdict:
        return verify_fraud_proof(ground.proof, committed=[claim_id(ground.proof.accused.claim)])

    def _require_signed(self, claim_of: OtherAnswer | WrongOperation) -> None:
        if isinstance(claim_of, OtherAnswer):
            claim = claim_of.claim
        else:
            claim = claim_of.proof.accused.claim
        require(claim.chunk == self.accusation.chunk, "the answer is about another chunk")
        message = answer_message(self.genesis.chain_id, self.segment, self.accusation.chunk, claim)
        crypto.verify(self.segment.worker, message, claim_of.signature, "trace answer")

    @property
    def task(self) -> Task:
        """The training that the job orders."""
        job = self.job
        return Task(self.plan_bytes, job.steps, job.chunk, job.train_rows, job.test_rows)

    def _trainer(self) -> Trainer:
        data = self._find_file(self.job.dataset)
        if data is None:
            raise NotFound(
                "the worker did not answer, so a whole chunk has to be run again: that takes the "
                "job's dataset, which the file does not carry",
                "fetch it from any node (/v1/data/…) into a folder, and give --data FOLDER",
            )
        require(cid_of(data) == self.job.dataset, "the dataset has other bytes than its id names")
        return Trainer(self.task, Dataset.decode(data), self.job.order_seed)

    def _chunk(self, ground: WrongChunk) -> str:
        state = State.decode(ground.state, self.plan)
        require(state.digest() == self.start, "the state is not the one before the chunk")
        try:
            found, trap = self._trainer().run_chunk(self.accusation.chunk, state).digest(), 0
        except Trap as error:
            found, trap = b"", error.step + 1
        if (found, trap) == (self.end, self.trap):
            return ""
        return f"re-running the chunk gives {found.hex()[:16] or f'a trap at step {trap - 1}'}…"

    def _score(self, data: bytes) -> str:
        commit = self.commit
        is_last = commit.segment == self.job.segments - 1 and not commit.trap
        require(is_last and self.offset == commit.count - 1, "only the last segment has a score")
        state = State.decode(data, self.plan)
        require(state.digest() == commit.end, "the state is not the end of the job")
        try:
            found = self._trainer().evaluate(state)
        except Trap:
            found = None
        return "" if found == commit.metrics else f"evaluating the final state gives {found}"
