"""The shelf of a validator: model files that somebody registered are fetched, examined, announced.

A file that is what was said of it, and for the model of a job what the job left, is announced in
our next precommits; the registry counts a model as usable once a quorum has done so. What others
hold already a new validator fetches as well, so that models stay when validators go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from mlchain.errors import (
    CodecError,
    MlchainError,
    NotFound,
    RejectedProgram,
    VerificationFailed,
)
from mlchain.ledger.content import cid_of, cid_text
from mlchain.ledger.state import State
from mlchain.node.artifacts import MAX_STATE_RESPONSE, Artifacts
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute
from mlchain.node.duties import Duties
from mlchain.node.examiner import RETRY_S
from mlchain.node.rota import Act, Rota, fetching
from mlchain.vm.families.data import DATASETS
from mlchain.vm.families.jobs import JOBS, SEGMENTS, JobState
from mlchain.vm.families.models import MODEL_FILES, UNHELD, ModelFile, is_confirmed

log = structlog.get_logger("shelf")

PLACES = 4
"""Files that are fetched and examined at a time."""
LONGEST_REST_S = 300.0
LOOK_EVERY = 64
"""Rows of the registry between two moments in which something else may run."""


@dataclass
class Shelf:
    """One validator's model files."""

    key: bytes
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    duties: Duties
    poke: Callable[[], None]
    """Called when something waits for a precommit."""
    rota: Rota = field(default_factory=lambda: Rota(PLACES, RETRY_S, LONGEST_REST_S))
    _refused: dict[tuple[bytes, bytes], None] = field(default_factory=dict)
    """Files that are not what was said of them."""
    _voters: tuple[bytes, ...] = ()
    """The validators when we looked last for what others hold and we do not."""
    _lacking: dict[bytes, None] = field(default_factory=dict)

    async def run(self) -> None:
        """Announce every file that is looked for and right, as it can be had; for ever."""
        await self.rota.run(self._find)

    async def _find(self) -> Mapping[bytes, Act]:
        voters = self.chain.validators
        if self.key not in voters:  # nothing we say counts
            return {}
        state = self.chain.state()
        if voters.keys != self._voters:
            self._lacking = await self._find_lacking(state)
            self._voters = voters.keys
        wanted = {content: None for (_, content), _ in UNHELD.items(state)}
        due: dict[bytes, Act] = {}
        for content in (*wanted, *self._lacking):
            file = MODEL_FILES.get(state, content)
            if file is None or self.key in file.holders:
                self._lacking.pop(content, None)
            elif not (
                (content, file.facts) in self._refused
                or self.duties.is_announced(content, file.facts)
            ):
                due[content] = partial(self._try, state, content, file)
        return due

    async def _find_lacking(self, state: State) -> dict[bytes, None]:
        """Return the files that some honest validator holds, and we do not: they can be had."""
        lacking: dict[bytes, None] = {}
        for number, ((content,), file) in enumerate(MODEL_FILES.items(state)):
            if self.key not in file.holders and is_confirmed(file, self.chain.validators):
                lacking[content] = None
            if number % LOOK_EVERY == 0:
                await trio.lowlevel.checkpoint()
        return lacking

    async def fetch(self, content: bytes, file: ModelFile) -> bytes:
        """Return the bytes of a registered model file.

        Raises: as `Artifacts.fetch_content`.
        """
        with fetching(file.size):
            return await self.artifacts.fetch_content(content, file.size)

    async def _try(self, state: State, content: bytes, file: ModelFile) -> None:
        try:
            await self._hold(state, content, file)
        except VerificationFailed as error:
            log.warning("model-differs", content=cid_text(content), reason=error.message)
            self._refused[content, file.facts] = None
        except MlchainError as error:
            log.info("model-not-held", content=cid_text(content), reason=error.message)
            raise

    async def _hold(self, state: State, content: bytes, file: ModelFile) -> None:
        data = await self.fetch(content, file)
        try:
            found = await self.compute.load_model(data)
        except (CodecError, RejectedProgram) as error:
            raise VerificationFailed(error.message) from error
        facts = (len(data), found.features, found.outputs, found.answer, found.gas)
        said = (file.size, file.features, file.outputs, file.answer, file.gas)
        if facts != said:
            raise VerificationFailed(f"it is {facts}, not {said}")
        if file.job:
            await self._check_job(state, content, file.job)
        self.duties.add_available(content, file.facts)
        log.info("model-held", content=cid_text(content))
        self.poke()

    async def _check_job(self, state: State, content: bytes, job_id: bytes) -> None:
        """Make the model of a job again and compare.

        Raises:
            VerificationFailed: it is another one.
        """
        job = JOBS.get(state, job_id)
        if job is None or job.state != JobState.SETTLED:
            raise VerificationFailed("its job has no model")
        last = SEGMENTS.get(state, job_id, job.segments - 1)
        if last is None:
            raise NotFound("the last segment of its job")
        dataset = DATASETS.get(state, job.dataset)
        assert dataset is not None, "a job's dataset is registered before it"
        with fetching(MAX_STATE_RESPONSE + dataset.size):
            end = await self.artifacts.fetch_end(last)
            await self.artifacts.hold_content(job.dataset, dataset.size)
        handle, _ = await self.artifacts.load(state, job, self.compute)
        if cid_of(await self.compute.model(handle, end)) != content:
            raise VerificationFailed("its job made another model")
