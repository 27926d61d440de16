"""The answerer: has the models of the registry ready, and what is asked of them computed.

It works off the main loop, in an ML process of its own, so that an answer never waits for an audit.
An answer is bound by a commitment first, and shown when the chain has fixed who is bound
(`consensus.work.answers`). The salt follows from our key: a crash takes nothing that cannot be
made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

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
from mlchain.ledger.unixfs import cid_of
from mlchain.ml_runtime.serving import Outcome, rows_limit
from mlchain.node.artifacts import Artifacts
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute
from mlchain.node.duties import Duties
from mlchain.node.examiner import RETRY_S
from mlchain.node.partitioner import Partitioner
from mlchain.node.rota import Act, Rota, fetching
from mlchain.node.shelf import Shelf
from mlchain.vm.answering import is_answer_of, may_bind
from mlchain.vm.families.data import DATASETS
from mlchain.vm.families.governance import leaving_keys
from mlchain.vm.families.models import MODEL_FILES, ModelFile
from mlchain.vm.families.predictions import (
    OPEN,
    PREDICTIONS,
    ROWS,
    Prediction,
    PredictionState,
)

log = structlog.get_logger("answerer")

PLACES = 8
"""Requests that are worked on at a time: what they need is fetched side by side."""
LONGEST_REST_S = 30.0
MAX_AT_HAND, MAX_AT_HAND_BYTES = 8, 1 << 20


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
    partitioner: Partitioner = field(init=False)
    _answers: dict[bytes, Answer] = field(default_factory=dict)
    """What we computed of the requests at work."""
    _rota: Rota = field(default_factory=lambda: Rota(PLACES, RETRY_S, LONGEST_REST_S))
    _models: dict[bytes, bytes] = field(default_factory=dict)
    _ahead: State | None = None
    """The state after a block that is being voted on, if it asks something."""

    def __post_init__(self) -> None:
        """Have a shelf and a partitioner of our own."""
        self.shelf = Shelf(
            self.key, self.chain, self.artifacts, self.compute, self.duties, self.poke
        )
        self.partitioner = Partitioner(
            self.key, self.chain, self.artifacts, self.compute, self.duties, self.poke
        )

    def on_block(self) -> None:
        """A block is final: show at once what is due, and look for what is new."""
        state, self._ahead = self.chain.state(), None
        if self._answers:
            at_work = {key: None for (key,), _ in OPEN.items(state)}
            self._answers = {k: a for k, a in self._answers.items() if k in at_work}
        for request, answer in self._answers.items():
            self._say(request, answer)
        self.shelf.rota.wake()
        self.partitioner.rota.wake()
        self._rota.wake()

    def look_ahead(self, state: State) -> None:
        """A block is being voted on: begin with what it asks.

        So our precommit for it may bind us already. Should another block become final, that counts
        for nothing: a request's id names model and rows, and what we found holds for any block.
        """
        changed = (PREDICTIONS.get(state, request) for (request,) in PREDICTIONS.changed(state))
        if any(found is not None and found.state == PredictionState.OPEN for found in changed):
            self._ahead = state
            self._rota.wake()

    async def run(self) -> None:
        """Hold what is registered and answer what is asked; for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.shelf.run)
            nursery.start_soon(self.partitioner.run)
            nursery.start_soon(self._rota.run, self._find)

    async def _find(self) -> Mapping[bytes, Act]:
        """Return what is at work and not answered by us, the cheapest first."""
        state, voters = self._ahead or self.chain.state(), self.chain.validators.keys
        if self.key not in voters:  # nothing we say counts any more
            return {}
        due = []
        for (request,), _ in OPEN.items(state):
            prediction = PREDICTIONS.get(state, request)
            if prediction is None or request in self._answers:
                continue
            told = [t.validator for t in prediction.told]
            is_owed = any(b.validator == self.key for b in prediction.bound)
            if self._may_bind(state, prediction) or (is_owed and self.key not in told):
                due.append((prediction.gas, request, prediction))
        due.sort(key=lambda row: row[:2])
        return {
            request: partial(self._answer, state, request, prediction)
            for _, request, prediction in due
        }

    async def _answer(self, state: State, request: bytes, prediction: Prediction) -> None:
        try:
            answer = await self._compute(state, request, prediction)
        except MlchainError as error:
            log.warning("not-answered", request=request.hex()[:8], reason=error.message)
            raise
        self._answers[request] = answer
        self._say(request, answer)
        if self._may_bind(state, prediction):  # not final yet, perhaps
            self._bind(request, answer)
        if self.duties.is_pending:
            self.poke()

    def _may_bind(self, state: State, prediction: Prediction) -> bool:
        """Tell whether to bind ourselves: it is to stay until the answer has been shown."""
        is_free = may_bind(prediction, self.key, self.chain.validators.keys)
        return is_free and self.key not in leaving_keys(state)

    def _bind(self, request: bytes, answer: Answer) -> None:
        digest = answer_digest(answer.outcome, answer.content)
        made = commitment_hash(request, self.key, answer.salt, digest)
        self.duties.add_commitment(Commitment(request, made))

    def _say(self, request: bytes, answer: Answer) -> None:
        """Bind ourselves, or show the answer if we are bound and nobody else can be any more."""
        now = PREDICTIONS.get(self.chain.state(), request)
        if now is None:
            return
        if self._may_bind(self.chain.state(), now):
            self._bind(request, answer)
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
            model = await self._model(prediction.model, file)
            rows, is_evaluation = prediction.rows, prediction.is_evaluation
            found = await self.compute.ask_model(model, data, rows, is_evaluation)
            outcome, answer = Outcome(found.outcome), self.alter(found.answer)
        if outcome != Outcome.ANSWERED:
            return Answer(request, salt, int(outcome), b"", b"")
        if len(answer) <= MAX_VALUE_BYTES:  # it will stand on chain: no disk is waited for
            return Answer(request, salt, int(outcome), cid_of(answer), answer)
        content = await trio.to_thread.run_sync(self.artifacts.content.put, answer)
        return Answer(request, salt, int(outcome), content, b"")

    async def _model(self, content: bytes, file: ModelFile) -> bytes:
        """Return the bytes of a model; of small ones those asked last are at hand."""
        model = self._models.pop(content, None) or await self.shelf.fetch(content, file)
        if len(model) <= MAX_AT_HAND_BYTES:
            self._models[content] = model
        if len(self._models) > MAX_AT_HAND:
            del self._models[next(iter(self._models))]
        return model

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
            with fetching(limit):
                return await self.artifacts.fetch_content(prediction.data, limit)
        except (CodecError, VerificationFailed) as error:  # too many, or no content id
            log.info("rows-refused", request=request.hex()[:8], reason=error.message)
            return None
