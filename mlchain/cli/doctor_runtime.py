"""The long part of `mlchain doctor`: every numeric backend, every vector, one verdict each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mlchain.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one backend. `differs` holds (case, reason); None if it was not examined."""

    backend: str
    library: str
    blas: str
    seconds: float
    cases: int
    differs: list[tuple[str, str]] | None
    problem: str = ""
    hint: str = ""

    @property
    def verdict(self) -> str:
        """good, notice (not to be had here) or bad (computes something else)."""
        if self.differs is None:
            return "notice"
        return "bad" if self.differs else "good"

    @property
    def text(self) -> str:
        """One line for a person."""
        if self.differs is None:
            return self.problem
        where = f"{self.library}, {self.blas}, {self.seconds:.1f} s"
        if not self.differs:
            return f"{self.cases} of {self.cases} cases bit-equal ({where})"
        case, reason = self.differs[0]
        return f"{len(self.differs)} of {self.cases} cases differ, first {case}: {reason} ({where})"

    def record(self) -> dict[str, Any]:
        """Return it for a program."""
        rows = [{"case": case, "reason": reason} for case, reason in self.differs or ()]
        return {
            "backend": self.backend, "verdict": self.verdict, "library": self.library,
            "blas": self.blas, "seconds": round(self.seconds, 2), "cases": self.cases,
            "differs": rows, "problem": self.problem, "hint": self.hint,
        }  # fmt: skip


def examine_backends() -> Iterator[Report]:
    """Yield a report on each backend there is, in the order of the registry."""
    from mlchain.ml_runtime.backends import BACKENDS

    for name in BACKENDS:
        yield examine_backend(name)


def examine_backend(name: str) -> Report:
    """Examine one backend; never raises for what a library does."""
    from mlchain.ml_runtime.backends import BACKENDS, make_backend
    from mlchain.ml_runtime.examination import Verdict, examine

    library, started = _library(BACKENDS[name].extra or "numpy"), time.perf_counter()
    try:
        backend = make_backend(name)
    except ConfigError as error:
        problem = error.message.removeprefix(f"backend {name}: ")
        return Report(name, library, "", 0.0, 0, None, problem, error.hint)
    try:
        verdicts = list(examine(backend))
    except Exception as error:  # the vectors themselves are missing or damaged
        verdicts = [Verdict("vectors", False, f"{type(error).__name__}: {error}")]
    differs = [(v.case, v.reason) for v in verdicts if not v.is_equal]
    seconds = time.perf_counter() - started
    return Report(name, library, blas(), seconds, len(verdicts), differs)


def _library(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package}, not installed"


def blas() -> str:
    """Return what numpy's products run on, as far as it tells."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "BLAS unknown"
    found = [each for each in threadpool_info() if each.get("user_api") == "blas"]
    if not found:
        return "BLAS unknown"
    first = found[0]
    kernel = first.get("architecture", "kernel unknown")
    return f"{first['internal_api']} {first.get('version')} {kernel} x{first['num_threads']}"
