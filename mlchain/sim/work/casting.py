"""Which adversary plays at which place. At most f validators and all workers but one are bad."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from mlchain.ledger.genesis import Member
from mlchain.sim.scenario import Scenario
from mlchain.sim.work.cheat import Cheat
from mlchain.sim.work.cheats import CHEATS
from mlchain.sim.work.cheats.liars import Twins
from mlchain.sim.work.cheats.proposers import NarrowChain
from mlchain.sim.work.mutants import MUTANTS

if TYPE_CHECKING:
    from mlchain.sim.work.world import World

CHANCES = {"worker": 0.6, "validator": 0.6, "submitter": 0.25, "network": 0.15}
"""How likely a seed has one of each kind."""
BY_NAME = (
    "accomplice", "hush", "lend-key", "odd-list", "order-twice", "own-work", "repeat",
)  # fmt: skip
"""Who plays only when named; one more to draw from would make every seed another run."""


def draw(scenario: Scenario, rng: Random) -> list[str]:
    """Return the names of who misbehaves."""
    drawn = []
    for role, chance in CHANCES.items():
        names = [n for n, kind in CHEATS.items() if kind.corrupts == role and n not in BY_NAME]
        name = rng.choice(names)
        if rng.random() < chance:
            drawn.append(name)
    named = scenario.adversary or (MUTANTS[scenario.mutant].adversary if scenario.mutant else "")
    if named:
        drawn = [] if named == "none" else named.split("+")
    if any(CHEATS[name].accomplice for name in drawn):  # the validators are taken
        drawn = [name for name in drawn if CHEATS[name].corrupts != "validator"]
    if scenario.nodes < 4:
        drawn = [name for name in drawn if CHEATS[name].corrupts not in ("validator", "operator")]
    return drawn


def twins(names: list[str], members: list[Member], rng: Random) -> list[Member]:
    """Return the members that run twice: as many as may be faulty."""
    validators = [m for m in members if m.role == "validator"]
    count = (len(validators) - 1) // 3 if "twins" in names else 0
    return rng.sample(validators, count)


def cast(world: World, names: list[str], rng: Random) -> list[Cheat]:
    """Give each adversary its places."""
    cheats: list[Cheat] = []
    for name in names:
        kind = CHEATS[name]
        if kind.corrupts == "worker":
            workers = [p for p in world.places if p.role == "worker" and p.is_honest]
            bad = rng.sample(workers, len(workers) - 1 if rng.random() < 0.8 else 1)
            cheats += [kind(world, place, rng) for place in bad]
            if kind.accomplice:
                cheats += _validators(world, CHEATS[kind.accomplice], rng)
        elif kind.corrupts == "validator":
            cheats += _validators(world, kind, rng)
        elif kind.corrupts == "operator":
            keys = [p.key for p in world.places]
            cheats += [kind(world, p, rng) for p in world.places if keys.count(p.key) > 1]
        else:
            cheats.append(kind(world, None, rng))
    friends = tuple(p.key for p in world.places if not p.is_honest and p.role == "validator")
    for place in world.places:
        chain = getattr(place.node_type, "chain_type", None)
        if isinstance(chain, type) and issubclass(chain, NarrowChain):
            place.node_type.chain_type = type("Narrow", (chain,), {"friends": friends})
    return cheats


def _validators(world: World, kind: type[Cheat], rng: Random) -> list[Cheat]:
    validators = [p for p in world.places if p.role == "validator" and p.is_honest]
    if issubclass(kind, Twins):
        keys = [p.key for p in validators]
        return [kind(world, p, rng) for p in validators if keys.count(p.key) > 1]
    faults = (world.scenario.nodes - 1) // 3
    bad = rng.sample(validators, min(faults, len(validators)))
    return [kind(world, place, rng) for place in bad]
