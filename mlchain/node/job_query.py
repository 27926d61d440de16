"""What people and programs may ask of jobs, their models and their receipts."""

from __future__ import annotations

from typing import Protocol

from mlchain.errors import CodecError, NotFound
from mlchain.ledger.block import SegmentRef
from mlchain.ledger.content import ContentStore
from mlchain.node.chain import Chain
from mlchain.node.job_view import JobViews, ProgressSource
from mlchain.node.membership import Names
from mlchain.node.plain import Json, parse_hash, to_json
from mlchain.vm.families.jobs import JOBS, Job, JobState
from mlchain.vm.families.members import MEMBERS
from mlchain.vm.families.models import MODELS
from mlchain.vm.prediction_receipt import PredictionReceipt, make_prediction_receipt
from mlchain.vm.receipt import Receipt, attach_files, make_receipt

MAX_ROWS = 1_000
"""Most rows of one list."""


class Working(Protocol):
    """Tells what the node's own worker does. `Node` fits."""

    worker: ProgressSource | None


class JobQuery:
    """The part of `query.Query` that concerns jobs."""

    def __init__(self, chain: Chain, content: ContentStore, node: Working) -> None:
        self._chain = chain
        self._content = content
        self._worker = node.worker
        self._names = Names(chain.state)
        self._jobs = JobViews(self._names, self._role_of)

    def _role_of(self, key: bytes) -> str:
        member = MEMBERS.get(self._chain.state(), key)
        return member.role if member else ""

    def jobs(self, state: str = "", limit: int = 50, before: str = "") -> tuple[list[Json], str]:
        """Return the newest jobs without their segments, and the cursor of the next page.

        All, or those in one state; `before` is such a cursor: the id of the last job seen. The
        cursor is empty after the last page.

        Raises:
            CodecError: no such state, or no id.
            NotFound: no job has the id.
        """
        known = [name.lower() for name in JobState.__members__]
        if state and state not in known:
            raise CodecError(f"no job state {state!r}", f"one of {', '.join(known)}")
        view = self._chain.state()
        found = [
            (job.submitted_ms, key[0], job)
            for key, job in JOBS.items(view)
            if not state or job.state == JobState[state.upper()]
        ]
        if before:
            mark = parse_hash(before, "a job id")
            last = JOBS.get(view, mark)
            if last is None:
                raise NotFound(f"no job {before}", "a cursor is the last id of the page before")
            found = [row for row in found if row[:2] < (last.submitted_ms, mark)]
        found.sort(key=lambda row: row[:2], reverse=True)
        page = found[: min(limit, MAX_ROWS)]
        rows = [to_json(self._jobs.row(view, job_id, job, self._worker)) for _, job_id, job in page]
        return rows, page[-1][1].hex() if len(page) < len(found) else ""

    def count_jobs(self) -> dict[str, int]:
        """Return how many jobs there are in each state. It reads all of them."""
        counts = dict.fromkeys((name.lower() for name in JobState.__members__), 0)
        for _, job in JOBS.items(self._chain.state()):
            counts[JobState(job.state).name.lower()] += 1
        return counts

    def job(self, text: str) -> Json:
        """Return a job, named by its id or a beginning of it that no other job shares.

        Raises:
            NotFound: no such job, or more than one.
        """
        job_id, job = self.find_job(text)
        return to_json(self._jobs.whole(self._chain.state(), job_id, job, self._worker))

    def find_job(self, text: str) -> tuple[bytes, Job]:
        """Return (id, job) of an id or a unique beginning of one.

        Raises:
            NotFound: no such job, or more than one.
        """
        text = text.lower()
        is_hex = text != "" and all(digit in "0123456789abcdef" for digit in text)
        prefix = bytes.fromhex(text[: len(text) & ~1]) if is_hex else b""
        rows = JOBS.items(self._chain.state(), prefix) if is_hex else iter(())
        found = [(key[0], job) for key, job in rows if key[0].hex().startswith(text)]
        if not found:
            raise NotFound(f"no job {text[:80]!r}", "a job's id is hex digits: mlchain job list")
        if len(found) > 1:
            raise NotFound(f"{len(found)} jobs begin with {text}", "give more digits")
        return found[0]

    def model(self, text: str) -> bytes:
        """Return the content id of the encoded final state of a settled job.

        Raises:
            NotFound: no such job, or it has no model.
        """
        job_id, job = self.find_job(text)
        model = MODELS.get(self._chain.state(), job_id)
        if model is None:
            state = JobState(job.state).name.lower()
            raise NotFound(f"job {job_id.hex()[:8]} has no model: it is {state}")
        return model.content

    def models(self, limit: int = 50, before: str = "") -> tuple[list[Json], str]:
        """Return the newest models and the cursor of the next page, as `jobs` does.

        Raises:
            CodecError, NotFound: `before` is not the job of a model.
        """
        view = self._chain.state()
        found = [(model.height, key[0]) for key, model in MODELS.items(view)]
        if before:
            mark = parse_hash(before, "a job id")
            last = MODELS.get(view, mark)
            if last is None:
                raise NotFound(f"no model {before}", "a cursor is the last job of the page before")
            found = [row for row in found if row < (last.height, mark)]
        found.sort(reverse=True)
        page = found[: min(limit, MAX_ROWS)]
        rows = [to_json(self._jobs.model(view, job_id)) for _, job_id in page]
        return rows, page[-1][1].hex() if len(page) < len(found) else ""

    def receipt(self, job_id: bytes, has_files: bool = True) -> Receipt:
        """Return the proof of a job that ended. It reads much: a thread may do it.

        Raises:
            NotFound: no such job, or it has not ended with a result.
        """
        found = make_receipt(self._chain.store, job_id)
        return attach_files(found, self._content) if has_files else found

    def prediction_receipt(self, request: bytes) -> PredictionReceipt:
        """Return the proof of an answer, with the files that are here. A thread may do it.

        Raises:
            NotFound: no such request, or it has no answer.
        """
        return make_prediction_receipt(self._chain.store, self._content, request)

    def seen(self, ref: SegmentRef) -> tuple[tuple[int, ...], int]:
        """Return which chunks of a segment somebody re-ran, and how many it has."""
        return self._jobs.seen(self._chain.state(), ref)
