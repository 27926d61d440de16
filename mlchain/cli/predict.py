"""`mlchain predict`: ask a model; validators compute, agree and certify the answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.web.model_answers import PredictionView

if TYPE_CHECKING:
    from mlchain.client.client import Client

MAX_SHOWN = 10


class Answered(PredictionView):
    """A certified answer; `all_answers` has one entry a row."""

    all_answers: list[Any]
    seconds: float
    receipt_file: NotRequired[str]


class LocalAnswer(TypedDict):
    """What a model says here, certified by nobody."""

    model: str
    answers: list[Any]


@click.command(
    "predict",
    cls=Command,
    answers={"prediction": Answered, "local-prediction": LocalAnswer},
    examples=(
        "mlchain predict --model cancer --row 5.1,3.5,1.4,0.2 --tip 5",
        "mlchain predict --model cancer@2 --rows patients.csv --tier drawn:2 --receipt p.receipt",
        "mlchain predict --model cancer.model --rows patients.json --local",
    ),
)
@click.option("--model", "model_name", required=True, help="NAME, NAME@VERSION or content id.")
@click.option("--row", default="", help="One row: numbers with commas between.")
@click.option("--rows", "file", default="", help="A .json or .csv file of rows, without header.")
@click.option("--data", "cid", default="", metavar="CID", help="Rows by content id: JSON.")
@click.option(
    "--evaluate", "last", type=click.IntRange(1), metavar="N",
    help="With --data DATASET: what the model is worth on its last N rows.",
)  # fmt: skip
@click.option("--tip", type=click.IntRange(0, 2**40), default=0, help="For being served first.")
@click.option(
    "--tier", default="replicated", show_default=True,
    help="replicated: all validators compute; drawn:K: K of them, whom nobody could foresee.",
)  # fmt: skip
@click.option("--local", is_flag=True, help="Compute here, free and without certificate.")
@click.option("--receipt", type=click.Path(path_type=Path, dir_okay=False), help="Save the proof.")
@options.signed
@options.wait_option(60)
@click.pass_obj
def command(
    out: Output,
    model_name: str,
    row: str,
    file: str,
    cid: str,
    last: int | None,
    tip: int,
    tier: str,
    local: bool,
    receipt: Path | None,
    url: str,
    key_name: str | None,
    keys_dir: Path,
    password_file: Path | None,
    timeout_s: float,
) -> None:
    """Ask a registered model about rows, and wait for the answer that a quorum certifies.

    Who answers wrongly is slashed; who computed shares fee and tip. --local asks nobody.
    """
    from mlchain.cli.signing import load_signer
    from mlchain.cli.text import credits, good
    from mlchain.client import predictions
    from mlchain.client.client import Client

    if sum(map(bool, (row, file, cid))) != 1 or (last and not cid):
        raise click.UsageError("give one of --row, --rows and --data; --evaluate needs --data")
    if local:
        answer_here(out, url, model_name, row or file, cid)
        return
    with Client(url) as client:
        chain_id = str(client.status()["chain_id"])
        name, key = load_signer(chain_id, key_name, keys_dir, password_file)
        model = client.registered(model_name)
        terms = predictions.Terms(tier, tip)
        started = time.monotonic()
        if last:
            identity = predictions.evaluate(client, model, cid, last, key, terms)
        elif cid:
            identity = predictions.ask_about(client, model, cid, key, terms)
        else:
            rows = predictions.read_rows(row or file)
            identity = predictions.ask(client, model, rows, key, terms)
        out.note(good(f"signed    {identity[:8]} by {name}, tip {credits(tip)}, tier {tier}"))
        found = predictions.wait_for_answer(client, identity, timeout_s, out.live)
        seconds = time.monotonic() - started
        answers = [] if last else predictions.read_answers(client, found)
        document = {**found, "all_answers": answers, "seconds": round(seconds, 3)}
        if receipt is not None:
            from mlchain.client.userfile import write_file

            write_file(receipt, client.prediction_receipt(identity))
            document["receipt_file"] = str(receipt)
    out.result("prediction", document, lines(document))


def answer_here(out: Output, url: str, name: str, source: str, cid: str) -> None:
    """Compute an answer in this process: no fee, no certificate."""
    import json

    from mlchain.cli.model import find_model
    from mlchain.client.client import Client
    from mlchain.client.predictions import read_rows
    from mlchain.errors import ConfigError
    from mlchain.ml_runtime.model import Predictor
    from mlchain.ml_runtime.serving import Outcome, answer_rows, decode_rows

    predictor = Predictor(find_model(Path(name), url))
    rows = _fetch(Client(url), cid) if cid else read_rows(source)
    count = len(decode_rows(rows, predictor.model.features))
    outcome, data = answer_rows(predictor, rows, count)
    if outcome != Outcome.ANSWERED:
        raise ConfigError(f"the model says: {outcome.name.lower().replace('_', ' ')}")
    answers = json.loads(data)
    text = [*answer_lines(answers), "  certified   by nobody: computed here"]
    out.result("local-prediction", {"model": name, "answers": answers}, text)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield an answer for people."""
    from mlchain.cli.model_registry import score_text
    from mlchain.cli.text import bad, dim, good

    if found["score"]:
        yield good(f"score     {score_text(found['score'])}")
    else:
        yield from answer_lines(found["all_answers"])
    agreed, told = len(found["agreed"]), len(found["agreed"]) + len(found["disagreed"])
    yield f"  certified   {agreed} of {told} validators agree, block #{found['height']}"
    for name in found["disagreed"]:
        yield bad(f"{name} disagreed: no reward, slashed")
    yield f"  took        {found['seconds']:.2f} s"
    if "receipt_file" in found:
        path = found["receipt_file"]
        yield f"  receipt     {path}    " + dim(f"mlchain audit {path} --genesis FILE")


def answer_lines(answers: list[Any]) -> Iterator[str]:
    """Yield the first answers."""
    from mlchain.cli.text import dim, good

    for place, answer in enumerate(answers[:MAX_SHOWN]):
        yield good(f"answer    {answer}") if not place else f"            {answer}"
    if len(answers) > MAX_SHOWN:
        yield dim(f"            and {len(answers) - MAX_SHOWN} more, with --json")


def _fetch(client: Client, cid: str) -> bytes:
    with client:
        return client.data(cid)
