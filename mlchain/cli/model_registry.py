"""`mlchain model list` and `register`: models under names on the chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlchain.cli import options
from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.web.model_answers import Registry, RegistryRow

if TYPE_CHECKING:
    from mlchain.ml_runtime.model import Model


class Published(RegistryRow):
    """A model that was registered, and the transaction that did it."""

    transaction: str


@click.command(
    "list",
    cls=Command,
    answers={"registry": Registry},
    examples=("mlchain model list", "mlchain model list --json"),
)
@options.url
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.pass_obj
def list_(out: Output, url: str, limit: int) -> None:
    """List the registered models: the last version of each name."""
    from mlchain.cli.text import table
    from mlchain.client.client import Client

    with Client(url) as client:
        rows = client.registry(limit)
    lines = [
        (
            f"{row['name']}@{row['version']}",
            f"{row['features']} -> {row['answer']}",
            row["licence"],
            row["owner"],
            "usable" if row["usable"] else f"held by {len(row['held_by'])}",
            score_of(row),
        )
        for row in rows
    ]
    header = ("model", "reads, answers", "licence", "owner", "state", "score")
    out.result("registry", {"models": rows}, table(header, lines) if rows else ["no models"])


@click.command(
    "register",
    cls=Command,
    answers={"published": Published},
    examples=(
        "mlchain model register cancer.model --name cancer --licence MIT",
        "mlchain model register --job 7f3a --name iris",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--name", required=True, help="Lower case; yours if nobody used it before.")
@click.option("--licence", default="unspecified", show_default=True)
@click.option("--job", "job_id", default="", help="Register the model that this job of yours made.")
@click.option("--parent", default="", help="The registered model that it was made from.")
@click.option("--data", default="", metavar="CID", help="Content id of what it was trained on.")
@options.signed
@options.wait_option(60)
@click.pass_obj
def register(
    out: Output,
    file: Path | None,
    name: str,
    licence: str,
    job_id: str,
    parent: str,
    data: str,
    url: str,
    key_name: str | None,
    keys_dir: Path,
    password_file: Path | None,
    timeout_s: float,
) -> None:
    """Publish a model FILE, or the model of a job, under a name; wait until validators hold it.

    The same name again is its next version. Validators fetch the file, examine it, and for the
    model of a job make it again from what the job left.
    """
    from mlchain.cli.signing import load_signer
    from mlchain.cli.text import good
    from mlchain.client.client import Client
    from mlchain.client.registry import Label, model_of_job, publish
    from mlchain.ml_runtime.model import load_model

    if (file is None) == (job_id == ""):
        raise click.UsageError("give a model FILE, or --job")
    with Client(url) as client:
        chain_id = str(client.status()["chain_id"])
        signer, key = load_signer(chain_id, key_name, keys_dir, password_file)
        job = client.job(job_id) if job_id else None
        model: Model = model_of_job(client, job["id"]) if job else load_model(_given(file))
        if job:
            data = str(job["dataset"])
        parent = str(client.registered(parent)["content"]) if parent else ""
        label = Label(name, licence, parent, data, job["id"] if job else "")
        content, transaction = publish(client, model, label, key)
        out.note(good(f"signed    {name} by {signer}  {content}"))
        client.wait(transaction, timeout_s, out.live)
        row = wait_usable(client, content, name, timeout_s, out)
    out.result("published", {**row, "transaction": transaction}, entry_lines(row))


def wait_usable(client: Any, content: str, name: str, timeout_s: float, out: Output) -> Any:
    """Return the registry's row once a quorum of validators holds the file.

    Raises:
        Timeout: not in time; it may be later.
    """
    import time

    from mlchain.errors import Timeout

    deadline = time.monotonic() + timeout_s
    while not (row := client.registered(content))["usable"]:
        if time.monotonic() >= deadline:
            raise Timeout(
                f"{name} is registered, but held by {len(row['held_by'])} validators only",
                f"mlchain model show {name}",
            )
        out.live(f"  held by {len(row['held_by'])} validators")
        time.sleep(client.poll_s)
    return client.registered(name)


def entry_lines(row: dict[str, Any]) -> Iterator[str]:
    """Yield what the chain knows of a model, for people."""
    from mlchain.cli.text import credits, good, notice

    title = f"{row['name']}@{row['version']}" if row["name"] else row["content"]
    held = f"held by {len(row['held_by'])} validators"
    yield good(f"{title}  usable, {held}") if row["usable"] else notice(f"{title}  {held}")
    yield f"  content     {row['content']}"
    yield f"  reads       {row['features']} features, answers {row['answer']}"
    yield f"  gas         {credits(row['gas'])} a row"
    for name in ("owner", "licence", "job", "parent", "data"):
        if row[name]:
            yield f"  {name:<11} {row[name]}"
    for found in row["evaluations"]:
        yield f"  score       {score_text(found)}, on {found['dataset']}"


def score_of(row: dict[str, Any]) -> str:
    """Return the last score of a registered model in a few words."""
    return score_text(row["evaluations"][-1]) if row["evaluations"] else ""


def score_text(found: dict[str, Any]) -> str:
    """Return one score in words."""
    return f"{found['name']} {found['value']} over {found['total']} rows"


def _given(file: Path | None) -> Path:
    assert file is not None, "checked before"
    return file
