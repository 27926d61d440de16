"""What is run, and what came of it; the same words for both worlds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

WORLDS = ("agreement", "work")
HEIGHTS = 4


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. `adversary` "" draws from the seed; `mutant` "" is the real code.

    `world` "agreement": the drivers over a toy ledger, `heights` blocks of it. "work": whole nodes
    that train, audit and judge. `calm`: no bad weather and no crashes.
    """

    seed: int
    nodes: int = 4
    adversary: str = ""
    mutant: str = ""
    heights: int = HEIGHTS
    transcript: bool = False
    world: str = "agreement"
    calm: bool = False
    orders: int = 0
    """At most so many jobs are ordered; 0: as many as the seed draws."""

    @property
    def command(self) -> str:
        """The command that runs it again."""
        words = ["mlchain sim", *([] if self.world == WORLDS[0] else [f"--world {self.world}"])]
        words.append(f"--seed {self.seed}")
        words.append(f"--nodes {self.nodes}")
        words += [f"--adversary {self.adversary}"] if self.adversary else []
        words += [f"--mutant {self.mutant}"] if self.mutant else []
        words += [f"--heights {self.heights}"] if self.heights != HEIGHTS else []
        words += [f"--orders {self.orders}"] if self.orders else []
        words += ["--calm"] if self.calm else []
        return " ".join(words)


class Happening(NamedTuple):
    """One thing to draw: when, in which lane ("" for all), what it is, and what to write at it."""

    at_ms: int
    lane: str
    kind: str
    text: str


@dataclass(slots=True)
class Outcome:
    """What came of a run. `violation` is empty if every promise held."""

    scenario: Scenario
    adversary: str
    violation: str = ""
    events: int = 0
    virtual_ms: int = 0
    heights: list[int] = field(default_factory=list)
    convicted: int = 0
    crashes: int = 0
    digest: str = ""
    """Of all that happened: equal digests, equal runs."""
    transcript: list[str] = field(default_factory=list)
    lanes: list[str] = field(default_factory=list)
    story: list[Happening] = field(default_factory=list)
    """For the picture; told with the transcript only."""
    hard: int = 0
    """Segments that became HARD."""
    claims: int = 0
    rounds: int = 0
    """The highest round in which something was decided."""
    stalls: list[str] = field(default_factory=list)
    """The cause of each stall, "" for an unexplained one."""
    jobs: dict[str, int] = field(default_factory=dict)
    """How jobs ended, by state."""
