"""A validator's own hash chains: which holds which height, the next in time, and a restart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from msgspec.structs import replace
from vm.world import PARAMS, World, make_genesis

from mlchain.consensus.work.tickets import CUSTODY, PURPOSES
from mlchain.node import chains as chains_module
from mlchain.node.chains import OwnChains
from mlchain.vm.context import Payload

ME = "validator-0"
LENGTH, EPOCH = 4_096, 10
LONG = replace(PARAMS, ticket_heights=LENGTH, epoch_blocks=EPOCH)
SHORT = replace(LONG, ticket_heights=60)


def make_world(params=SHORT) -> World:
    return World(genesis=make_genesis(params=params))


def own(world: World) -> OwnChains:
    chains = OwnChains(world.genesis, world.key(ME))
    chains.follow(world.state())
    return chains


class Sent(list[Payload]):
    """Takes what would go to the network."""

    send = list.append


def renew(chains: OwnChains, height: int) -> Sent:
    sent = Sent()
    trio.run(chains.renew, height, EPOCH, sent)
    return sent


def renewed() -> tuple[World, OwnChains]:
    """A world in which a node has registered its second generation."""
    world = make_world()
    chains = own(world)
    world.blocks(30)
    (payload,) = renew(chains, world.height)
    assert world.do(ME, payload).code == "ok"
    chains.follow(world.state())
    return world, chains


def test_it_renews_in_time_and_not_before_and_until_it_is_on_chain() -> None:
    world = make_world()
    chains = own(world)
    assert [len(renew(chains, height)) for height in (5, 19, 20, 21)] == [0, 0, 1, 1]
    world, chains = renewed()
    assert renew(chains, world.height) == [], "the next is taken when this one has begun"


def test_its_elements_are_those_that_the_chain_expects_on_both_sides_of_a_boundary() -> None:
    world, chains = renewed()
    for purpose in PURPOSES:
        for height in (1, 59, 60, 61, 100, 120):
            assert chains.element(purpose, height) == world.element(ME, purpose, height)
        assert chains.element(purpose, 0) is None and chains.element(purpose, 121) is None


def test_after_a_restart_it_has_the_same_elements() -> None:
    world, chains = renewed()
    again = own(world)
    heights = [(purpose, height) for purpose in PURPOSES for height in (31, 60, 61, 120)]
    trio.run(again.prepare, world.height)
    assert [again.element(*at) for at in heights] == [chains.element(*at) for at in heights]


def count_turns_of_others(act: Callable[[], object]) -> int:
    """How often another task could do something while `act` ran."""

    async def main() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await trio.lowlevel.checkpoint()
            turns = 0
            result = act()
            if result is not None and not isinstance(result, bytes):
                await result
            nursery.cancel_scope.cancel()
        return turns

    return trio.run(main)


def test_after_a_restart_chains_are_made_between_other_things(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And then a vote computes none."""
    chains = own(make_world(LONG))
    strides = LENGTH // 1024
    assert count_turns_of_others(lambda: chains.prepare(0)) >= strides * len(PURPOSES) - 1
    monkeypatch.setattr(chains_module, "make_chain", None)
    assert chains.element(CUSTODY, 1) is not None


def test_control_without_preparing_the_first_vote_computes_a_whole_chain_alone() -> None:
    chains = own(make_world(LONG))
    assert count_turns_of_others(lambda: chains.element(CUSTODY, 1)) == 0


def test_chains_that_have_ended_are_forgotten_and_only_those_to_come_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, chains = renewed()
    trio.run(chains.prepare, 61)
    monkeypatch.setattr(chains_module, "make_chain", None)
    assert chains.element(CUSTODY, 61) is not None
    with pytest.raises(TypeError):
        chains.element(CUSTODY, 59)
