"""Attack 20: a rich member computes more than all others together, and wants the votes for it.

Its votes stay one; its turns to propose are capped, late by two epochs, and leave all others a
floor. The control gives turns by work alone.
"""

from __future__ import annotations

from attacks.test_22_censor import plain_round_robin
from msgspec.structs import replace
from vm.world import PARAMS, World, make_genesis

from mlchain.ledger import validators
from mlchain.ledger.validators import make_schedule
from mlchain.vm.credits import WORK, Work
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.turns import share_turns

EPOCH = 6
RICH = 10**15


def make_world(monkeypatch) -> World:
    """Seven validators, one of which does nearly all work of epoch 1."""
    world = World(genesis=make_genesis(7, params=replace(PARAMS, epoch_blocks=EPOCH)))
    rich = get_validator_set(world.state()).keys[0]
    read = {1: {rich: RICH, get_validator_set(world.state()).keys[1]: 1}}
    monkeypatch.setattr("mlchain.vm.turns.get_work", lambda state, epoch: read.get(epoch, {}))
    return world


def turns_of(world: World) -> tuple[int, ...]:
    return get_validator_set(world.state()).turns


def share_of_the_rich(world: World) -> float:
    """How many of the next blocks are its own to propose, once its work has earned it turns."""
    world.blocks(3 * EPOCH)
    found, blocks = get_validator_set(world.state()), range(world.height, world.height + 700)
    return sum(found.proposer(height, 0) == found.keys[0] for height in blocks) / len(blocks)


def test_work_earns_turns_two_epochs_later_and_for_one_epoch(monkeypatch):
    world = make_world(monkeypatch)
    for epoch in range(5):
        rich = turns_of(world)[0]
        assert (rich > 1) == (epoch == 3), f"epoch {epoch}"
        while (world.height + 1) // EPOCH == epoch:
            world.block()


def test_compute_buys_no_votes_and_no_more_than_the_cap(monkeypatch):
    world = make_world(monkeypatch)
    world.blocks(3 * EPOCH)
    found = get_validator_set(world.state())
    assert [found.weight(key) for key in found.keys] == [1] * 7
    assert found.quorum == 5
    assert found.turns[0] / sum(found.turns) < 0.3
    assert min(found.turns) / sum(found.turns) >= 0.3 / 7


def test_so_it_proposes_at_most_three_blocks_in_ten(monkeypatch):
    assert 1 / 7 < share_of_the_rich(make_world(monkeypatch)) < 0.3


def test_f_members_who_do_all_the_work_never_propose_f_plus_1_times_in_a_row():
    slots = make_schedule(share_turns([RICH, RICH, 0, 0, 0, 0, 0]))
    honest = [i for i, who in enumerate(slots) if who > 1]
    gaps = [b - a for a, b in zip(honest, [*honest[1:], honest[0] + len(slots)], strict=True)]
    assert max(gaps) <= 3


def by_work_alone(units: list[int]) -> tuple[int, ...]:
    """Turns in proportion to work, in hundredths; one for whoever has less."""
    return tuple(max(1, 100 * own // (sum(units) or 1)) for own in units)


def test_control_turns_by_work_alone_let_one_member_propose_nearly_always(monkeypatch):
    """It would choose what every block holds, or halt the chain by silence."""
    monkeypatch.setattr("mlchain.vm.turns.share_turns", by_work_alone)
    monkeypatch.setattr(validators, "make_schedule", plain_round_robin)
    assert share_of_the_rich(make_world(monkeypatch)) > 0.9


def test_the_record_of_work_is_what_the_turns_are_read_from():
    world = World(genesis=make_genesis(4, params=replace(PARAMS, epoch_blocks=EPOCH)))
    state = world.state()
    key = get_validator_set(state).keys[0]
    WORK.put(state, Work(7), 1, key)
    from mlchain.vm.credits import get_work

    assert get_work(state, 1) == {key: 7}
