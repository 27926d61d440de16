"""The answerer: has the models of the registry ready, and what is asked of them computed.

It works off the main loop, in an ML process of its own, so that an answer never waits for an audit.
An answer is bound by a commitment first, and shown when the chain has fixed who is bound
(`consensus.work.answers`). The salt follows from our key: a crash takes nothing that cannot be
made again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
import trio

from mlchain import crypto
from mlchain.consensus.work.answers import (
    MAX_VALUE_BYTES,
    Answer,
    Commitment,
    answer_digest,
    commitment_hash,
)
from mlchain.errors import CodecError, MlchainError, VerificationFailed
from mlchain.ledger.state import State
from mlchain.ml_runtime.serving import Outcome, rows_limit
from mlchain.node.artifacts import Artifacts
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute
from mlchain.node.duties import Duties
from mlchain.node.examiner import RETRY_S
from mlchain.node.shelf import Shelf
from mlchain.vm.answering import is_answer_of, may_bind
from mlchain.vm.families.data import DATASETS
from mlchain.vm.families.models import MODEL_FILES, ModelFile
from mlchain.vm.families.predictions import OPEN, PREDICTIONS, ROWS, Prediction

log = structlog.get_logger("answerer")


@dataclass
class Answerer:
    """One validator's part in the registry of models and in predictions."""

    key: bytes
    secret: bytes
    """Makes the salts; nobody else knows it."""
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    duties: Duties
    poke: Callable[[], None]
    """Called when something waits for a precommit."""
    alter: Callable[[bytes], bytes] = lambda answer: answer
    """What a cheat makes of an answer."""
    shelf: Shelf = field(init=False)
    _answers: dict[bytes, Answer] = field(default_factory=dict)
    """What we computed of the requests at work."""
    _wakes: dict[str, trio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Have a shelf of our own."""
        self.shelf = Shelf(self.key, self.chain, self.artifacts, self.compute, self.duties)

    def on_block(self) -> None:
        """A block is final: show at once what is due, and look for what is new."""
        state = self.chain.state()
        if self._answers:
            at_work = {key: None for (key,), _ in OPEN.items(state)}
            self._answers = {k: a for k, a in self._answers.items() if k in at_work}
        for request, answer in self._answers.items():
            self._say(request, answer)
        for wake in self._wakes.values():
            wake.set()

    async def run(self) -> None:
        """Hold what is registered and answer what is asked; for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._repeat, "models", self.shelf.hold_all)
            nursery.start_soon(self._repeat, "requests", self._answer_all)

    async def _repeat(self, name: str, act: Callable[[State], Awaitable[None]]) -> None:
        while True:
            wake = self._wakes[name] = trio.Event()
            if self.key in self.chain.validators:  # else nothing we say counts any more
                await act(self.chain.state())
                if self.duties.is_pending:
                    self.poke()
            with trio.move_on_after(RETRY_S):
                await wake.wait()

    async def _answer_all(self, state: State) -> None:
        """Compute what is at work and not answered by us, the cheapest first."""
        voters = self.chain.validators.keys
        due = []
        for (request,), _ in OPEN.items(state):
            prediction = PREDICTIONS.get(state, request)
            if prediction is None or request in self._answers:
                continue
            told = [t.validator for t in prediction.told]
            is_owed = any(b.validator == self.key for b in prediction.bound)
            if may_bind(prediction, self.key, voters) or (is_owed and self.key not in told):
                due.append((prediction.gas, request, prediction))
        for _, request, prediction in sorted(due, key=lambda row: row[:2]):
            try:
                answer = await self._compute(state, request, prediction)
            except MlchainError as error:
                log.warning("not-answered", request=request.hex()[:8], reason=error.message)
                continue
            self._answers[request] = answer
            self._say(request, answer)

    def _say(self, request: bytes, answer: Answer) -> None:
        """Bind ourselves, or show the answer if we are bound and nobody else can be any more."""
        now = PREDICTIONS.get(self.chain.state(), request)
        if now is None:
            return
        if may_bind(now, self.key, self.chain.validators.keys):
            digest = answer_digest(answer.outcome, answer.content)
            made = commitment_hash(request, self.key, answer.salt, digest)
            self.duties.add_commitment(Commitment(request, made))
        elif is_answer_of(now, self.key, answer):
            self.duties.add_answer(answer)

    async def _compute(self, state: State, request: bytes, prediction: Prediction) -> Answer:
        """Return our answer to a request.

        Raises:
            MlchainError: the model or the rows cannot be had, or our ML process failed.
        """
        file = MODEL_FILES.get(state, prediction.model)
        assert file is not None, "requests are about registered models"
        salt = crypto.digest("mlchain/salt", self.secret, request)
        data = await self._rows(state, request, prediction, file)
        outcome, answer = Outcome.INVALID_ROWS, b""
        if data is not None:
            model = await self.shelf.fetch(prediction.model, file)
            rows, is_evaluation = prediction.rows, prediction.is_evaluation
            found = await self.compute.ask_model(model, data, rows, is_evaluation)
            outcome, answer = Outcome(found.outcome), self.alter(found.answer)
        if outcome != Outcome.ANSWERED:
            return Answer(request, salt, int(outcome), b"", b"")
        content = await trio.to_thread.run_sync(self.artifacts.content.put, answer)
        value = answer if len(answer) <= MAX_VALUE_BYTES else b""
        return Answer(request, salt, int(outcome), content, value)

    async def _rows(
        self, state: State, request: bytes, prediction: Prediction, file: ModelFile
    ) -> bytes | None:
        """Return the bytes that are asked about, None if there can be no such bytes.

        Raises:
            NotFound, Unreachable, Timeout: nobody gave them.
        """
        if (inline := ROWS.get(state, request)) is not None:
            return inline.data
        dataset = DATASETS.get(state, prediction.data) if prediction.is_evaluation else None
        limit = dataset.size if dataset else rows_limit(prediction.rows, file.features)
        try:
            return await self.artifacts.fetch_content(prediction.data, limit)
        except (CodecError, VerificationFailed) as error:  # too many, or no content id
            log.info("rows-refused", request=request.hex()[:8], reason=error.message)
            return None
