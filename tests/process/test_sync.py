"""News of a block may be lost; blocks must come all the same. And who is wrong is not believed."""

import pytest
import trio
import trio.testing

from mlchain import codec
from mlchain.errors import Pruned, Timeout, Unreachable
from mlchain.node import sync as sync_module
from mlchain.node.sync import BlocksAnswer, BlocksRequest, BlockSync


class Peers:
    """A transport whose peers answer from a table: a height, or an error."""

    def __init__(self, heights: dict[bytes, int | Exception]) -> None:
        self.heights, self.asked = heights, []

    def peers(self):
        return [type("Status", (), {"peer": peer, "connected": True}) for peer in self.heights]

    async def request(self, peer, protocol, payload, max_bytes, timeout_s):
        self.asked.append(peer)
        await trio.lowlevel.checkpoint()
        there = self.heights[peer]
        if isinstance(there, Exception):
            raise there
        first = codec.decode(BlocksRequest, payload).first
        return codec.encode(BlocksAnswer((), there)) if there < first else b"blocks"


class Chain:
    """A store that counts; every fetch that finds something takes one block."""

    height = 0


def make(monkeypatch, heights):
    monkeypatch.setattr(sync_module, "RETRY_S", 0.01)
    monkeypatch.setattr(sync_module, "QUIET_S", 0.02)
    chain, peers = Chain(), Peers(heights)
    sync = BlockSync(chain, peers, lambda block, commit: None)
    plain = sync._fetch

    async def fetch(peer):
        try:
            await plain(peer)
        except sync_module.CodecError:
            chain.height += 1  # "blocks" came

    sync._fetch = fetch
    return chain, peers, sync


def play(sync, until, news=None):
    async def scenario():
        if news:
            sync.want(*news)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync.run)
            with trio.fail_after(20):
                while not until():
                    await trio.sleep(0.005)
            nursery.cancel_scope.cancel()

    trio.run(scenario)


def test_without_any_news_somebody_is_asked(monkeypatch):
    chain, _, sync = make(monkeypatch, {b"a": 3})
    play(sync, lambda: chain.height == 3)


def test_when_the_herald_is_gone_another_peer_is_asked(monkeypatch):
    chain, peers, sync = make(monkeypatch, {b"a": Unreachable("gone"), b"b": 2})
    monkeypatch.setattr(sync_module, "QUIET_S", 1000)
    play(sync, lambda: chain.height == 2, (b"a", 2))
    assert peers.asked[0] == b"a"


def test_a_height_that_nobody_has_is_forgotten(monkeypatch):
    _, peers, sync = make(monkeypatch, {b"a": 0, b"b": 0, b"c": 0})
    monkeypatch.setattr(sync_module, "QUIET_S", 1000)
    play(sync, lambda: sync._wanted is None, (b"a", 10**9))
    assert set(peers.asked) == {b"a", b"b", b"c"}


def test_a_peer_that_removed_the_block_is_passed_over_whoever_said_it_is_ahead(monkeypatch):
    chain, peers, sync = make(monkeypatch, {b"a": Pruned("below 90"), b"b": 4})
    play(sync, lambda: chain.height == 4, (b"a", 100))
    assert peers.asked.count(b"a") == 1, "it has to be passed over"


def test_a_peer_that_removed_a_block_is_asked_again_later(monkeypatch):
    monkeypatch.setattr(sync_module, "PRUNED_S", 0)
    chain, peers, sync = make(monkeypatch, {b"a": Pruned("below 90"), b"b": 4})

    def has_come():  # in one run: each has a clock of its own
        if chain.height == 4:
            peers.heights[b"a"] = 6
        return chain.height == 6

    play(sync, has_come, (b"a", 100))


class SlowPeers(Peers):
    """Peers that take their time to answer, in seconds; `Timeout` where it is more than allowed."""

    def __init__(self, heights, delays):
        super().__init__(heights)
        self.delays = delays

    async def request(self, peer, protocol, payload, max_bytes, timeout_s):
        await trio.sleep(min(self.delays[peer], timeout_s))
        if self.delays[peer] > timeout_s:
            self.asked.append(peer)
            raise Timeout("no answer")
        return await super().request(peer, protocol, payload, max_bytes, timeout_s)


def waits(monkeypatch, delays, goal):
    """Seconds of invented time until `goal` blocks are there, and who was asked."""
    chain, _, sync = make(monkeypatch, {})
    sync._transport = peers = SlowPeers(dict.fromkeys(delays, 50), delays)

    async def scenario():
        started = trio.current_time()
        sync.want(b"a", 50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync.run)
            while chain.height < goal:
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        return trio.current_time() - started

    seconds = trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
    return seconds, peers.asked


@pytest.mark.parametrize("is_patient", [False, True])
def test_a_silent_peer_is_left_for_another_after_seconds(monkeypatch, is_patient):
    if is_patient:
        monkeypatch.setattr(sync_module, "FIRST_TIMEOUT_S", sync_module.TIMEOUT_S)
    seconds, asked = waits(monkeypatch, {b"a": 3_600, b"b": 0.1}, goal=1)
    assert asked[0] == b"a"
    assert (seconds < 2 * 3.0) is not is_patient


def test_a_slow_peer_is_given_the_time_it_takes_and_is_not_cut_off_for_each_answer(monkeypatch):
    seconds, asked = waits(monkeypatch, {b"a": 10.0}, goal=10)
    assert len(asked) == 10 + 2, "two answers were cut off before it had enough time"
    assert seconds < 10 * 10.0 + 3 + 6 + 2
