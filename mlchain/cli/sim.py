"""`mlchain sim`: a whole cluster in bad weather, from a number."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.errors import ConfigError, VerificationFailed

if TYPE_CHECKING:
    from mlchain.sim.scenario import Outcome, Scenario

MAX_NODES = 31
MAX_PROCESSES = 256
SHOWN = 20
"""Broken seeds listed one by one; the record and --json have all."""


class BrokenSeed(TypedDict):
    """A seed that broke a promise."""

    seed: int
    nodes: int
    adversary: str
    violation: str


class Sums(TypedDict):
    """Sums over some seeds; `rounds` and `stalls` count seeds by last round, stalls by cause."""

    seeds: int
    broken: int
    events: int
    crashes: int
    convicted: int
    rounds: dict[str, int]
    stalls: dict[str, int]


class Tables(TypedDict):
    """Sums by number of nodes, and by adversary."""

    nodes: dict[str, Sums]
    adversary: dict[str, Sums]


class Simulated(TypedDict):
    """Sums over the seeds that were run; `digest` is that of the transcript of one."""

    seeds: int
    first_seed: int
    broken: list[BrokenSeed]
    tables: Tables
    recorded_before: int
    events: int
    virtual_ms: int
    crashes: int
    convicted: int
    hard: int
    claims: int
    jobs: dict[str, int]
    digest: str


@click.command(
    "sim",
    cls=Command,
    answers={"sim": Simulated},
    examples=(
        "mlchain sim --seed 7 -v",
        "mlchain sim --world work --seed 7 --picture seven.svg",
        "mlchain sim --world work --adversary skip+lie --count 20",
        "mlchain sim --night --count 100000 --jobs 8 --record night.jsonl",
        "mlchain sim --seed 0 --count 500 --mutant no-lock",
    ),
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--count", type=click.IntRange(1, 10**7), default=1, help="Run this many seeds from --seed on."
)
@click.option(
    "--world", type=click.Choice(("agreement", "work")), default="agreement", show_default=True,
    help="Only the agreement, which is fast; or whole nodes that train, audit and judge.",
)  # fmt: skip
@click.option(
    "--nodes", type=click.IntRange(1, MAX_NODES), default=4, show_default=True, help="Validators."
)
@click.option(
    "--adversary", default="",
    help="Who misbehaves (in world work several, joined by +), or none; by default drawn.",
)  # fmt: skip
@click.option("--mutant", default="", help="Run with a deliberate bug, to see it found.")
@click.option("--calm", is_flag=True, help="World work: no bad weather and no crashes.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), default=None,
              help="Draw the one seed into this SVG file.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, MAX_PROCESSES), default=1, show_default=True,
              help="Processes.")  # fmt: skip
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), default=None,
              help="One line a seed; what stands in it already is not run again.")  # fmt: skip
@click.option("--night", is_flag=True, help="Sizes mixed: most seeds 4 nodes, some 7, 10 and 31.")
@click.option("--heights", type=click.IntRange(1, 100), default=4, show_default=True,
              help="World agreement: blocks to decide.")  # fmt: skip
@click.option("--orders", type=click.IntRange(0, 9), default=0,
              help="World work: at most so many jobs.")  # fmt: skip
@click.option("--shrink", is_flag=True, help="Look for a smaller run that breaks the same promise.")
@click.pass_obj
def command(
    out: Output,
    seed: int,
    count: int,
    world: str,
    nodes: int,
    adversary: str,
    mutant: str,
    calm: bool,
    picture: Path | None,
    jobs: int,
    record: Path | None,
    night: bool,
    heights: int,
    orders: int,
    shrink: bool,
) -> None:
    """Simulate a cluster: the real code of every node, an invented network and time.

    Messages are lost, delayed and doubled, partitions move, nodes crash and lose what was not
    synced, one validator in three may lie. One seed is one run, the same on every machine. In
    world work, workers cheat as well, and every segment that is paid for is checked.

    With -v and one seed the transcript is printed. Exits with 7 when a promise was broken:
    two honest nodes disagreed, an honest node signed two things, a fraud that an honest validator
    could see was paid, money appeared, or the chain or a job stopped for good.
    """
    from mlchain.sim.scenario import Scenario

    _check_names(world, adversary, mutant)
    if (picture or shrink) and count > 1:
        raise ConfigError("--picture and --shrink are for one seed", "leave --count out")
    tells = count == 1 and (out.verbose or picture is not None)
    first = Scenario(seed, nodes, adversary, mutant, heights, tells, world, calm, orders)
    deck = _Deck(out, first, count, night)
    deck.run(jobs, record)
    lines = deck.lines()
    if picture is not None:
        lines.append(_draw(deck.tally.last, picture))
    out.result("sim", deck.data(), lines)
    if deck.broken:
        worst = deck.broken[0]
        if shrink:
            _shrink(out, worst)
        raise VerificationFailed(
            f"{len(deck.broken)} of {count} seeds broke a promise", worst.command + " -v"
        )


def _check_names(world: str, adversary: str, mutant: str) -> None:
    from mlchain.sim.run import names_of_adversaries, names_of_mutants

    for name in adversary.split("+" if world == "work" else "\n"):
        _check_name("--adversary", name, [*names_of_adversaries(world), "none"])
    _check_name("--mutant", mutant, names_of_mutants(world))


def _check_name(option: str, name: str, names: list[str]) -> None:
    if name and name not in names:
        raise click.BadParameter(f"no {name!r}; one of {', '.join(sorted(names))}",
                                 param_hint=option)  # fmt: skip


def _draw(outcome: Outcome, picture: Path) -> str:
    from mlchain.client.userfile import write_file
    from mlchain.sim.picture import draw

    write_file(picture, draw(outcome))
    return f"  picture in {picture}"


def _shrink(out: Output, scenario: Scenario) -> None:
    from mlchain.sim.shrink import shrink

    small = shrink(scenario, lambda smaller: out.live(f"trying {smaller.command}"))
    out.note(f"smaller: {small.command} -v" if small != scenario else "no smaller run breaks it")


class _Deck:
    """Scenarios from a first seed on: those that a record knows already, and those to be run."""

    def __init__(self, out: Output, first: Scenario, count: int, is_mixed: bool) -> None:
        """`is_mixed`: of the sizes of a night, not all of that of `first`."""
        from mlchain.sim import night

        self._out = out
        self._night = night
        self.scenarios = [
            replace(first, seed=seed, nodes=night.nodes_of(seed) if is_mixed else first.nodes)
            for seed in range(first.seed, first.seed + count)
        ]
        self._rows: dict[str, Any] = {}
        self.tally = _Tally(out, count)

    def run(self, jobs: int, record: Path | None) -> None:
        """Run what the record does not know, and note it there."""
        from mlchain.sim.run import run_many

        self._rows = self._night.read(record)
        todo = [s for s in self.scenarios if s.command not in self._rows]
        self.tally = _Tally(self._out, len(todo))
        for outcome, row in self._night.append(run_many(todo, jobs), record):
            self.tally.add(outcome)
            self._rows[outcome.scenario.command] = row
        self.tally.stop()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What is known of each scenario."""
        return [self._rows[scenario.command] for scenario in self.scenarios]

    @property
    def broken(self) -> list[Scenario]:
        """Those in which a promise was broken."""
        return [s for s in self.scenarios if self._rows[s.command]["violation"]]

    def data(self) -> dict[str, Any]:
        """Return the document for programs."""
        names = BrokenSeed.__annotations__
        broken = [{n: row[n] for n in names} for row in self.rows if row["violation"]]
        return self.tally.data(self.scenarios[0].seed) | {
            "broken": broken,
            "tables": self._night.tabulate(self.rows),
            "recorded_before": len(self.scenarios) - self.tally.seeds,
        }

    def lines(self) -> list[str]:
        """Return the lines for people."""
        tables = self._night.lines(self._night.tabulate(self.rows))
        return self.tally.lines() + (tables if len(self.scenarios) > 1 else [])


class _Tally:
    """Counts over the seeds of one command."""

    def __init__(self, out: Output, total: int) -> None:
        self._out = out
        self._total = total
        self._started = time.monotonic()
        self._elapsed = 0.0
        self._sums: dict[str, int] = {}
        self.seeds = 0
        self.broken: list[Outcome] = []
        self.last: Any = None
        self._jobs: dict[str, int] = {}

    def add(self, outcome: Outcome) -> None:
        """Count one run, and say how far we are."""
        self.seeds += 1
        self.last = outcome
        for name in ("events", "virtual_ms", "crashes", "convicted", "hard", "claims"):
            self._sums[name] = self._sums.get(name, 0) + getattr(outcome, name)
        for state, number in outcome.jobs.items():
            self._jobs[state] = self._jobs.get(state, 0) + number
        if outcome.violation:
            self.broken.append(outcome)
            if len(self.broken) <= SHOWN:
                name = outcome.adversary or "no adversary"
                self._out.note(f"✗ seed {outcome.scenario.seed}  {name}: {outcome.violation}")
        elapsed = time.monotonic() - self._started
        rate = self.seeds / max(elapsed, 1e-9)
        left = (self._total - self.seeds) / rate
        self._out.live(
            f"{self.seeds} of {self._total} seeds  {rate:.1f} seeds/s  {len(self.broken)} broken"
            f"  {left:.0f} s left"
        )

    def stop(self) -> None:
        """Stop the clock."""
        self._elapsed = time.monotonic() - self._started

    def data(self, seed: int) -> dict[str, Any]:
        """Return the sums for programs."""
        return {
            "seeds": self.seeds,
            "first_seed": seed,
            **{name: self._sums.get(name, 0) for name in
               ("events", "virtual_ms", "crashes", "convicted", "hard", "claims")},
            "jobs": self._jobs,
            "digest": self.last.digest if self.seeds == 1 else "",
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Return the sums for people."""
        data, elapsed = self.data(0), self._elapsed
        lines = list(self.last.transcript) if self.seeds == 1 else []
        lines.append(
            f"{'✗' if self.broken else '✓'} {self.seeds} seeds, {len(self.broken)} broken: "
            f"{data['events']} events, {data['crashes']} crashes, "
            f"{data['convicted']} liars convicted"
        )
        if self._jobs:
            ended = ", ".join(f"{number} {state}" for state, number in sorted(self._jobs.items()))
            lines.append(
                f"  jobs {ended}; {data['hard']} segments HARD, {data['claims']} accusations"
            )
        lines.append(
            f"  {data['virtual_ms'] / 1000:.0f} s of simulated time in {elapsed:.1f} s, "
            f"{self.seeds / max(elapsed, 1e-9):.1f} seeds/s"
        )
        if data["digest"]:
            lines.append(f"  digest {data['digest']}")
        return lines
