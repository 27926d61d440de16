"""Jobs, and what they leave behind."""

from __future__ import annotations

import trio
from fastapi import FastAPI, Request
from starlette.responses import Response

from mlchain import codec
from mlchain.errors import NotFound
from mlchain.node.prosecution import CaseName
from mlchain.web import answers
from mlchain.web.node_api import Height, JobCursor, Limit, NodeApi, StateName
from mlchain.web.openapi import BYTES, says
from mlchain.web.replies import as_json, send_content

MAX_RECEIPTS = 2
"""Receipts made at a time; others wait for their turn."""


def add_jobs(app: FastAPI, node: NodeApi) -> None:
    """Add jobs and their models."""

    @app.get(
        "/v1/jobs",
        summary="Jobs, newest first, after the one `before`; all, or those in one state",
        **says(answers.Jobs, 404, 422),
    )
    async def jobs(state: StateName = "", limit: Limit = 50, before: JobCursor = "") -> Response:
        rows, cursor = node.query.jobs(state, limit, before)
        return as_json({"jobs": rows, "before": cursor or None})

    @app.get(
        "/v1/models",
        summary="Models, newest first, after that of the job `before`",
        **says(answers.Models, 404, 422),
    )
    async def models(limit: Limit = 50, before: JobCursor = "") -> Response:
        rows, cursor = node.query.models(limit, before)
        return as_json({"models": rows, "before": cursor or None})

    @app.get(
        "/v1/jobs/{job}",
        summary="A job, by its id or a unique beginning of it",
        **says(answers.JobView, 404, 422),
    )
    async def job(job: str) -> Response:
        return as_json(node.query.job(job))

    @app.get(
        "/v1/jobs/{job}/model",
        summary="The encoded final state",
        **says(BYTES, 404, 422, is_tagged=True, is_ranged=True),
    )
    async def model(request: Request, job: str) -> Response:
        content = node.query.model(job)
        await node.gather_files(node.query.find_job(job)[0])
        return await send_content(request, node.content, content, {})


def add_receipts(app: FastAPI, node: NodeApi) -> None:
    """Add what shows to others that a job was done, or forged."""
    turn = trio.CapacityLimiter(MAX_RECEIPTS)

    @app.get(
        "/v1/jobs/{job}/receipt",
        summary="The job's proof; without its files if files=false",
        **says(BYTES, 404, 422),
    )
    @app.get("/v1/proofs/{job}", summary="The same as the job's receipt", **says(BYTES, 404, 422))
    async def receipt(job: str, files: bool = True) -> Response:
        job_id, _ = node.query.find_job(job)

        def make() -> bytes:
            return codec.encode(node.query.receipt(job_id, files))

        if files:
            await node.gather_files(job_id)
        return Response(await trio.to_thread.run_sync(make, limiter=turn), media_type=BYTES)

    @app.get(
        "/v1/jobs/{job}/fraud",
        summary="The fraud files this node made about a job",
        **says(answers.FraudFiles, 404, 422),
    )
    async def fraud(job: str) -> Response:
        job_id, _ = node.query.find_job(job)
        names = await trio.to_thread.run_sync(lambda: list(node.cases.names(job_id)))
        return as_json({"files": [name._asdict() | {"job": name.job.hex()} for name in names]})

    @app.get(
        "/v1/jobs/{job}/fraud/{segment}/{attempt}/{chunk}",
        summary="One fraud file",
        **says(BYTES, 404, 422),
    )
    async def fraud_file(job: str, segment: Height, attempt: Height, chunk: Height) -> Response:
        job_id, _ = node.query.find_job(job)
        name = CaseName(job_id, segment, attempt, chunk)
        data = await trio.to_thread.run_sync(node.cases.read, name, limiter=turn)
        if data is None:
            raise NotFound(f"no fraud file about chunk {chunk} here", "ask another validator")
        return Response(data, media_type=BYTES)
