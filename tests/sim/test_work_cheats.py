"""Every adversary of the attack table against whole nodes: what it wants does not happen."""

from __future__ import annotations

import pytest

from mlchain.sim.run import run
from mlchain.sim.scenario import Outcome, Scenario
from mlchain.sim.work.cheats import CHEATS
from mlchain.sim.work.world import World

SEED_OF = {"withhold": 1, "copy": 1, "two-roots": 1, "selective": 1, "false-unserved": 0}
"""Seeds that play it to the end, and are quick."""


def play(name: str, seed: int = 1) -> Outcome:
    scenario = Scenario(seed, 4, name, world="work")
    outcome = run(scenario)
    assert not outcome.violation, f"{scenario.command} -v: {outcome.violation}"
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHEATS if name != "accomplice"])
def test_it_changes_nothing_of_what_is_promised(name: str):
    for seed in range(4):
        play(name, seed)


@pytest.mark.parametrize("name", ["skip", "skip-steps", "other-order", "other-rate", "last-place"])
def test_a_worker_that_computes_something_else_is_slashed(name: str):
    seeds = {"skip-steps": 2}
    assert play(name, seeds.get(name, 1)).convicted


@pytest.mark.parametrize("name", ["lie", "equivocator", "twins", "liar"])
def test_a_validator_that_lies_is_slashed(name: str):
    assert play(name, 0).convicted == 1


def test_a_validator_that_lends_its_custody_key_is_reported_and_slashed():
    assert play("lend-key", 0).convicted == 1


def test_a_training_whose_seed_was_known_earns_nobody_turns():
    assert play("order-twice", 1).jobs == {"SETTLED": 2}


def test_an_accomplice_that_attested_the_forged_chunk_is_slashed_though_its_worker_admits():
    def faults(seed: int) -> str:
        world = World(Scenario(seed, 4, "collude", world="work"))
        assert not world.run().violation
        return " ".join(world.promises.slashed)

    found = map(faults, range(1, 9))  # in most seeds its slice holds another chunk
    assert any("false-attestation" in kinds and "admitted" in kinds for kinds in found)


def test_a_submitter_of_bombs_gets_none_of_them_accepted():
    assert set(play("bomb", 0).jobs) == {"SETTLED"}


def test_they_play_together_too():
    assert play("skip+wrong-verdicts+replay", 1).convicted


def test_every_row_of_the_table_has_an_adversary_that_names_it():
    """But 20: turns that were bought come two epochs later, when a run is over (tests/attacks)."""
    rows: set[int] = set()
    for kind in CHEATS.values():
        named = {int(word) for word in kind.row.split(" ") if word.isdigit()}
        assert named and kind.__doc__
        rows |= named
    assert set(range(1, 27)) - rows == {20}
