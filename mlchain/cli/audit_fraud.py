"""`mlchain audit` of a proof of fraud, about no chain or on one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

import click

from mlchain.cli.output import Output

if TYPE_CHECKING:
    from mlchain.ledger.genesis import Genesis


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


def judge_on_chain(out: Output, file: Path, genesis: Genesis, folder: Path | None) -> None:
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
    from mlchain.ml_runtime.proof import Outcome

    finder = {"find_file": find_in_folder(folder)} if folder is not None else {}
    try:
        found = judge_accusation(read_accusation(file), genesis, **finder)
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
