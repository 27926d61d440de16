"""Parameters leave members able to do their duties; what became of them reads alike everywhere."""

from __future__ import annotations

import pytest
from vm.world import World

from mlchain.ledger.genesis import CLAIM_GAS
from mlchain.node.mempool import max_duty_gas
from mlchain.vm.families.governance import DECIDED
from mlchain.vm.params import RANGES


def test_a_claim_fits_the_half_of_a_block_that_is_for_duties():
    low, _ = RANGES["max_block_gas"]
    assert max_duty_gas(low) >= CLAIM_GAS > max_duty_gas(low - 2), "control: not in a smaller one"


@pytest.mark.parametrize("letter", ["\U00011f00", "é"])
def test_why_a_change_failed_is_told_in_ascii(letter):
    """Which letters `repr` shows as they are differs by Python, and all nodes hash the reason."""
    world = World()
    one, two = (
        world.propose(world.add(key, "observer", bond=0, name=letter)) for key in ("one", "two")
    )
    world.end_epoch()
    assert (world.outcome(one), world.outcome(two)) == ("effective", "failed")
    reason = DECIDED.get(world.state(), two).reason
    assert reason.isascii() and letter.encode("ascii", "backslashreplace").decode() in reason
