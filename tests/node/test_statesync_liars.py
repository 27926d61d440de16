"""State sync beside peers that offer what is not there, lead nowhere, or take for ever."""

from __future__ import annotations

import pytest
import structlog
import trio
from factories import GrowingChain, make_slashed_chain
from node.snapshot_world import ROLES, World

from mlchain import codec
from mlchain.consensus import light
from mlchain.consensus.light import LightPath, LightQuestion, make_light_block, make_path
from mlchain.errors import NotFound
from mlchain.ledger.block import header_id
from mlchain.ledger.merkle import CHUNKS
from mlchain.node import statesync
from mlchain.node.snapshots import CHUNK_PROTOCOL, LIGHT_PROTOCOL, OFFERS_PROTOCOL, Offers

FAKE = 2**40
"""Higher than any block, so it is tried before what the others offer."""


@pytest.fixture(scope="module")
def chain() -> GrowingChain:
    return make_slashed_chain(3)


class Liar:
    """Offers heights that nobody has, and answers questions for the way with `reply`."""

    def __init__(self, world: World, reply, offered=(FAKE,)) -> None:
        self.asked: list[LightQuestion] = []
        self.reply, self.offered = reply, offered
        world.handlers["a"] = {OFFERS_PROTOCOL: self.offer, LIGHT_PROTOCOL: self.lead}

    async def offer(self, peer: bytes, payload: bytes) -> bytes:
        return codec.encode(Offers(self.offered))

    async def lead(self, peer: bytes, payload: bytes) -> bytes:
        self.asked.append(codec.decode(LightQuestion, payload))
        return codec.encode(LightPath(await self.reply(self.asked[-1])))


@pytest.fixture
def world(chain, tmp_path) -> World:
    return World(chain, tmp_path)


def named(logs) -> set[str]:
    return {line["peer"] for line in logs if line["event"] == "lying-peer"}


LIAR = {ROLES["a"].hex()[:8]}


@pytest.mark.parametrize("count", [0, 2])
def test_no_block_or_two_in_place_of_the_trusted_one_names_the_peer(world, chain, count):
    async def reply(question):
        return (make_light_block(chain.store, 2),) * count

    Liar(world, reply)
    with structlog.testing.capture_logs() as logs:
        assert world.start(trust=(2, header_id(chain.store.header(2))))
    assert named(logs) == LIAR and world.open().height == chain.store.height


def step_by_step(chain):
    """Answer with the next block alone, however far the question goes."""

    async def reply(question):
        return (make_light_block(chain.store, min(question.after + 1, chain.store.height)),)

    return reply


def test_a_peer_that_leads_one_block_at_a_time_is_named_at_the_first(world, chain):
    liar = Liar(world, step_by_step(chain))
    with structlog.testing.capture_logs() as logs:
        assert world.start()
    assert named(logs) == LIAR and len(liar.asked) == 1
    assert world.open().height == chain.store.height


def test_control_without_that_rule_it_leads_through_every_block_there_is(world, chain, monkeypatch):
    monkeypatch.setattr(statesync, "require_milestone", lambda block, height: None)
    liar = Liar(world, step_by_step(chain))
    assert world.start()
    assert len(liar.asked) > chain.store.height, "each may take as long as an answer may"


async def silent(question):
    await trio.sleep_forever()


def ask_beside_a_silent_one(world, monkeypatch) -> int:
    """Return how often a peer is asked that offers 16 heights and never answers."""
    monkeypatch.setattr(statesync, "TIMEOUT_S", 0.1)
    liar = Liar(world, silent, tuple(range(FAKE, FAKE + 16)))
    assert world.start()
    assert world.open().height == world.chain.store.height
    return len(liar.asked)


def test_a_peer_has_a_time_to_lead_whatever_it_offers_and_then_the_others_do(world, monkeypatch):
    monkeypatch.setattr(statesync, "WAY_S", 0.15)
    assert ask_beside_a_silent_one(world, monkeypatch) <= 2


def test_control_without_that_time_it_is_waited_for_at_every_height(world, monkeypatch):
    monkeypatch.setattr(statesync, "WAY_S", float("inf"))
    assert ask_beside_a_silent_one(world, monkeypatch) == 16


# ---- chunks


def fetch_beside_one_that_hangs(world) -> int:
    """Return how many chunks a peer is asked for that answers none before all others are had."""
    asked: list[bytes] = []

    async def hang(peer: bytes, payload: bytes) -> bytes:
        asked.append(payload)
        while sum(map(len, world.served.values())) < CHUNKS - 2:
            await trio.sleep(0.01)
        raise NotFound("not any more")

    world.handlers["b"] = {CHUNK_PROTOCOL: hang}
    assert world.start()
    assert world.open().height == world.chain.store.height
    return len(asked)


def test_a_peer_that_hangs_holds_two_chunks_while_the_others_give_the_rest(world):
    assert fetch_beside_one_that_hangs(world) <= 4, "the last two are asked for again"


def test_control_each_in_its_turn_all_wait_for_the_one_that_hangs(world, monkeypatch):
    monkeypatch.setattr(statesync, "TIMEOUT_S", 0.02)
    monkeypatch.setattr(
        statesync.StateSync, "_in_turn",
        lambda sync, peers, index: peers[index % 3 :] + peers[: index % 3],
    )  # fmt: skip
    assert fetch_beside_one_that_hangs(world) > CHUNKS // 4


# ---- honest peers


def test_an_honest_answer_is_changes_and_the_block_asked_also_in_parts(world, chain, monkeypatch):
    store = chain.store
    for after in range(store.height):
        for height in range(after + 1, store.height + 1):
            for block in make_path(store, LightQuestion(after, height)).blocks:
                statesync.require_milestone(block, height)
    monkeypatch.setattr(light, "MAX_PATH", 1)
    with structlog.testing.capture_logs() as logs:
        assert world.start()
    assert named(logs) == set() and world.open().set_changes == store.set_changes
