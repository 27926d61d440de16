"""What it costs to keep a dataset from being confirmed, by false numbers in every block."""

from __future__ import annotations

from vm.world import CONTENT, FEATURES, ROWS, World

from mlchain.consensus.work.attestation import Available
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.data import DATASETS, RegisterData, is_available
from mlchain.vm.families.members import get_validator_set

RIVAL = "validator-0"
RIGHT, WRONG = RegisterData(CONTENT, 9_999, ROWS, FEATURES), RegisterData(CONTENT, 9_999, 1, 1)
PRICE = 105_340
"""Micro-credits for one registration at the lowest price."""


def is_held(world: World) -> bool:
    return is_available(world.state(), CONTENT, get_validator_set(world.state()))


def test_who_delays_it_pays_for_every_block_and_it_is_confirmed_two_blocks_after_the_last():
    world = World()
    assert world.do("alice", Transfer(world.key(RIVAL).public, 10**8)).code == "ok"
    world.do("alice", RIGHT)
    record = DATASETS.get(world.state(), CONTENT)
    assert record is not None
    before, blocks = world.balance(RIVAL), 5
    for _ in range(blocks):
        for name in world.validators:
            world.say(name, "available", Available(CONTENT, record.facts))
        world.block(
            world.transaction("alice", RIGHT),
            world.transaction(RIVAL, WRONG, gas_price=1),
            proposer="validator-1",
        )
        assert not is_held(world)
    assert before - world.balance(RIVAL) == blocks * PRICE
    world.do("alice", RIGHT)
    world.hold()
    assert is_held(world)
