"""What many seeds came to: one line a seed in a file, and tables over the lines.

A run that was interrupted goes on where it was: what stands in the file is not run again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlchain.errors import ConfigError
from mlchain.sim.scenario import Outcome, Scenario

Row = dict[str, Any]
COUNTED = ("events", "crashes", "convicted")


def nodes_of(seed: int) -> int:
    """Return how many validators a seed of the night has: of 500, 400 have 4 and one has 31."""
    place = seed % 500
    return 31 if place == 0 else 10 if place < 25 else 7 if place < 100 else 4


def make_row(outcome: Outcome) -> Row:
    """Return what is kept of one run."""
    return {
        "command": outcome.scenario.command, "seed": outcome.scenario.seed,
        "nodes": outcome.scenario.nodes, "adversary": outcome.adversary,
        "violation": outcome.violation, "digest": outcome.digest, "rounds": outcome.rounds,
        "stalls": dict(Counter(outcome.stalls)),
        **{name: getattr(outcome, name) for name in COUNTED},
    }  # fmt: skip


def read(path: Path | None) -> dict[str, Row]:
    """Return what a record holds, by command; a torn last line is left out.

    Raises:
        ConfigError: another file.
    """
    known: dict[str, Row] = {}
    if path is None or not path.exists():
        return known
    names = make_row(Outcome(Scenario(0), ""))
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                continue
            try:
                row = json.loads(line)
                known[row["command"]] = {name: row[name] for name in names}
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{path}, line {number}: not a record of sim", "name another file"
                ) from error
    return known


def append(outcomes: Iterable[Outcome], path: Path | None) -> Iterator[tuple[Outcome, Row]]:
    """Pass outcomes on with their rows, and add a line for each to the record."""
    if path is None:
        for outcome in outcomes:
            yield outcome, make_row(outcome)
        return
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        for outcome in outcomes:
            row = make_row(outcome)
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            yield outcome, row


def tabulate(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """Return the sums over the rows, by number of nodes and by adversary."""
    tables: dict[str, dict[Any, Row]] = {"nodes": {}, "adversary": {}}
    for row in rows:
        for name, table in tables.items():
            total = table.get(row[name])
            if total is None:
                total = table[row[name]] = {
                    "seeds": 0, "broken": 0, **dict.fromkeys(COUNTED, 0),
                    "rounds": Counter(), "stalls": Counter(),
                }  # fmt: skip
            total["seeds"] += 1
            total["broken"] += bool(row["violation"])
            for counted in COUNTED:
                total[counted] += row[counted]
            total["rounds"][row["rounds"]] += 1
            total["stalls"].update(row["stalls"])
    return {name: {str(k): table[k] for k in sorted(table)} for name, table in tables.items()}


def lines(tables: dict[str, dict[str, Row]]) -> list[str]:
    """Return the tables for people."""
    text = []
    for name, table in tables.items():
        text.append(
            f"  {name:20} {'seeds':>7} {'broken':>6} {'crashes':>8} {'convicted':>9}"
            f" {'round 0':>7} {'1':>6} {'2':>6} {'3-9':>6} {'10-':>6}  stalls"
        )
        for key, total in table.items():
            rounds = total["rounds"]
            later = sum(n for r, n in rounds.items() if 3 <= r < 10)
            last = sum(n for r, n in rounds.items() if r >= 10)
            stalls = ", ".join(
                f"{n} {cause or 'UNEXPLAINED'}" for cause, n in sorted(total["stalls"].items())
            )
            text.append(
                f"  {key:20} {total['seeds']:7} {total['broken']:6} {total['crashes']:8}"
                f" {total['convicted']:9} {rounds[0]:7} {rounds[1]:6} {rounds[2]:6} {later:6}"
                f" {last:6}  {stalls or '-'}"
            )
    return text
