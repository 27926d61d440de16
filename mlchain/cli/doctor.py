"""`mlchain doctor`: find out whether this machine can run a node, before it has to."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import click

from mlchain.cli.command import Command, data_path
from mlchain.cli.output import Output
from mlchain.errors import MlchainError, VerificationFailed

WANTED_FILES = 4096
WANTED_DISK_BYTES = 2 << 30
SLOW_FSYNC_MS = 50.0
_FSYNCS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `verdict` is good, notice or bad; `hint` says what to do."""

    name: str
    verdict: str
    text: str
    hint: str = ""


class FindingRow(TypedDict):
    """One thing that was looked at; `verdict` is good, notice or bad."""

    name: str
    verdict: str
    text: str
    hint: str


class Examination(TypedDict):
    """What was found; `backends` with --runtime."""

    checks: list[FindingRow]
    backends: NotRequired[list[dict[str, Any]]]


@click.command(
    "doctor",
    cls=Command,
    answers={"doctor": Examination},
    examples=("mlchain doctor", "mlchain doctor --runtime"),
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=data_path,
    show_default="~/.local/share/mlchain",
    help="Where a node would keep its data.",
)
@click.option(
    "--genesis",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The chain the node is for; by default genesis.json in the home, if there is one.",
)
@click.option(
    "--runtime", is_flag=True, help="Examine every numeric backend on every vector; takes longer."
)
@click.pass_obj
def command(out: Output, home: Path, genesis: Path | None, runtime: bool) -> None:
    """Check that this machine can run a node.

    The numeric self-test is the one that matters: a machine that fails it would compute other
    bytes than everybody else. Of a chain it also looks at who signed the genesis, whether the keys
    in the home are those of a member, and who can be reached. With --runtime every numeric backend
    that is installed computes all vectors of the specification. Exits with 7 when a check fails.
    """
    from mlchain.cli import text

    marks = {"good": text.good, "notice": text.notice, "bad": text.bad}
    findings = list(examine(home))
    chain = genesis or home / "genesis.json"
    if genesis is not None or chain.exists():
        from mlchain.cli.doctor_chain import examine_chain

        findings += examine_chain(chain, home)
    reports = []
    if runtime:
        from mlchain.cli.doctor_runtime import examine_backends

        reports = list(examine_backends())
        findings += [Finding(r.backend, r.verdict, r.text, r.hint) for r in reports]
    lines = []
    for finding in findings:
        lines.append(marks[finding.verdict](f"{finding.name:<11}{finding.text}"))
        if finding.hint:
            lines.append(f"             try  {finding.hint}")
    rows = [
        {"name": f.name, "verdict": f.verdict, "text": f.text, "hint": f.hint} for f in findings
    ]
    document: dict[str, Any] = {"checks": rows}
    if runtime:
        document["backends"] = [report.record() for report in reports]
    failed = [f.name for f in findings if f.verdict == "bad"]
    if failed and out.as_json:
        raise VerificationFailed("failed: " + ", ".join(failed), "mlchain doctor, without --json")
    out.result("doctor", document, lines)
    if failed:
        raise VerificationFailed("a node should not run here: " + ", ".join(failed))


def examine(home: Path) -> Iterator[Finding]:
    """Yield a finding for each check; none of them changes anything that lasts."""
    checks: tuple[Callable[[], Finding], ...] = (
        check_python,
        check_libraries,
        check_runtime,
        lambda: check_disk(home),
        check_files,
        check_clock,
    )
    for check in checks:
        yield check()


def check_python() -> Finding:
    """Look at the interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", "good", f"{version}, {os.uname().machine}")


def check_libraries() -> Finding:
    """Import what a node needs and the command line does not."""
    try:
        import libp2p  # noqa: F401
        import plyvel  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        return Finding("libraries", "bad", str(error), "scripts/setup")
    return Finding("libraries", "good", "libp2p and plyvel load")


def check_runtime() -> Finding:
    """Compute the runtime's pinned cases: a machine with one other bit would leave the chain."""
    import numpy

    from mlchain.ml_runtime import selftest

    try:
        selftest.self_test()
    except MlchainError as error:
        return Finding("runtime", "bad", error.message, error.hint or "another numpy build")
    text = f"{len(selftest.CASES)} of {len(selftest.CASES)} pinned cases bit-equal"
    return Finding("runtime", "good", f"{text}, numpy {numpy.__version__}")


def check_disk(home: Path) -> Finding:
    """Measure free space and the time of a synced write where a node would keep its data."""
    folder = home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            started = time.perf_counter()
            for _ in range(_FSYNCS):
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
            fsync_ms = (time.perf_counter() - started) * 1000 / _FSYNCS
    except OSError as error:
        return Finding("disk", "bad", f"{folder}: {error.strerror}", "--home names another folder")
    text = f"{free / 1e9:.0f} GB free, a synced write takes {fsync_ms:.1f} ms"
    if free < WANTED_DISK_BYTES:
        return Finding("disk", "notice", text, "at least 2 GB free")
    if fsync_ms > SLOW_FSYNC_MS:
        return Finding("disk", "notice", text, "a local disk; each vote is synced before it leaves")
    return Finding("disk", "good", text)


def check_files() -> Finding:
    """Look at how many files and connections a process may have open."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < WANTED_FILES:
        return Finding("files", "notice", f"limit {limit}", f"ulimit -n {WANTED_FILES}")
    return Finding("files", "good", "no limit" if limit < 0 else f"limit {limit}")


def check_clock() -> Finding:
    """Look at whether the clock is plausible: blocks refuse times far ahead."""
    year = time.gmtime().tm_year
    if not 2024 <= year < 2100:
        return Finding("clock", "bad", f"says it is {year}", "set the clock, run an NTP client")
    return Finding("clock", "good", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))
