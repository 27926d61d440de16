"""`mlchain sim`: a whole cluster in bad weather, from a number."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.errors import VerificationFailed

if TYPE_CHECKING:
    from mlchain.sim.cluster import Outcome

MAX_NODES = 31


@click.command(
    "sim",
    cls=Command,
    examples=(
        "mlchain sim --seed 7 -v",
        "mlchain sim --seed 0 --count 1000",
        "mlchain sim --seed 0 --count 500 --mutant no-lock",
    ),
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--count", type=click.IntRange(1, 10**7), default=1, help="Run this many seeds from --seed on."
)
@click.option(
    "--nodes", type=click.IntRange(1, MAX_NODES), default=4, show_default=True, help="Validators."
)
@click.option(
    "--adversary", default="", help="Who misbehaves, or none; by default drawn from the seed."
)
@click.option("--mutant", default="", help="Run with a deliberate bug, to see it found.")
@click.pass_obj
def command(out: Output, seed: int, count: int, nodes: int, adversary: str, mutant: str) -> None:
    """Simulate agreement: the real code of every validator, an invented network and time.

    Messages are lost, delayed and doubled, partitions move, nodes crash and lose what was not
    synced, one validator in three may lie. One seed is one run, the same on every machine.

    With -v and one seed the transcript is printed. Exits with 7 when a promise was broken:
    two honest nodes disagreed, an honest node signed two things, or the chain stopped for good.
    """
    from mlchain.sim.adversary import ADVERSARIES
    from mlchain.sim.cluster import Scenario, run
    from mlchain.sim.mutants import MUTANTS

    _check_name("--adversary", adversary, {**ADVERSARIES, "none": None})
    _check_name("--mutant", mutant, MUTANTS)
    started = time.monotonic()
    outcomes: list[Outcome] = []
    broken: list[Outcome] = []
    for number in range(seed, seed + count):
        transcript = out.verbose and count == 1
        outcome = run(Scenario(number, nodes, adversary, mutant, transcript=transcript))
        outcomes.append(outcome)
        if outcome.violation:
            broken.append(outcome)
            out.note(f"✗ seed {number}  {outcome.adversary or 'no adversary'}: {outcome.violation}")
        elapsed = time.monotonic() - started
        out.live(f"seed {number}  {len(outcomes) / elapsed:.0f} seeds/s  {len(broken)} broken")
    out.result("sim", _data(outcomes, broken), _lines(outcomes, broken, elapsed))
    if broken:
        first = broken[0].scenario
        raise VerificationFailed(
            f"{len(broken)} of {count} seeds broke a promise",
            f"mlchain sim --seed {first.seed} --nodes {nodes} -v"
            + (f" --adversary {adversary}" if adversary else "")
            + (f" --mutant {mutant}" if mutant else ""),
        )


def _check_name(option: str, name: str, table: dict[str, Any]) -> None:
    if name and name not in table:
        raise click.BadParameter(
            f"no {name!r}; one of {', '.join(sorted(table))}", param_hint=option
        )


def _data(outcomes: list[Outcome], broken: list[Outcome]) -> dict[str, Any]:
    return {
        "seeds": len(outcomes),
        "first_seed": outcomes[0].scenario.seed,
        "broken": [
            {"seed": o.scenario.seed, "adversary": o.adversary, "violation": o.violation}
            for o in broken
        ],
        "events": sum(o.events for o in outcomes),
        "virtual_ms": sum(o.virtual_ms for o in outcomes),
        "crashes": sum(o.crashes for o in outcomes),
        "convicted": sum(o.convicted for o in outcomes),
        "digest": outcomes[0].digest if len(outcomes) == 1 else "",
    }


def _lines(outcomes: list[Outcome], broken: list[Outcome], elapsed: float) -> list[str]:
    data = _data(outcomes, broken)
    lines = [line for outcome in outcomes for line in outcome.transcript]
    mark = "✗" if broken else "✓"
    lines.append(
        f"{mark} {data['seeds']} seeds, {len(broken)} broken: {data['events']} events, "
        f"{data['crashes']} crashes, {data['convicted']} liars convicted"
    )
    lines.append(
        f"  {data['virtual_ms'] / 1000:.0f} s of simulated time in {elapsed:.1f} s, "
        f"{len(outcomes) / elapsed:.0f} seeds/s"
    )
    if data["digest"]:
        lines.append(f"  digest {data['digest']}")
    return lines
