"""With `auto` a node asks a while, for peers come one by one; and no longer than it must."""

from __future__ import annotations

import pytest
import trio
from factories import GrowingChain, make_slashed_chain
from node.snapshot_world import World

from mlchain import codec
from mlchain.node import catchup, statesync
from mlchain.node.catchup import start_from_snapshot
from mlchain.node.snapshots import OFFERS_PROTOCOL, Offers
from mlchain.node.statesync import StateSync


@pytest.fixture(scope="module")
def chain() -> GrowingChain:
    return make_slashed_chain(3)


@pytest.fixture
def world(chain, tmp_path, monkeypatch) -> World:
    monkeypatch.setattr(statesync, "RETRY_S", 0.01)
    monkeypatch.setattr(catchup, "AUTO_PATIENCE_S", 1000.0)
    return World(chain, tmp_path)


def start_beside_one_without_and_then_another(world: World) -> bool:
    """Start while the only peer has no snapshot; one that has comes when the first was asked."""
    asked = trio.Event()

    async def offer_nothing(peer: bytes, payload: bytes) -> bytes:
        asked.set()
        return codec.encode(Offers(()))

    world.handlers = {"a": {OFFERS_PROTOCOL: offer_nothing}}

    async def come_late() -> None:
        await asked.wait()
        async with world.serve("b").run():
            await trio.sleep_forever()

    async def main() -> bool:
        async with world.serve("a").run(), trio.open_nursery() as nursery:
            nursery.start_soon(come_late)
            with trio.fail_after(60):
                done = await start_from_snapshot(
                    world.kv, world.chain.genesis, world.transport("new"),
                    world.folder / "new", is_needed=False,
                )  # fmt: skip
            nursery.cancel_scope.cancel()
        return done

    return trio.run(main)


def test_a_peer_that_comes_a_little_later_is_still_asked(world):
    assert start_beside_one_without_and_then_another(world)
    assert world.open().height == world.chain.store.height


def test_control_asking_once_whoever_is_there_the_node_goes_on_without(world, monkeypatch):
    fetch = StateSync.fetch

    async def once(sync, above, patience_s, is_needed):
        return await fetch(sync, above, 0, is_needed)

    monkeypatch.setattr(StateSync, "fetch", once)
    assert not start_beside_one_without_and_then_another(world)


@pytest.mark.parametrize("is_served", [True, False])
def test_when_all_there_are_offer_nothing_it_goes_on_at_once(world, is_served):
    async def nothing(peer: bytes, payload: bytes) -> bytes:
        return codec.encode(Offers(()))

    world.handlers = {name: {OFFERS_PROTOCOL: nothing} for name in world.names}
    serve = world.serve if is_served else world.transport
    world.serve = serve  # one that begins itself serves nothing yet
    assert world.start(is_needed=False) is False
