"""Checking a receipt offline: one named check after the other, the first that fails ends it.

Trusted are the auditor's own genesis file and this program; the receipt, and whoever gave it, are
not. The order of `CHECKS` is the chain of reasons: each check rests on those before it, and only
what is proven is decoded or run.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mlchain import codec, crypto
from mlchain.client.checks import CHECKS, Audit, FindFile, Standing
from mlchain.client.rerun import Progress
from mlchain.client.userfile import read_file
from mlchain.errors import CodecError, ConfigError, MlchainError, NotFound, VerificationFailed
from mlchain.ledger.content import cid_of
from mlchain.ledger.genesis import Genesis
from mlchain.vm.receipt import MAX_RECEIPT_BYTES, Receipt, miss_text
from mlchain.vm.registry import check_registry

DEFAULT_SLICES = 100

A = TypeVar("A", bound=Standing)
"""What is examined."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: `text` says what was found, or what is wrong."""

    name: str
    passed: bool
    text: str


@dataclass
class JobRow:
    """One job of a chain: how many of its chunks were drawn, and what became of them."""

    job_id: bytes
    name: str
    chunks: int
    drawn: tuple[int, ...] = ()
    compared: tuple[int, ...] = ()
    differs: int | None = None
    attested: dict[str, int] = field(default_factory=dict)
    """Chunks that each validator said it re-ran, by name."""
    note: str = ""


@dataclass
class Report:
    """What an audit found. `drawn` chunks of `chunks` were chosen blindly, `rerun` were run."""

    job_id: bytes
    seed: str
    checks: list[Check] = field(default_factory=list)
    chunks: int = 0
    drawn: int = 0
    rerun: int = 0
    compared: tuple[int, ...] = ()
    """The chunks that were run and found equal."""
    differs: int | None = None
    """The chunk that was run and found to be another."""
    attested: dict[str, int] = field(default_factory=dict)
    """Chunks that each validator said it re-ran when the job ran, by name."""

    @property
    def failed(self) -> Check | None:
        """The check that failed, None if all passed."""
        return next((check for check in self.checks if not check.passed), None)

    def miss(self, one_in: int) -> str:
        """Return the chance that a forger of 1 chunk in `one_in` would not have been seen.

        Only the chunks that were drawn count: those run on the way to them can be foreseen.
        """
        return miss_text(self.chunks, self.drawn, one_in)


def read_receipt(path: Path) -> Receipt:
    """Return the receipt in a file.

    Raises:
        ConfigError: it cannot be read.
        VerificationFailed: it is not a receipt.
    """
    try:
        data = read_file(path, MAX_RECEIPT_BYTES, "name a receipt file")
        return codec.decode(Receipt, data, MAX_RECEIPT_BYTES)
    except CodecError as error:
        raise VerificationFailed(f"{path} is not a receipt: {error.message}") from error


def find_in_folder(folder: Path) -> FindFile:
    """Return a finder of the files in a folder, by what they hold; their names do not matter."""
    known: dict[bytes, Path] = {}

    def find(content: bytes) -> bytes | None:
        for path in sorted(folder.iterdir()) if not known else ():
            if path.is_file():
                with path.open("rb") as file:
                    known[cid_of(file)] = path
        return known[content].read_bytes() if content in known else None

    return find


def verify_receipt(
    receipt: Receipt,
    genesis: Genesis,
    *,
    slices: int | None = DEFAULT_SLICES,
    seed: str = "",
    find_file: FindFile = lambda content: None,
    on_check: Callable[[Check], None] = lambda check: None,
    on_chunk: Progress = lambda done, total: None,
) -> Report:
    """Check everything a receipt claims, then re-run `slices` chunks of our choice (None: all).

    The choice follows from `seed`, which comes from the operating system unless given: nobody
    could know it when the job ran.

    Raises:
        NotFound: the receipt was made without a file that is needed, and `find_file` lacks it.
        GenesisError: this installation computes by other tables than the chain.
    """
    audit = Audit(receipt, genesis, find_file)
    report = Report(receipt.job_id, seed or secrets.token_hex(16))
    steps = (*CHECKS, ("re-run", lambda audit: _rerun(audit, report, slices, on_chunk)))
    report.checks = run_checks(steps, audit, on_check)
    report.attested = audit.attested
    return report


def run_checks(
    steps: Iterable[tuple[str, Callable[[A], str]]], audit: A, on_check: Callable[[Check], None]
) -> list[Check]:
    """Make one check after the other; the first that fails is the last of the list.

    Raises:
        NotFound, ConfigError: what a check needs is not here.
        GenesisError: this installation computes by other tables than the chain.
    """
    done = []
    for name, check in steps:
        try:
            done.append(Check(name, True, check(audit)))
        except (NotFound, ConfigError):
            raise
        except MlchainError as error:
            done.append(Check(name, False, error.message))
        on_check(done[-1])
        if not done[-1].passed:
            break
        if name == "genesis":
            check_registry(audit.genesis)
    return done


def _rerun(audit: Audit, report: Report, slices: int | None, on_chunk: Progress) -> str:
    """Run chunks again and fill the report's numbers."""
    report.chunks = audit.rerun.chunks
    seed = crypto.digest("mlchain/audit-seed", report.seed.encode())
    drawn = audit.rerun.draw(seed, audit.receipt.job_id, slices)
    report.drawn = len(drawn)
    try:
        audit.rerun.run(drawn, on_chunk)
    finally:
        report.compared, report.differs = tuple(audit.rerun.compared), audit.rerun.differs
        report.rerun = len(report.compared)
    return f"{report.rerun} of {report.chunks} chunks equal, {report.drawn} of them drawn by us"
