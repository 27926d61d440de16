"""Accusations that rest on a chain: each ground, honest work, and whatever is altered in a file."""

from __future__ import annotations

import random
from functools import cache

import pytest
from factories import GrowingChain, make_chain, nudge
from msgspec.structs import replace

from mlchain import codec
from mlchain.client import accusation as judging
from mlchain.client.accusation import judge_accusation
from mlchain.crypto import digest
from mlchain.errors import InvalidSignature, MlchainError, NotFound, VerificationFailed
from mlchain.ml_runtime.proof import Accused, Accuser, Outcome, SignedClaim, Tracer, claim_id
from mlchain.ml_runtime.proof.trace import ChunkTrace
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

FORGED = 2
"""The chunk that is forged where one is."""


class Trial:
    """A committed segment, honest or not, and the ways to accuse it."""

    def __init__(self, kind: str = "honest") -> None:
        self.chain: GrowingChain = make_chain(4, 1)
        self.job_id = self.chain.submit()
        self.chain.start(self.job_id)
        lies = {
            "start": lambda commit: replace(commit, start=digest("test-start")),
            "score": lambda commit: replace(
                commit, metrics=replace(commit.metrics, correct=0) if commit.metrics else None
            ),
            "end": lambda commit: replace(commit, end=digest("test-end")),
        }
        forge = (
            (lambda chunk, state: nudge(state) if chunk == FORGED else state)
            if (kind == "chunk")
            else None
        )
        while True:
            self.segment = self.chain.commit_segment(
                self.job_id, forge, lies.get(kind, lambda c: c)
            )
            self.index = self.chain.job(self.job_id).hard
            assert self.segment.commit is not None
            self.commit = self.segment.commit
            if kind != "score" or self.commit.metrics:
                break
            self.chain.finish_segment(self.job_id)
        self.job = self.chain.job(self.job_id)
        self.trainer = self.chain.trainer(self.job)
        self.dataset = self.chain.content.get(self.job.dataset)
        self.worker = self.chain._key_of(self.segment.worker)

    @property
    def last(self) -> int:
        return self.job.segment_range(self.index)[0] + self.commit.count - 1

    def state(self, chunk: int) -> bytes:
        """The state before a chunk, honest up to there."""
        found = self.trainer.initial_state()
        for index in range(chunk):
            found = self.trainer.run_chunk(index, found)
        return found.encode()

    def file(self, chunk: int, ground: Ground) -> Accusation:
        data = self.chain.content.get(self.commit.leaves_content)
        leaves = tuple(data[i : i + 32] for i in range(0, len(data), 32))
        made = make_accusation(self.chain.store, self.job_id, self.index, chunk, leaves)
        return replace(made, ground=ground)

    def judge(self, made: Accusation, with_data: bool = True):
        found = self.dataset if with_data else None
        return judge_accusation(made, self.chain.genesis, lambda content: found)

    def trace(self, chunk: int) -> ChunkTrace:
        task = self.trainer.task
        tracer = Tracer(task, self.trainer.dataset, self.trainer.seed)
        state = tracer.trainer.initial_state()
        for index in range(chunk):
            state = tracer.trainer.run_chunk(index, state)
        return tracer.trace(chunk, state)

    def sign(self, chunk: int, claim, chain_id: str = "") -> bytes:
        chain_id = chain_id or self.chain.genesis.chain_id
        return self.worker.sign(answer_message(chain_id, self.segment, chunk, claim))


@pytest.fixture(autouse=True)
def _same_tables(monkeypatch):
    """To compare the tables with the genesis takes a second each time, and is tested elsewhere."""
    monkeypatch.setattr(judging, "check_registry", lambda genesis: None)


@cache
def trial(kind: str = "honest") -> Trial:
    return Trial(kind)


# ---- each ground ------------------------------------------------------------------------------


def test_a_forged_chunk_is_shown_by_running_it_again():
    case = trial("chunk")
    made = case.file(FORGED, WrongChunk(case.state(FORGED)))
    found = case.judge(made)
    assert (found.outcome, found.ground, found.chunk) == (Outcome.FRAUD, "chunk", FORGED)
    assert found.worker == case.segment.worker and "re-running the chunk gives" in found.text
    with pytest.raises(NotFound, match="did not answer"):
        case.judge(made, with_data=False)


def test_an_honest_trace_of_a_forged_chunk_contradicts_the_commit():
    case = trial("chunk")
    claim = case.trace(FORGED).claim
    made = case.file(FORGED, OtherAnswer(claim, case.sign(FORGED, claim)))
    found = case.judge(made, with_data=False)
    assert (found.outcome, found.ground) == (Outcome.FRAUD, "answer")


def test_a_trace_bent_to_fit_the_forged_end_has_one_wrong_operation():
    """The liar claims the honest trace but for its end: what it signs first differs there."""
    case = trial("chunk")
    honest, opened = case.trace(FORGED), case.file(FORGED, WrongEnd()).after
    assert opened is not None
    entries = [list(step) for step in honest.entries]
    entries[-1][-1] = opened.state
    lie = ChunkTrace(honest.layout, honest.job, honest.chunk, honest.start, tuple(entries))
    tracer = Tracer(case.trainer.task, case.trainer.dataset, case.trainer.seed)
    state = tracer.trainer.initial_state()
    for index in range(FORGED):
        state = tracer.trainer.run_chunk(index, state)
    accuser = Accuser(tracer, state, SignedClaim(lie.claim, case.segment.worker, b""))
    proof = accuser.prove(Accused(lie, accuser.mine.claim).answer)
    made = case.file(FORGED, WrongOperation(proof, case.sign(FORGED, lie.claim)))
    found = case.judge(made, with_data=False)
    assert (found.outcome, found.ground) == (Outcome.FRAUD, "operation")
    for flipped in flips(made):
        assert is_refused(case, flipped)


@pytest.mark.parametrize("kind", ["start", "end", "score"])
def test_what_the_commit_says_beside_its_chunks_is_shown_as_well(kind):
    case = trial(kind)
    grounds = {
        "start": (0, WrongStart()),
        "end": (case.last, WrongEnd()),
        "score": (case.last, WrongScore(case.chain.content.get(case.commit.end_content))),
    }
    found = case.judge(case.file(*grounds[kind]))
    assert (found.outcome, found.ground) == (Outcome.FRAUD, kind)


# ---- honest work ------------------------------------------------------------------------------


def honest_grounds() -> list[tuple[int, Ground]]:
    case = trial()
    claim = case.trace(1).claim
    return [
        (0, WrongStart()),
        (case.last, WrongEnd()),
        (1, WrongChunk(case.state(1))),
        (1, OtherAnswer(claim, case.sign(1, claim))),
    ]


@pytest.mark.parametrize("number", range(4))
def test_honest_work_is_right_on_every_ground(number):
    chunk, ground = honest_grounds()[number]
    assert trial().judge(trial().file(chunk, ground)).outcome is Outcome.UNFOUNDED


def test_an_answer_about_another_place_is_not_the_workers():
    """It committed to something else on another chain, and said so there."""
    case = trial()
    claim = replace(case.trace(1).claim, end=digest("test-elsewhere"))
    made = case.file(1, OtherAnswer(claim, case.sign(1, claim, "test-elsewhere")))
    with pytest.raises(InvalidSignature):
        case.judge(made)


def test_control_without_the_place_in_what_is_signed_it_would_convict_an_honest_worker(monkeypatch):
    monkeypatch.setattr(judging, "answer_message", lambda chain, segment, chunk, c: claim_id(c))
    case = trial()
    claim = replace(case.trace(1).claim, end=digest("test-elsewhere"))
    made = case.file(1, OtherAnswer(claim, case.worker.sign(claim_id(claim))))
    assert case.judge(made).outcome is Outcome.FRAUD


def test_control_without_the_openings_honest_work_would_be_convicted(monkeypatch):
    case = trial()
    made = case.file(1, WrongChunk(case.state(1)))
    assert made.after is not None
    bent = replace(made, after=replace(made.after, state=digest("test-other")))
    with pytest.raises(VerificationFailed, match="list proof"):
        case.judge(bent)
    monkeypatch.setattr(judging, "verify_list_proof", lambda *anything: None)
    assert case.judge(bent).outcome is Outcome.FRAUD


# ---- altered files ----------------------------------------------------------------------------


def flips(made: Accusation, count: int = 60) -> list[bytes]:
    data, draw, found = codec.encode(made), random.Random(7), []
    for _ in range(count):
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        found.append(bytes(flipped))
    return found


def is_refused(case: Trial, data: bytes) -> bool:
    try:
        made = codec.decode(Accusation, data, MAX_ACCUSATION_BYTES)
        return case.judge(made).outcome is not Outcome.FRAUD
    except MlchainError:
        return True


def test_no_flipped_bit_of_a_file_convicts_an_honest_worker_nor_is_a_true_one_left_standing():
    for kind in ("honest", "chunk"):
        case = trial(kind)
        made = case.file(FORGED, WrongChunk(case.state(FORGED)))
        for flipped in flips(made):
            assert is_refused(case, flipped)


def test_the_parts_of_two_files_do_not_fit_together():
    case, other = trial("chunk"), trial()
    made = case.file(FORGED, WrongChunk(case.state(FORGED)))
    for field in ("header", "commit", "job", "plan", "segment"):
        mixed = replace(made, **{field: getattr(other.file(1, WrongEnd()), field)})
        if mixed != made:
            assert is_refused(case, codec.encode(mixed)), field
    with pytest.raises(MlchainError, match="is of chain"):
        genesis = replace(case.chain.genesis, chain_id="test-other")
        judge_accusation(made, genesis)
