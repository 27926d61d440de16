"""Runs the models exhaustively with spin and prints what came out; docs/model.md explains them.

Each run is a model with -D switches and what must come of it: the protocol `holds`; a mutant, in
which one rule is off, `fails` (spin finds a counterexample), or `holds` too where another rule
covers for it. Exit status 1 if any run came out otherwise, 2 without spin or gcc.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

MODELS = Path(__file__).parent
COMPILE = ["gcc", "-w", "-O2", "-DSAFETY", "-DCOLLAPSE", "-DNOREDUCE", "-DMEMLIM=4096"]
"""Exhaustive: no bit states, no hash compaction, and no reduction that a proof would rest on."""
MAX_DEPTH = 1_000_000
TIMEOUT_S = 900.0


class Run(NamedTuple):
    """One run: what is checked, what must come of it, and whether it takes over some seconds."""

    model: str
    switches: tuple[str, ...]
    expected: str
    slow: bool = False

    @property
    def name(self) -> str:
        """Return a name for tables and tests, for example `work/SLOW+NO_AGE`."""
        return "/".join([self.model, "+".join(self.switches)]) if self.switches else self.model


class Result(NamedTuple):
    """What spin found: `holds`, `fails`, or `incomplete` if it ran out of depth or memory."""

    verdict: str
    states: int
    depth: int
    seconds: float


def _run(model: str, switches: str, expected: str, slow: bool = False) -> Run:
    return Run(model, tuple(switches.split()), expected, slow)


RUNS = [
    _run("agreement", "ROUNDS=2", "holds"),
    _run("agreement", "ROUNDS=3", "holds", slow=True),
    _run("agreement", "SMALL_QUORUM", "fails"),
    _run("agreement", "NO_CHECK", "fails"),
    _run("agreement", "NO_LOCK", "fails"),
    _run("agreement", "ANY_POLKA", "fails"),
    _run("agreement", "NO_POLKA", "fails"),
    _run("agreement", "AMNESIA", "fails"),
    _run("agreement", "LIVE ROUNDS=2", "holds"),
    _run("agreement", "LIVE ROUNDS=2 NO_UNLOCK", "fails"),
    _run("agreement", "LIVE ROUNDS=2 NO_VALID", "fails"),
    _run("agreement", "LIVE ROUNDS=2 VETO_INVALID", "fails"),
    _run("agreement", "LIVE ROUNDS=2 FIRST_VOTE", "fails"),
    _run("work", "", "holds"),
    _run("work", "SLOW", "holds"),
    _run("work", "CENSORS", "holds", slow=True),
    _run("work", "CENSORS SLOW", "holds", slow=True),
    _run("work", "STARVED", "holds", slow=True),
    _run("work", "NO_VETO", "fails"),
    _run("work", "NO_CLAIM_IN_VETO", "fails"),
    _run("work", "NO_PATIENCE", "fails"),
    _run("work", "NO_PATIENCE SLOW", "holds"),
    _run("work", "NO_AGE SLOW", "fails"),
    _run("work", "NO_AGE", "holds"),
    _run("work", "NO_OWN_IN_VETO STARVED", "holds", slow=True),
    _run("work", "FEW_ATTEST STARVED", "holds", slow=True),
    _run("work", "NO_OWN_IN_VETO FEW_ATTEST STARVED", "fails"),
    _run("work", "ALL_ATTEST", "fails"),
    _run("work", "JUNK_IN_VETO", "fails"),
    _run("work", "RULING_BY_ONE", "fails"),
    _run("work", "FREE_CLAIMS", "fails"),
]


def missing_tool() -> str:
    """Return the name of a tool that is not installed, "" if all are."""
    return next((tool for tool in ("spin", "gcc") if shutil.which(tool) is None), "")


def check(run: Run) -> Result:
    """Search every state of one run, or as far as the first counterexample.

    Raises:
        CalledProcessError: spin or gcc refuse the model.
        TimeoutExpired: it takes longer than TIMEOUT_S.
    """
    with tempfile.TemporaryDirectory(prefix="mlchain-model-") as folder:
        source = str(MODELS / f"{run.model}.pml")
        switches = [f"-D{switch}" for switch in run.switches]
        for command in (["spin", "-a", *switches, source], [*COMPILE, "-o", "pan", "pan.c"]):
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
        search = subprocess.run(
            ["./pan", f"-m{MAX_DEPTH}"],
            cwd=folder, check=True, capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
    return read(search.stdout)


def read(text: str) -> Result:
    """Return what the verifier printed."""
    errors = int(_number(r"errors: (\d+)", text, "-1"))
    is_cut = "Search not completed" in text or "max search depth too small" in text
    verdict = "fails" if "assertion violated" in text else "holds"
    if verdict == "holds" and (errors != 0 or is_cut):
        verdict = "incomplete"
    return Result(
        verdict,
        int(float(_number(r"([\d.e+]+) states, stored", text, "0"))),
        int(_number(r"depth reached (\d+)", text, "0")),
        float(_number(r"elapsed time ([\d.]+)", text, "0")),
    )


def _number(pattern: str, text: str, otherwise: str) -> str:
    found = re.search(pattern, text)
    return found.group(1) if found else otherwise


def main() -> int:
    """Check the runs that were asked for and print a line for each."""
    parser = argparse.ArgumentParser(
        prog="scripts/model",
        description="Check the protocol's models exhaustively with spin (docs/model.md).",
        epilog="Example: scripts/model work/NO_VETO, or scripts/model --fast, or scripts/model",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="names as in the table; default all")
    parser.add_argument("--fast", action="store_true", help="only what takes a few seconds each")
    asked = parser.parse_args()
    unknown = [name for name in asked.runs if name not in [run.name for run in RUNS]]
    if unknown or (tool := missing_tool()):
        reason = f"no such run: {unknown[0]}" if unknown else f"{tool} is not installed"
        print(f"model: {reason}", file=sys.stderr)
        return 2
    print(f"{'model':<44}{'states':>11}{'depth':>8}{'seconds':>9}  verdict")
    wrong = 0
    for run in RUNS:
        if (asked.runs and run.name not in asked.runs) or (asked.fast and run.slow):
            continue
        found = check(run)
        note = "" if found.verdict == run.expected else f"   EXPECTED {run.expected}"
        wrong += bool(note)
        figures = f"{found.states:>11,}{found.depth:>8}{found.seconds:>9.1f}"
        print(f"{run.name:<44}{figures}  {found.verdict}{note}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
