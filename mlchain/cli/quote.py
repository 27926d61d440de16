"""`mlchain job quote`: what a job costs and what its tier can find, before anybody pays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.web.answers import Amount

if TYPE_CHECKING:
    from mlchain.client.quote import Quote
    from mlchain.ledger.genesis import Params


class Offer(TypedDict):
    """One tier: chances as decimal text; a stake is null where none is enough."""

    tier: str
    slice: int
    cost: str
    miss_one: str
    miss_1_in_100: str
    miss_1_in_10: str
    stake_worker: Amount
    stake_validator: Amount | None
    deterred_gain: Amount | None


class QuoteView(TypedDict):
    """What a job costs and what each tier can find."""

    name: str
    tier: str
    fee: Amount
    least_fee: Amount
    gas: Amount
    chunks: int
    segments: int
    validators: int
    faults: int
    slash_worker: Amount
    slash_unavailable: Amount
    slash_lazy: Amount
    tiers: list[Offer]
    warnings: list[str]


@click.command(
    "quote",
    cls=Command,
    answers={"quote": QuoteView},
    examples=(
        "mlchain job quote examples/iris.toml",
        "mlchain job quote heart.toml --genesis genesis.json --json",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--genesis",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A chain's genesis file; no node is asked then.",
)
@options.url
@click.pass_obj
def command(out: Output, file: Path, genesis: Path | None, url: str) -> None:
    """Say what a job file costs and how much each tier can find, without sending it.

    For the chain of a node, or of a genesis file: chunks, gas, the least fee, and for every tier
    the slice of a validator, the work of all together, the chance to miss one forged chunk, one in
    100 and one in 10, and the penalties that make honesty pay best. A worker and f validators are
    taken to work together.
    """
    from mlchain.client.client import Client
    from mlchain.client.jobfile import load_job_file
    from mlchain.client.quote import make_quote, quote_document
    from mlchain.client.training import prepare

    job_file = load_job_file(file)
    params, validators = _chain(genesis, url)
    with Client(url) as client:  # asked only for rows that are named by a content id
        job = prepare(job_file, client.data)
    quote = make_quote(job_file, job, params, validators)
    out.result("quote", quote_document(quote), _lines(quote))


def _chain(genesis: Path | None, url: str) -> tuple[Params, int]:
    """Return the parameters of a chain's next block, or its first, and how many validate."""
    from msgspec.structs import replace

    from mlchain.client.client import Client
    from mlchain.ledger.genesis import load_genesis, parse_genesis
    from mlchain.vm.params import RANGES

    if genesis is not None:
        found = load_genesis(genesis)
        return found.params, len(found.validators())
    with Client(url) as client:
        params = parse_genesis(client.genesis().encode()).params
        now = client.governance()["params"]  # genesis gives the first; governance changes them
        params = replace(params, **{name: now[name] for name in RANGES if name in now})
        return params, client.status()["validators"]


def _lines(quote: Quote) -> list[str]:
    from mlchain.cli.text import credits, notice, table
    from mlchain.client.quote import warnings
    from mlchain.vm.receipt import decimal_text

    shape, params = quote.shape, quote.params
    rows = [
        (
            ("> " if offer is quote.chosen else "  ") + str(offer.tier),
            f"{offer.assurance.rerun} of {shape.chunks}",
            f"{decimal_text(offer.assurance.cost)} x",
            *offer.misses,
            credits(offer.stakes.worker),
            "no stake" if offer.stakes.validator is None else credits(offer.stakes.validator),
        )
        for offer in quote.offers
    ]
    header = (
        "  tier", "slice", "work", "misses 1 chunk", "1 in 100", "1 in 10", "worker", "validator",
    )  # fmt: skip
    return [
        f"job {quote.job_file.name}  {shape.chunks} chunks in {len(shape.segments)} segments, "
        f"{credits(quote.gas)} gas",
        f"  fee {credits(quote.job_file.fee)}, at least {credits(quote.least_fee)}",
        f"  {shape.validators} validators, {shape.faults} of them may help a cheat; it loses "
        f"{credits(quote.worker_loses)} or more as worker, "
        f"{credits(params.slash_lazy)} as validator",
        "",
        *table(header, rows),
        "",
        *(notice(text) for text in warnings(quote)),
    ]
