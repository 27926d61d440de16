"""The part of `mlchain audit` about whole chains, and about the report that every audit leaves."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from mlchain.cli.output import Output

if TYPE_CHECKING:
    from mlchain.client.archive import ChainReport
    from mlchain.client.receipt import Check, Report
    from mlchain.crypto import SecretKey
    from mlchain.ledger.genesis import Genesis

NAME_WIDTH = 13


class CheckRow(TypedDict):
    """One thing that was checked."""

    name: str
    passed: bool
    text: str


def find_genesis(text: str, beside: Path) -> Genesis:
    """Return the genesis that `--genesis` means: a file, or a hash whose file lies about.

    Raises:
        GenesisError: the file is none.
        NotFound: no genesis.json of this hash beside the receipt or in the working folder.
    """
    from mlchain.errors import MlchainError, NotFound
    from mlchain.ledger.genesis import load_genesis

    digest = parse_digest(text)
    if digest is None:
        return load_genesis(Path(text))
    for file in (beside.parent / "genesis.json", Path("genesis.json")):
        try:
            found = load_genesis(file)
        except MlchainError:
            continue
        if found.hash == digest:
            return found
    raise NotFound(
        f"no genesis.json with hash {text[:16]}… beside {beside}",
        "a receipt does not carry the genesis: name its file, whose hash you know",
    )


def genesis_hash(text: str) -> bytes:
    """Return the hash that `--genesis` means: given, or that of a file."""
    from mlchain.ledger.genesis import load_genesis

    digest = parse_digest(text)
    return load_genesis(Path(text)).hash if digest is None else digest


def parse_digest(text: str) -> bytes | None:
    """Return the 32 bytes of 64 hex digits, blanks or not; None if it is something else."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return None
    return digest if len(digest) == 32 else None


def tell_check(out: Output, check: Check) -> None:
    """Show one check when it is done."""
    from mlchain.cli.text import bad, good

    mark = good if check.passed else bad
    out.note(mark(f"{check.name:<{NAME_WIDTH}}{check.text}"))


def audit_archive(
    out: Output, file: Path, genesis: bytes, slices: int | None, seed: str
) -> ChainReport:
    """Check an archive, telling each check as it is done.

    Raises:
        ConfigError: it cannot be read.
    """
    from mlchain.cli.text import bar, notice
    from mlchain.client.archive import verify_archive
    from mlchain.errors import ConfigError

    try:
        with file.open("rb") as source:
            report = verify_archive(
                source, genesis, slices=slices, seed=seed,
                on_check=lambda check: tell_check(out, check),
                on_step=lambda done, total: out.live(f"  {bar(done, total)}"),
            )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    for text in report.disputes:
        out.note(f"  {'dispute':<{NAME_WIDTH}}{text}")
    for text in report.notes:
        out.note(notice(f"{'note':<{NAME_WIDTH}}{text}"))
    return report


def chain_lines(report: ChainReport) -> Iterator[str]:
    """Yield what a passed audit of a chain means, and how much it could have missed."""
    from mlchain.cli.text import good, notice
    from mlchain.client.archive import absent_text

    count = len(report.notes)
    notes = f" with {count} note{'s' if count > 1 else ''}" if count else ""
    yield good(
        f"passed{notes}   {report.last} blocks executed again, "
        f"{report.rerun} of {report.chunks} slices re-run here{equal_text(report)}"
    )
    if report.absent:
        yield notice(absent_text(report.absent))
    yield from miss_lines(report)


def equal_text(report: Report | ChainReport) -> str:
    """Return what re-running showed: nothing at all where nothing was re-run."""
    return ": every byte equal" if report.rerun else ""


def miss_lines(report: Report | ChainReport) -> Iterator[str]:
    """Yield the chance that a given fraud was missed, and the seed that repeats the choice."""
    from mlchain.cli.text import dim

    if report.drawn < report.chunks:
        for words, one_in in (("1 in 10", 10), ("1 in 100", 100)):
            yield (
                f"            had {words} slices been forged, "
                f"this audit would have missed it with p = {report.miss(one_in)}"
            )
        yield dim(f"            the choice was fixed by --seed {report.seed}")


def save_report(
    out: Output, folder: Path, name: str, document: dict[str, Any], key: SecretKey | None
) -> tuple[str, str]:
    """Write page and document, and say where; return both places."""
    from mlchain.client.audit_page import write_report

    page, plain = write_report(folder, name, document, key)
    who = f"   signed by {key_address(key)}" if key else ""
    out.note(f"  {'report':<{NAME_WIDTH}}{page}   .json{who}")
    return str(page), str(plain)


def key_address(key: SecretKey) -> str:
    """Return the auditor's address, shortened."""
    from mlchain.cli.text import short
    from mlchain.crypto import address

    return short(address(key.public))


def now_text() -> str:
    """Return the time of an audit, RFC 3339 in UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def report_options(function: Any) -> Any:
    """Add the options about the report."""
    for option in (
        click.option(
            "--password-file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="Password of the key of --sign.",
        ),
        click.option(
            "--sign", "sign_key", type=click.Path(path_type=Path, dir_okay=False),
            help="The auditor's key file: it signs the report.",
        ),
        click.option("--no-report", is_flag=True, help="Write no report."),
        click.option(
            "--report", "report_folder", type=click.Path(path_type=Path, file_okay=False),
            default=Path("."), show_default="here", help="Folder of the report, HTML and JSON.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function
