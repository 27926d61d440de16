"""How commands fail: an expected error has a code, an exit status and a hint; a bug, a report.

The table is part of the command line's contract: scripts rely on the numbers.

    0 ok            done, and what was asked holds
    1 internal      our bug; a report file is written
    2 usage         wrong argument, file or configuration
    3 not_found     no such block, job, content or key
    4 unreachable   no node answers
    5 rejected      the chain refused
    6 timeout       the wait ended first; what was waited for goes on
    7 verification_failed   a re-run, hash, signature or stored byte differs
    8 locked        a key needs a password and none was given
    130 interrupted ctrl-c
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

import click

from mlchain import __version__, errors

EXIT_CODES = {
    "internal": 1,
    "usage": 2,
    "not_found": 3,
    "unreachable": 4,
    "rejected": 5,
    "timeout": 6,
    "verification_failed": 7,
    "locked": 8,
    "interrupted": 130,
}

_CODES: tuple[tuple[type[errors.MlchainError], str], ...] = (
    (errors.NotFound, "not_found"),
    (errors.Unreachable, "unreachable"),
    (errors.Rejected, "rejected"),
    (errors.InvalidTransaction, "rejected"),
    (errors.Timeout, "timeout"),
    (errors.Locked, "locked"),
    (errors.VerificationFailed, "verification_failed"),
    (errors.InvalidSignature, "verification_failed"),
    (errors.InvalidBlock, "verification_failed"),
    (errors.InvalidEvidence, "verification_failed"),
    (errors.StoreCorrupted, "verification_failed"),
    (errors.Trap, "verification_failed"),
    (errors.MlchainError, "usage"),  # configuration, genesis, job file, malformed input
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed command as people and programs see it.

    `at` is empty, or says where in a file of the user the fault is: file (path), line (from 1).
    """

    code: str
    message: str
    hint: str = ""
    at: tuple[tuple[str, str | int], ...] = ()

    @property
    def exit_code(self) -> int:
        """Exit status of the process."""
        return EXIT_CODES[self.code]


def describe(error: BaseException, arguments: list[str]) -> Failure:
    """Return what `error` means to the user; unexpected ones are bugs and leave a report file."""
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        return Failure("interrupted", "interrupted")
    if isinstance(error, click.ClickException):
        return Failure("usage", error.format_message(), _help_hint(error))
    if isinstance(error, errors.MlchainError):
        code = next(code for kind, code in _CODES if isinstance(error, kind))
        return Failure(code, error.message, error.hint, tuple(getattr(error, "at", ())))
    report = write_report(error, arguments)
    return Failure(
        "internal",
        f"a bug in mlchain: {type(error).__name__}: {error}",
        f"the report {report} says where; please send it",
    )


def write_report(error: BaseException, arguments: list[str]) -> Path:
    """Write what a developer needs to find a bug and return the file's path.

    The command line is included: no option of ours takes a secret, only names of files.
    """
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    lines = [
        f"mlchain {__version__}, Python {sys.version.split()[0]}, {platform.platform()}",
        "command: mlchain " + " ".join(arguments),
        "",
        "".join(traceback.format_exception(error)),
    ]
    folder = Path(state) / "mlchain"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir())
    descriptor, name = tempfile.mkstemp(prefix="report-", suffix=".txt", dir=folder, text=True)
    with os.fdopen(descriptor, "w", errors="backslashreplace") as file:
        file.write("\n".join(lines))
    return Path(name)


def _help_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else ""
