"""`mlchain audit`: re-check a receipt, or a proof of fraud, without trusting who gave it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import click

from mlchain.cli.command import Command
from mlchain.cli.output import Output

if TYPE_CHECKING:
    from mlchain.client.receipt import Check, Report


class CheckRow(TypedDict):
    """One thing that was checked."""

    name: str
    passed: bool
    text: str


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


class VerdictView(TypedDict):
    """A fraud proof that does not hold; one that does is an error, with the same fields in `at`."""

    outcome: str
    text: str
    job: str
    accused: str
    chunk: int
    step: NotRequired[int]
    entry: NotRequired[int | str]
    ground: NotRequired[str]
    segment: NotRequired[int]
    certified: NotRequired[str]


NAME_WIDTH = 13
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
    answers={"audit": AuditView, "fraud": VerdictView},
    examples=(
        "mlchain audit 7f3ae1c2.receipt --genesis genesis.json",
        "mlchain audit 7f3ae1c2.receipt --genesis genesis.json --slices all",
        "mlchain audit birch.fraud --genesis genesis.json",
    ),
)
@click.argument("file", metavar="RECEIPT|PROOF", type=_FILE)
@click.option(
    "--genesis",
    type=_FILE,
    help="Your own copy of the chain's genesis file: a receipt rests on it.",
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
@click.pass_obj
def command(
    out: Output,
    file: Path,
    genesis: Path | None,
    slices: int | None,
    seed: str,
    folder: Path | None,
    traced_job: str,
    oracle: bool,
) -> None:
    """Re-check a job's RECEIPT, or a PROOF of fraud, offline.

    Of a receipt: signatures, state proofs, samples, the score, and slices of the training, run
    again on this machine. Trusts your genesis file and this program; neither the receipt nor who
    gave it. Exits with 7 when something does not hold.

    Of a proof: what its worker had committed to under your genesis file, its signature, openings,
    and the one operation, executed again; or a whole chunk if the worker did not answer, which
    takes the job's dataset (--data). A proof that is about no chain needs no --genesis.
    Exits with 7 when the fraud is proven, 0 when the accused was right, 2 when it shows nothing.
    """
    from mlchain.client.accusation import is_accusation
    from mlchain.client.fraud import is_fraud_proof
    from mlchain.errors import VerificationFailed

    if is_fraud_proof(file):
        judge(out, file, traced_job, oracle)
        return
    if genesis is None:
        raise click.UsageError("a file of a chain is checked against --genesis, your own copy")
    if is_accusation(file):
        judge_on_chain(out, file, genesis, folder)
        return
    report = audit_file(out, file, genesis, slices, seed, folder)
    failed = report.failed
    if failed is not None:
        raise VerificationFailed(f"{failed.name}: {failed.text}", "do not rely on this result")
    out.result("audit", report_document(report), report_lines(report))


def judge(out: Output, file: Path, traced_job: str, oracle: bool) -> None:
    """Judge a fraud proof.

    Raises:
        FraudProven: it holds.
        CodecError: it shows nothing.
    """
    from mlchain.cli.text import good, short
    from mlchain.client.fraud import FraudProven, describe, judge_file, verdict_document
    from mlchain.errors import CodecError
    from mlchain.ml_runtime.proof import Outcome

    try:
        job = bytes.fromhex(traced_job) if traced_job else None
    except ValueError as error:
        raise click.UsageError(f"--traced-job: {traced_job!r} is not hex") from error
    verdict = judge_file(file, job, oracle)
    if verdict.outcome is Outcome.INVALID:
        raise CodecError(f"{file} proves nothing: {verdict.text}", "ask the accuser for another")
    document = verdict_document(verdict)
    out.note(f"  job      {document['job']}")
    out.note(f"  accused  {document['accused']}")
    if verdict.outcome is Outcome.FRAUD:
        raise FraudProven(f"{describe(verdict)}: {verdict.text}", document)
    text = good(f"unfounded: {short(str(document['accused']))} was right at {describe(verdict)}")
    out.result("fraud", document, [text])


def judge_on_chain(out: Output, file: Path, genesis: Path, folder: Path | None) -> None:
    """Judge a fraud proof that rests on a chain.

    Raises:
        FraudProven: it holds.
        CodecError: it shows nothing.
        NotFound: the dataset is needed, and `folder` lacks it.
    """
    from mlchain.cli.text import good
    from mlchain.client.accusation import judge_accusation, read_accusation
    from mlchain.client.fraud import FraudProven, judgement_document
    from mlchain.client.receipt import find_in_folder
    from mlchain.errors import CodecError, InvalidSignature, RejectedProgram, VerificationFailed
    from mlchain.ledger.genesis import load_genesis
    from mlchain.ml_runtime.proof import Outcome

    finder = {"find_file": find_in_folder(folder)} if folder is not None else {}
    try:
        found = judge_accusation(read_accusation(file), load_genesis(genesis), **finder)
    except (CodecError, InvalidSignature, RejectedProgram, VerificationFailed) as error:
        raise CodecError(f"{file} proves nothing: {error.message}", error.hint) from error
    document = judgement_document(found)
    out.note(f"  job      {document['job']}")
    out.note(f"  worker   {document['accused']}")
    out.note(f"  commit   {found.certified}")
    if found.outcome is Outcome.FRAUD:
        raise FraudProven(f"chunk {found.chunk}: {found.text}", document)
    text = good(f"unfounded: {document['accused']} was right about chunk {found.chunk}")
    out.result("fraud", document, [text])


def audit_file(
    out: Output,
    receipt: Path,
    genesis: Path,
    slices: int | None,
    seed: str = "",
    folder: Path | None = None,
) -> Report:
    """Check a receipt file, telling each check as it is done.

    Raises:
        VerificationFailed: the file is no receipt. A receipt that does not hold is reported.
        NotFound: it was made without a file that is needed, and `folder` lacks it.
    """
    from mlchain.cli.text import bad, bar, good
    from mlchain.client.receipt import find_in_folder, read_receipt, verify_receipt
    from mlchain.ledger.genesis import load_genesis

    def tell(check: Check) -> None:
        mark = good if check.passed else bad
        out.note(mark(f"{check.name:<{NAME_WIDTH}}{check.text}"))

    def progress(done: int, total: int) -> None:
        out.live(f"  re-running  {bar(done, total)}")

    found = read_receipt(receipt)
    finder = {"find_file": find_in_folder(folder)} if folder is not None else {}
    return verify_receipt(
        found,
        load_genesis(genesis),
        slices=slices,
        seed=seed,
        on_check=tell,
        on_chunk=progress,
        **finder,
    )


def report_lines(report: Report) -> Iterator[str]:
    """Yield what a passed audit means, and how much it could have missed."""
    from mlchain.cli.text import dim, good

    yield good(
        f"audited   {len(report.checks)} of {len(report.checks)} checks hold; "
        f"re-ran {report.rerun} of {report.chunks} slices here: every byte equal"
    )
    if report.drawn < report.chunks:
        for words, one_in in (("1 in 10", 10), ("1 in 100", 100)):
            yield (
                f"            had {words} slices been forged, "
                f"this audit would have missed it with p = {report.miss(one_in)}"
            )
        yield dim(f"            the choice was fixed by --seed {report.seed}")


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
