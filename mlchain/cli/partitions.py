"""Partitions on the command line: drawing the parts of a dataset, training on them, merging."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.web.answers import Score
from mlchain.web.data_answers import DrawView

if TYPE_CHECKING:
    from mlchain.client.client import Client
    from mlchain.client.jobfile import JobFile
    from mlchain.client.merging import Merged
    from mlchain.client.training import TrainingJob
    from mlchain.crypto import SecretKey

MAX_PARTS = 256
"""As the chain has it; to import that takes numpy."""


class PartScore(TypedDict):
    """What the model of one part is worth on the test rows of the dataset."""

    job: str
    rows: int
    metrics: Score | None


class MergedModel(TypedDict):
    """One model of the parts of a draw, which a quorum of validators made too.

    `error` is the root of the mean squared error in units of the target, null for classes.
    """

    draw: DrawView
    parts: list[PartScore]
    model: str
    model_file: str
    metrics: Score | None
    error: float | None


parts_option = click.option(
    "--partitions",
    "parts",
    type=click.IntRange(2, MAX_PARTS),
    help="Deal the rows to so many parts, by a seed that the chain draws.",
)


@click.command(
    "partition",
    cls=Command,
    answers={"draw": DrawView},
    examples=("mlchain data partition bafkrei… 3 --test-rows 101 --key alice",),
)
@click.argument("cid", metavar="ID")
@click.argument("parts", type=click.IntRange(2, MAX_PARTS))
@click.option(
    "--test-rows",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="So many rows at the end of the dataset are in no draw, and end every part.",
)
@options.signed
@options.wait_option(120)
@click.pass_obj
def partition(
    out: Output,
    cid: str,
    parts: int,
    test_rows: int,
    url: str,
    key_name: str | None,
    keys_dir: Path,
    password_file: Path | None,
    timeout_s: float,
) -> None:
    """Deal the rows of a dataset to PARTS parts.

    ID names the dataset of a job, not a table: `mlchain data add TABLE --partitions` makes it. The
    seed is drawn by the chain two blocks after validators hold the dataset; they make the parts
    themselves and confirm them.
    """
    from mlchain.cli.signing import load_signer
    from mlchain.client.client import Client

    with Client(url) as client:
        chain_id = str(client.status()["chain_id"])
        _, key = load_signer(chain_id, key_name, keys_dir, password_file)
        draw = draw_parts(client, client.data(cid), parts, test_rows, key, out, timeout_s)
    out.result("draw", draw, list(draw_lines(draw)))


def draw_table(
    client: Client,
    table: tuple[Path, str, str, bool],
    parts: int,
    key: SecretKey,
    out: Output,
    timeout_s: float,
) -> dict[str, Any]:
    """Make the dataset of a (file, target, test fraction, is_class) and have it dealt to parts."""
    from mlchain.client.partitions import dataset_of_table

    file, target, fraction, is_class = table
    data, test_rows = dataset_of_table(file, target, Decimal(fraction), is_class)
    return draw_parts(client, data, parts, test_rows, key, out, timeout_s)


def draw_parts(
    client: Client,
    data: bytes,
    parts: int,
    test_rows: int,
    key: SecretKey,
    out: Output,
    timeout_s: float,
) -> dict[str, Any]:
    """Return a draw whose parts are named, drawn now."""
    from mlchain.client import partitions

    draw = partitions.draw_parts(client, data, parts, test_rows, key, timeout_s, out.live)
    out.end_live()
    return draw


def draw_lines(draw: dict[str, Any]) -> Iterator[str]:
    """Yield what the chain knows of a draw, for people."""
    from mlchain.cli.text import good, notice, short, table

    title = f"draw {short(draw['id'])}  {draw['parts']} parts of {draw['dataset']}"
    if draw["state"] != "named":
        yield notice(f"{title}  {draw['state']}")
        return
    yield good(title)
    yield f"  seed        {draw['seed']}, of block #{draw['height']}"
    kept = draw["test_rows"]
    rows = [
        (f"  {number}", part["cid"], str(part["rows"] - kept), str(kept))
        for number, part in enumerate(draw["named"], 1)
    ]
    yield from table(("  part", "content id", "rows", "to test"), rows)
    for merge in draw["merges"]:
        state = "stands" if merge["standing"] else "not confirmed, or revoked"
        yield f"  merged      {merge['model']}  {state}, {len(merge['confirmed_by'])} validators"


def train_parts(
    client: Client,
    job_file: JobFile,
    parts: int,
    key: SecretKey,
    out: Output,
    timeout_s: float,
    model_path: Path | None,
) -> None:
    """Train a job on each part of its dataset, merge the models, and print what came of it."""
    from mlchain.cli.text import good, score_text
    from mlchain.client import merging
    from mlchain.client.partitions import check_draw, find_draw
    from mlchain.client.submit import Terms
    from mlchain.client.training import prepare
    from mlchain.client.userfile import write_file

    job = prepare(job_file, client.data)
    cid = client.put_data(job.dataset)
    draw = find_draw(client, cid, parts, job.test_rows)
    if draw is None:
        draw = draw_parts(client, job.dataset, parts, job.test_rows, key, out, timeout_s)
    check_draw(job.dataset, draw)
    for line in draw_lines(draw):
        out.note(line)
    terms = Terms(job_file.name, job_file.tier, job_file.fee, job_file.seed)
    requests = list(merging.part_jobs(job, draw, terms, job_file.epochs))
    jobs = merging.submit_parts(client, requests, key)
    client.wait(jobs[-1], timeout_s, out.live)
    scores: list[PartScore] = []
    for number, identity in enumerate(jobs, 1):
        found = client.wait_for_job(identity, timeout_s, out.live)
        rows = requests[number - 1].train_rows
        scores.append({"job": identity, "rows": rows, "metrics": found["metrics"]})
        out.note(good(f"part {number}  {rows} rows  {score_text(found['metrics'])}"))
    merged = merging.merge_jobs(client, job, draw, jobs)
    client.wait(merging.send_merge(client, merged, draw, jobs, key), timeout_s, out.live)
    made = merging.wait_for_merge(client, draw["id"], merged.content_id, jobs, timeout_s, out.live)
    out.end_live()
    model_path = model_path or Path(f"{draw['id'][:8]}.model")
    write_file(model_path, merged.model)
    score, error = _score(merged), _error(job, merged)
    unit = f", {error:.4g} in units of the target" if error is not None else ""
    lines = [
        good(f"merged    {len(made['confirmed_by'])} validators made the same file"),
        "",
        f"  {score_text(score)}{unit}",
        f"  model       {merged.content_id}",
        f"  file        {model_path}",
    ]
    document: MergedModel = {
        "draw": client.draw(draw["id"]),  # type: ignore[typeddict-item]
        "parts": scores, "model": merged.content_id, "model_file": str(model_path),
        "metrics": score, "error": error,
    }  # fmt: skip
    out.result("merged", dict(document), lines)


def _score(merged: Merged) -> Score | None:
    """Return the metrics as the API would say them."""
    found = merged.metrics
    if found is None:
        return None
    value = f"{float(found.value):.6f}"
    return {"name": found.name, "correct": found.correct, "total": found.total, "value": value}


def _error(job: TrainingJob, merged: Merged) -> float | None:
    if job.target_scaling is None or merged.metrics is None:
        return None
    spread = float(job.target_scaling.spread[0])
    return round(float(merged.metrics.value) ** 0.5 * spread, 6)
