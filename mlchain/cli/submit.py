"""`mlchain submit-job`: from a TOML file to a verified model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.cli.partitions import MergedModel, parts_option, train_parts
from mlchain.web.answers import JobView

if TYPE_CHECKING:
    from mlchain.client.client import Client
    from mlchain.client.jobfile import JobFile
    from mlchain.crypto import SecretKey


class SubmittedJob(TypedDict):
    """A job that a block includes."""

    id: str
    chain_id: str


class FollowedJob(JobView):
    """A job that settled, and where its receipt is."""

    receipt_file: str


@click.command(
    "submit-job",
    cls=Command,
    answers={"submitted": SubmittedJob, "followed": FollowedJob, "merged": MergedModel},
    examples=(
        "mlchain submit-job examples/iris.toml --follow",
        "mlchain submit-job heart.toml --key alice --json",
        "mlchain submit-job examples/boston.toml --partitions 3",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@options.signed
@click.option("--follow", is_flag=True, help="Stay until the job is final, and show the proof.")
@click.option(
    "--receipt",
    "receipt_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the receipt goes with --follow; by default JOB.receipt.",
)
@parts_option
@click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the merged model goes with --partitions; by default DRAW.model.",
)
@options.wait_option(120)
@click.pass_obj
def command(
    out: Output,
    file: Path,
    url: str,
    key_name: str | None,
    keys_dir: Path,
    password_file: Path | None,
    follow: bool,
    receipt_path: Path | None,
    parts: int | None,
    model_path: Path | None,
    timeout_s: float,
) -> None:
    """Sign a training job, send it, and watch it being verified.

    FILE is a TOML job file; examples/iris.toml explains its keys. With --partitions the rows are
    dealt to parts by a seed that the chain draws, one job trains on each part, and their models
    are merged to one that validators make again.
    """
    from mlchain.cli.signing import load_signer
    from mlchain.client.client import Client
    from mlchain.client.jobfile import load_job_file

    job_file = load_job_file(file)
    with Client(url) as client:
        chain_id = str(client.status()["chain_id"])
        name, key = load_signer(chain_id, key_name, keys_dir, password_file)
        if parts is not None:
            train_parts(client, job_file, parts, key, out, timeout_s, model_path)
            return
        identity = submit(client, job_file, key, name, out, timeout_s)
        if follow:
            finish(client, identity, out, timeout_s, receipt_path)
        else:
            text = [identity, f"  mlchain job show {identity[:8]} --follow"]
            out.result("submitted", {"id": identity, "chain_id": chain_id}, text)


def submit(
    client: Client, job_file: JobFile, key: SecretKey, name: str, out: Output, timeout_s: float
) -> str:
    """Upload the data, sign and send the job, wait until a block holds it; return the job's id."""
    from mlchain.cli.text import credits, good, short
    from mlchain.client.submit import Terms, submit_job
    from mlchain.client.training import prepare

    job = prepare(job_file, client.data)
    cid = client.put_data(job.dataset)
    out.note(
        good(
            f"data      {job_file.source}  {short(cid)}  {len(job.dataset) / 1000:.1f} kB, "
            f"{job.train_rows} rows to train, {job.test_rows} to test"
        )
    )
    terms = Terms(job_file.name, job_file.tier, job_file.fee, job_file.seed)
    identity = submit_job(client, job, cid, terms, key)
    out.note(good(f"signed    job {identity[:8]} by {name}, fee {credits(job_file.fee)}"))
    started = time.monotonic()
    found = client.wait(identity, timeout_s, out.live)
    out.note(good(f"included  block #{found['height']} after {time.monotonic() - started:.1f} s"))
    return identity


def finish(
    client: Client, identity: str, out: Output, patience_s: float, receipt_path: Path | None
) -> dict[str, Any]:
    """Follow the job to its end, save its receipt, and print what was verified; return the job."""
    from mlchain.cli.text import dim
    from mlchain.cli.watch import result_lines, watch_job
    from mlchain.client.userfile import write_file

    job = watch_job(client, identity, out, patience_s)
    receipt_path = receipt_path or Path(f"{identity[:8]}.receipt")
    write_file(receipt_path, client.receipt(identity))
    lines = [
        *result_lines(job),
        f"  receipt     {receipt_path}    " + dim(f"mlchain audit {receipt_path} --genesis FILE"),
        f"  details     {client.url}/v1/jobs/{identity[:8]}",
    ]
    out.result("followed", {**job, "receipt_file": str(receipt_path)}, lines)
    return job
