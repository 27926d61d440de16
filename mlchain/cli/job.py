"""`mlchain job`: show jobs and fetch their results."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import click

from mlchain.cli import options, quote
from mlchain.cli.command import Group
from mlchain.cli.output import Output
from mlchain.web.answers import FraudName, JobRow, JobView

STATES = ("submitted", "accepted", "running", "settled", "trapped", "expired", "revoked")


@click.group("job", cls=Group, examples=("mlchain job list", "mlchain job show 7f3a"))
def command() -> None:
    """Show jobs and fetch their results.

    A job is named by its id or by any beginning of it that no other job shares.
    """


command.add_command(quote.command)


class JobList(TypedDict):
    """Jobs, newest first."""

    jobs: list[JobRow]


class JobResult(JobView):
    """A settled job, and where its model and receipt are."""

    model_file: str
    receipt_file: str


class FraudFile(FraudName):
    """A fraud file that was fetched, and what others there are."""

    file: str
    files: list[FraudName]


@command.command("list", answers={"jobs": JobList}, examples=("mlchain job list --state running",))
@options.url
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.pass_obj
def list_jobs(out: Output, url: str, state: str | None, limit: int) -> None:
    """List the newest jobs."""
    from mlchain.cli.text import table
    from mlchain.client.client import Client

    with Client(url) as client:
        jobs = client.jobs(state or "", limit)
    rows = []
    for job in jobs:
        progress = job.get("progress") or {}
        done = f"{progress.get('done_chunks', 0)}/{progress.get('total_chunks', 0)}"
        rows.append((job["id"][:12], job.get("name", ""), job["state"], job["tier"], done))
    lines = table(("job", "name", "state", "tier", "slices"), rows) if rows else ["no jobs"]
    out.result("jobs", {"jobs": jobs}, lines)


@command.command(
    "show",
    answers={"job": JobView},
    examples=("mlchain job show 7f3a", "mlchain job show 7f3a --follow"),
)
@click.argument("job_id", metavar="JOB")
@options.url
@click.option("--follow", is_flag=True, help="Stay until the job is final.")
@options.wait_option(120)
@click.pass_obj
def show(out: Output, job_id: str, url: str, follow: bool, timeout_s: float) -> None:
    """Show where a job stands: its segments, who re-ran them, who was found cheating."""
    from mlchain.cli.text import credits, fault_lines, progress_line, table
    from mlchain.cli.watch import result_lines, watch_job
    from mlchain.client.client import Client

    with Client(url) as client:
        job = watch_job(client, job_id, out, timeout_s) if follow else client.job(job_id)
    lines = [
        f"job {job['id']}  {job.get('name', '')}",
        f"  {job['state']}, tier {job['tier']}, fee {credits(job['fee'])}, {job['steps']} steps",
        progress_line(job),
        "",
    ]
    rows = [
        (
            str(segment["index"] + 1),
            segment["state"],
            segment.get("worker") or "",
            str(len(segment.get("slices") or {})),
            f"{segment.get('chunks_rerun') or 0} of {segment['chunks']}",
            str(segment.get("chunks_reviewed") or 0),
        )
        for segment in job.get("segments", [])
    ]
    lines += [
        "  " + row
        for row in table(("segment", "state", "worker", "checked by", "re-run", "reviewed"), rows)
    ]
    lines += ["", *fault_lines(job["faults"], job)] if job.get("faults") else []
    lines += ["", *result_lines(job)] if job["state"] == "settled" else []
    out.result("job", job, lines)


@command.command(
    "result", answers={"result": JobResult}, examples=("mlchain job result 7f3a -o iris.model",)
)
@click.argument("job_id", metavar="JOB")
@options.url
@click.option(
    "-o",
    "--output",
    "model_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the model goes; by default JOB.model.",
)
@click.option(
    "--receipt",
    "receipt_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the receipt goes; by default JOB.receipt.",
)
@click.pass_obj
def result(
    out: Output, job_id: str, url: str, model_path: Path | None, receipt_path: Path | None
) -> None:
    """Fetch a settled job's model, score and receipt."""
    from mlchain.cli.text import dim
    from mlchain.cli.watch import result_lines
    from mlchain.client.client import Client
    from mlchain.client.userfile import write_file
    from mlchain.errors import NotFound

    with Client(url) as client:
        job = client.job(job_id)
        if job["state"] != "settled":
            raise NotFound(
                f"job {job['id'][:8]} has no result: it is {job['state']}",
                f"mlchain job show {job['id'][:8]} --follow",
            )
        model_path = model_path or Path(f"{job['id'][:8]}.model")
        receipt_path = receipt_path or Path(f"{job['id'][:8]}.receipt")
        write_file(model_path, client.model(job["id"]), "name another file with -o")
        write_file(receipt_path, client.receipt(job["id"]), "name another file with --receipt")
    files = {"model_file": str(model_path), "receipt_file": str(receipt_path)}
    lines = [
        *result_lines(job),
        f"  saved       {model_path}",
        f"  receipt     {receipt_path}    " + dim(f"mlchain audit {receipt_path} --genesis FILE"),
    ]
    out.result("result", {**job, **files}, lines)


@command.command(
    "fraud",
    answers={"fraud-file": FraudFile},
    examples=("mlchain job fraud 7f3a -o birch.fraud", "mlchain job fraud 7f3a --chunk 12"),
)
@click.argument("job_id", metavar="JOB")
@options.url
@click.option("--segment", type=click.IntRange(0), help="Only about this segment, from 0.")
@click.option("--chunk", type=click.IntRange(0), help="Only about this chunk of the job, from 0.")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the file goes; by default JOB-CHUNK.fraud.",
)
@click.pass_obj
def fraud(
    out: Output, job_id: str, url: str, segment: int | None, chunk: int | None, path: Path | None
) -> None:
    """Fetch a file that shows a worker of the job to have committed to something wrong.

    Validators that judged a disputed chunk make one; `mlchain audit` checks it, offline.
    """
    from mlchain.cli.text import dim
    from mlchain.client.client import Client
    from mlchain.client.userfile import write_file
    from mlchain.errors import NotFound

    with Client(url) as client:
        job = client.job(job_id)
        found = [
            row
            for row in client.frauds(job["id"])
            if segment in (None, row["segment"]) and chunk in (None, row["chunk"])
        ]
        if not found:
            raise NotFound(
                f"this node made no such file about job {job['id'][:8]}",
                "only a validator that judged a disputed chunk has one: ask another",
            )
        row = found[-1]
        path = path or Path(f"{job['id'][:8]}-{row['chunk']}.fraud")
        data = client.fraud(job["id"], row["segment"], row["attempt"], row["chunk"])
        write_file(path, data, "name another file with -o")
    lines = [
        f"  saved       {path}    " + dim(f"mlchain audit {path} --genesis FILE"),
        *(f"  also        chunk {other['chunk']}" for other in found[:-1]),
    ]
    out.result("fraud-file", {**row, "file": str(path), "files": found}, lines)
