"""The shelf of a validator: model files that somebody registered are fetched, examined, announced.

A file that is what was said of it, and for the model of a job what the job left, is announced in
our next precommits; the registry counts a model as usable once a quorum has done so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from mlchain.errors import (
    CodecError,
    MlchainError,
    NotFound,
    RejectedProgram,
    VerificationFailed,
)
from mlchain.ledger.content import cid_of, cid_text
from mlchain.ledger.state import State
from mlchain.node.artifacts import Artifacts
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute
from mlchain.node.duties import Duties
from mlchain.vm.families.jobs import JOBS, SEGMENTS, JobState
from mlchain.vm.families.models import MODEL_FILES, UNHELD, ModelFile

log = structlog.get_logger("shelf")


@dataclass
class Shelf:
    """One validator's model files."""

    key: bytes
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    duties: Duties
    _refused: dict[tuple[bytes, object], None] = field(default_factory=dict)
    """Files that are not what was said of them."""

    async def hold_all(self, state: State) -> None:
        """Announce every file that waits for holders and is here, or can be had, and is right."""
        for (content,), _ in list(UNHELD.items(state)):
            file = MODEL_FILES.get(state, content)
            if file is None or self.key in file.holders or (content, file.facts) in self._refused:
                continue
            try:
                await self._hold(state, content, file)
            except VerificationFailed as error:
                log.warning("model-differs", content=cid_text(content), reason=error.message)
                self._refused[content, file.facts] = None
            except MlchainError as error:
                log.info("model-not-held", content=cid_text(content), reason=error.message)

    async def fetch(self, content: bytes, file: ModelFile) -> bytes:
        """Return the bytes of a registered model file.

        Raises: as `Artifacts.fetch_content`.
        """
        return await self.artifacts.fetch_content(content, file.size)

    async def _hold(self, state: State, content: bytes, file: ModelFile) -> None:
        data = await self.fetch(content, file)
        try:
            found = await self.compute.load_model(data)
        except (CodecError, RejectedProgram) as error:
            raise VerificationFailed(error.message) from error
        facts = (len(data), found.features, found.outputs, found.answer, found.gas)
        if facts != file.facts[:5]:
            raise VerificationFailed(f"it is {facts}, not {file.facts[:5]}")
        if file.job:
            await self._check_job(state, content, file.job)
        self.duties.add_available(content)
        log.info("model-held", content=cid_text(content))

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
        end = await self.artifacts.fetch_end(last)
        handle, _ = await self.artifacts.load(state, job, self.compute)
        if cid_of(await self.compute.model(handle, end)) != content:
            raise VerificationFailed("its job made another model")
