"""`mlchain audit`: re-check a receipt, a chain or a proof of fraud, without trusting its giver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click
from click.core import ParameterSource

from mlchain.cli.audit_chain import (
    CheckRow,
    audit_archive,
    chain_lines,
    equal_text,
    find_genesis,
    genesis_hash,
    miss_lines,
    now_text,
    report_options,
    save_report,
    tell_check,
)
from mlchain.cli.audit_fraud import VerdictView, judge, judge_on_chain
from mlchain.cli.audit_prediction import PredictionAuditView, audit_prediction
from mlchain.cli.command import Command
from mlchain.cli.output import Output

if TYPE_CHECKING:
    from mlchain.client.archive import ChainReport
    from mlchain.client.receipt import Report
    from mlchain.ledger.genesis import Genesis


class AuditView(TypedDict):
    """An audit of a receipt: what was checked and re-run, and how likely a forgery was missed."""

    job: str
    passed: bool
    checks: list[CheckRow]
    chunks: int
    drawn: int
    rerun: int
    seed: str
    miss_1_in_10: str
    miss_1_in_100: str


class ReportedView(AuditView):
    """The same, and where the report lies; empty if none was asked for."""

    report: list[str]


class ChainView(TypedDict):
    """An audit of a whole chain: every block executed again, slices of all jobs re-run."""

    chain_id: str
    genesis: str
    last: int
    passed: bool
    checks: list[CheckRow]
    notes: list[str]
    disputes: list[str]
    chunks: int
    drawn: int
    rerun: int
    absent: int
    seed: str
    miss_1_in_10: str
    miss_1_in_100: str
    report: list[str]


Save = Callable[[str, dict[str, Any]], Sequence[str]]
"""Writes a report under a name; returns where its files are, none if none is wanted."""

_FILE = click.Path(path_type=Path, dir_okay=False)


def _slices(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Return a number of slices, None for `all`."""
    if value == "all":
        return None
    if not value.isascii() or not value.isdigit():
        raise click.BadParameter(f"{value!r} is neither a number nor all", ctx, param)
    return int(value)


@click.command(
    "audit",
    cls=Command,
    answers={
        "audit": ReportedView,
        "audit-chain": ChainView,
        "prediction-audit": PredictionAuditView,
        "fraud": VerdictView,
    },
    examples=(
        "mlchain audit 7f3ae1c2.receipt --genesis genesis.json",
        "mlchain audit 7f3ae1c2.receipt --genesis genesis.json --slices all",
        "mlchain audit hearts-1.car --genesis 3c90… --slices 500 --sign auditor.json",
        "mlchain audit birch.fraud --genesis genesis.json",
    ),
)
@click.argument("file", metavar="RECEIPT|CAR|PROOF", type=_FILE)
@click.option(
    "--genesis",
    metavar="FILE|HASH",
    help="Your own copy of the chain's genesis file, or its hash: all rests on it.",
)
@click.option(
    "--slices",
    metavar="NUMBER|all",
    callback=_slices,
    default="100",
    show_default=True,
    help="How many slices to re-run here, or all.",
)
@click.option("--seed", default="", help="Fixes which slices; by default nobody can foresee them.")
@click.option(
    "--data",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of files the receipt does not carry; found by what they hold.",
)
@click.option("--traced-job", metavar="HEX", default="", help="The job a PROOF has to be about.")
@click.option("--oracle", is_flag=True, help="Re-execute a PROOF's op in plain Python.")
@report_options
@click.pass_obj
def command(
    out: Output,
    file: Path,
    genesis: str | None,
    slices: int | None,
    seed: str,
    folder: Path | None,
    traced_job: str,
    oracle: bool,
    report_folder: Path,
    no_report: bool,
    sign_key: Path | None,
    password_file: Path | None,
) -> None:
    """Re-check a RECEIPT of a job or an answer, a whole chain, or a PROOF of fraud, offline.

    Of a receipt: signatures, state proofs, samples, the score, and slices of the training, run
    again on this machine. Trusts your genesis file and this program; neither the receipt nor who
    gave it. Exits with 7 when something does not hold. The report, one HTML page and the same as
    JSON, is left here, or in --report.

    Of a chain, the CAR file that mlchain archive writes: all blocks from the genesis on are
    executed again, and slices drawn over all jobs.

    Of a proof: what its worker had committed to under your genesis file, its signature, openings,
    and the one operation, executed again; or a whole chunk if the worker did not answer, which
    takes the job's dataset (--data). A proof that is about no chain needs no --genesis.
    Exits with 7 when the fraud is proven, 0 when the accused was right, 2 when it shows nothing.
    """
    from mlchain.client.accusation import is_accusation
    from mlchain.client.archive import is_archive
    from mlchain.client.fraud import is_fraud_proof
    from mlchain.client.prediction_receipt import is_prediction_receipt

    if is_fraud_proof(file) or is_accusation(file):
        why = "a proof is judged as a whole, and its verdict leaves no report"
        _refuse("slices", "seed", "sign_key", "report_folder", why=why)
    else:
        _refuse("traced_job", "oracle", why="only a proof of fraud is judged so")
    if is_fraud_proof(file):
        judge(out, file, traced_job, oracle)
        return
    if genesis is None:
        raise click.UsageError("a file of a chain is checked against --genesis, your own copy")
    if is_accusation(file):
        judge_on_chain(out, file, find_genesis(genesis, file), folder)
        return
    from mlchain.cli.signing import open_key

    key = open_key(sign_key, password_file) if sign_key else None

    def save(name: str, document: dict[str, Any]) -> Sequence[str]:
        return () if no_report else save_report(out, report_folder, name, document, key)

    if is_prediction_receipt(file):
        _refuse("slices", "seed", why="an answer has no slices, all of it is computed again")
        audit_prediction(out, file, find_genesis(genesis, file), folder, save)
    elif is_archive(file):
        audit_whole_chain(out, file, genesis_hash(genesis), slices, seed, save)
    else:
        audit_job(out, file, find_genesis(genesis, file), slices, seed, folder, save)


def _refuse(*names: str, why: str) -> None:
    """Refuse options that were typed and would mean nothing."""
    context = click.get_current_context()
    for option in context.command.params:
        is_typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if option.name in names and is_typed:
            raise click.UsageError(f"{option.opts[0]}: {why}")


def audit_job(
    out: Output,
    file: Path,
    genesis: Genesis,
    slices: int | None,
    seed: str,
    folder: Path | None,
    save: Save,
) -> None:
    """Check the receipt of a job and report on it.

    Raises:
        VerificationFailed: it does not hold; the report says so too.
    """
    from mlchain.client.audit_page import receipt_document

    report = audit_file(out, file, genesis, slices, seed, folder)
    document = receipt_document(report, genesis.hash, file.name, now_text())
    saved = save(f"audit-{file.stem}", document)
    _check_passed(report)
    answer = {**report_document(report), "report": list(saved)}
    out.result("audit", answer, report_lines(report))


def audit_whole_chain(
    out: Output, file: Path, genesis: bytes, slices: int | None, seed: str, save: Save
) -> None:
    """Check an archive against the hash of a genesis file and report on it.

    Raises:
        VerificationFailed: it does not hold; the report says so too.
    """
    from mlchain.client.audit_page import chain_document

    report = audit_archive(out, file, genesis, slices, seed)
    document = chain_document(report, genesis, now_text())
    saved = save(f"audit-{file.stem}-1-{report.last}", document)
    _check_passed(report)
    shared = {key: document[key] for key in ChainView.__annotations__ if key in document}
    answer = {**shared, "chain_id": report.chain_id, "report": list(saved)}
    out.result("audit-chain", answer, chain_lines(report))


def _check_passed(report: Report | ChainReport) -> None:
    from mlchain.errors import VerificationFailed

    failed = report.failed
    if failed is not None:
        raise VerificationFailed(f"{failed.name}: {failed.text}", "do not rely on this result")


def audit_file(
    out: Output,
    receipt: Path,
    genesis: Genesis,
    slices: int | None,
    seed: str = "",
    folder: Path | None = None,
) -> Report:
    """Check a receipt file, telling each check as it is done.

    Raises:
        VerificationFailed: the file is no receipt. A receipt that does not hold is reported.
        NotFound: it was made without a file that is needed, and `folder` lacks it.
    """
    from mlchain.cli.text import bar
    from mlchain.client.receipt import find_in_folder, read_receipt, verify_receipt

    def progress(done: int, total: int) -> None:
        out.live(f"  re-running  {bar(done, total)}")

    found = read_receipt(receipt)
    finder = {"find_file": find_in_folder(folder)} if folder is not None else {}
    return verify_receipt(
        found,
        genesis,
        slices=slices,
        seed=seed,
        on_check=lambda check: tell_check(out, check),
        on_chunk=progress,
        **finder,
    )


def report_lines(report: Report) -> Iterator[str]:
    """Yield what a passed audit means, and how much it could have missed."""
    from mlchain.cli.text import good

    yield good(
        f"audited   {len(report.checks)} of {len(report.checks)} checks hold; "
        f"re-ran {report.rerun} of {report.chunks} slices here{equal_text(report)}"
    )
    yield from miss_lines(report)


def report_document(report: Report) -> dict[str, Any]:
    """Return a report for programs."""
    return {
        "job": report.job_id,
        "passed": report.failed is None,
        "checks": [{"name": c.name, "passed": c.passed, "text": c.text} for c in report.checks],
        "chunks": report.chunks,
        "drawn": report.drawn,
        "rerun": report.rerun,
        "seed": report.seed,
        "miss_1_in_10": report.miss(10),
        "miss_1_in_100": report.miss(100),
    }
