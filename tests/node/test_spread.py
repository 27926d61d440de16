"""Transactions get to every member, also to one that was away when they were sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
import trio.testing
from factories import TRANSACTION_GAS, GrowingChain, make_chain, make_key

from mlchain import codec
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.node import spread
from mlchain.node.inbox import MAX_BATCHES, MAX_BYTES, Inbox
from mlchain.node.spread import HEADS_TOPIC, Batch, HeadNews, Spread
from mlchain.p2p import peers
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.peers import MAX_VIOLATIONS
from mlchain.p2p.transport import Channel, PeerAddress
from mlchain.vm.families.accounts import Transfer

CHAIN: GrowingChain = make_chain()


class Member:
    """A chain, its network, and the spreading between them."""

    def __init__(self, hub: Hub, own: bytes, peers: list[bytes]) -> None:
        self.chain = make_chain().chain
        self.transport = MemoryTransport(
            hub, own, {peer: PeerAddress("", 0) for peer in peers if peer != own}
        )
        self.spread = Spread(self.chain, self.transport)
        self.transport.on_frame = self._on_frame
        self.transport.on_link = self.spread.on_link

    def _on_frame(self, peer: bytes, channel: int, frame: bytes) -> None:
        if channel == Channel.TRANSACTIONS:
            self.spread.receive(peer, frame)

    def submit(self, *transactions: bytes) -> None:
        for data in transactions:
            assert self.chain.add_transaction(data)
            self.spread.send(data)

    async def until(self, count: int) -> None:
        with trio.fail_after(10):
            while len(self.chain.mempool) < count:
                await trio.sleep(0.005)


def make_member() -> Member:
    """A member that nobody is linked with."""
    return Member(Hub(), make_key("peer").public, [])


@asynccontextmanager
async def members(count: int = 3, links: bool = True) -> AsyncIterator[list[Member]]:
    hub, keys = Hub(), [make_key(f"peer-{i}").public for i in range(count)]
    found = [Member(hub, key, keys) for key in keys]
    async with trio.open_nursery() as nursery:
        for member in found:
            if not links:
                member.transport.on_link = lambda peer: None
            await nursery.start(_run, member)
        yield found
        nursery.cancel_scope.cancel()


async def _run(member: Member, task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
    async with member.transport.run(), trio.open_nursery() as nursery:
        nursery.start_soon(member.spread.run_sender)
        nursery.start_soon(member.spread.run_receiver)
        task_status.started()
        await trio.sleep_forever()


def transfers(count: int, first: int = 0) -> list[bytes]:
    alice, chain_id = make_key("alice"), CHAIN.genesis.chain_id
    payload = codec.encode(Transfer(bytes(32), 1))
    bodies = (
        TransactionBody(chain_id, alice.public, nonce, TRANSACTION_GAS, 1, Transfer.KIND, payload)
        for nonce in range(first, first + count)
    )
    return [codec.encode(sign_transaction(body, alice)) for body in bodies]


def test_what_one_member_admits_waits_at_all_in_the_same_order():
    async def scenario() -> None:
        async with members() as (first, *others):
            sent = transfers(30)
            first.submit(*sent)
            for other in others:
                await other.until(30)
                assert list(other.chain.mempool) == sent

    trio.run(scenario)


def test_a_member_that_was_away_gets_what_waits_when_its_link_comes_up():
    async def scenario(links: bool) -> int:
        async with members(links=links) as (first, second, away):
            hub, keys = first.transport.hub, (first.transport, second.transport)
            for transport in keys:
                hub.cut(transport.public_key, away.transport.public_key)
            await trio.sleep(0.02)
            first.submit(*transfers(5))
            await second.until(5)
            assert len(away.chain.mempool) == 0
            for transport in keys:
                hub.heal(transport.public_key, away.transport.public_key)
            with trio.fail_after(10):
                while not all(peer.connected for peer in away.transport.peers()):
                    await trio.sleep(0.005)
            first.submit(*transfers(1, first=5))  # later than what was missed
            if links:
                await away.until(6)
            else:
                await away.until(1)
            return away.chain.mempool.ready

    assert trio.run(scenario, True) == 6
    assert trio.run(scenario, False) == 0, "the control: all that came waits behind a gap"


async def _hear(first: Member, second: Member, *frames: bytes) -> None:
    """Let the second member get these frames of the first."""
    peer = second.transport.public_key
    for frame in frames:
        with trio.fail_after(10):
            while not first.transport.send(peer, Channel.TRANSACTIONS, frame):
                await trio.sleep(0.005)


def forged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def faults(member: Member, other: Member) -> int:
    """Broken rules that a member has counted against another."""
    peer = other.transport.public_key
    return next(p.violations for p in member.transport.peers() if p.peer == peer)


@pytest.mark.parametrize(
    "bad",
    [b"", bytes(100), forged(transfers(1, first=30)[0])],
    ids=["empty", "zeros", "forged"],
)
def test_a_batch_counts_up_to_the_first_that_nobody_signed_and_its_sender_is_told_of(bad):
    async def scenario() -> None:
        async with members(2) as (first, second):
            before, after = transfers(20), transfers(3, first=20)
            await _hear(first, second, codec.encode(Batch((*before, bad, *after))))
            await second.until(20)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert list(second.chain.mempool) == before
            assert faults(second, first) == 1
            await _hear(first, second, codec.encode(Batch(after)))
            await second.until(23)
            assert faults(second, first) == 1, "the control: what is signed is no fault"

    trio.run(scenario)


FLOOD = 300
JUNK = codec.encode(Batch((b"junk",)))


@pytest.mark.parametrize("is_apart", [True, False])
def test_a_flood_fills_its_senders_queue_alone(is_apart):
    async def scenario() -> None:
        member, flooder, other = make_member(), bytes(32), bytes([1] * 32)
        with structlog.testing.capture_logs() as logs:
            for _ in range(FLOOD):
                member.spread.receive(flooder, JUNK)
            claim = transfers(1)[0]
            honest = other if is_apart else flooder  # the control: in the same queue it is lost
            member.spread.receive(honest, codec.encode(Batch((claim,))))
        assert [line["event"] for line in logs] == ["batch-dropped"], "one line for all of them"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.spread.run_receiver)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert (list(member.chain.mempool) == [claim]) is is_apart

    trio.run(scenario)


def test_batches_are_looked_at_in_turn_and_bounded_in_bytes_and_number():
    async def scenario() -> None:
        box, one, two = Inbox(), b"1" * 32, b"2" * 32
        assert [box.push(one, (b"%d" % n,), 1) for n in range(MAX_BATCHES + 1)][-2:] == [
            True,
            False,
        ]
        assert box.push(two, (b"a",), MAX_BYTES + 1), "one has room, however large"
        assert not box.push(two, (b"b",), 1)
        heard = [(await box.pop())[0] for _ in range(4)]
        assert heard == [one, two, one, one]
        assert box.push(two, (b"b",), 1), "room again"

    trio.run(scenario)


@pytest.mark.parametrize("is_cut_off", [True, False])
@pytest.mark.parametrize("frame", [b"no batch", JUNK], ids=["no batch", "no transaction"])
def test_who_goes_on_sending_what_no_member_sends_is_cut_off_and_the_log_stays_short(
    monkeypatch, caplog, frame, is_cut_off
):
    if not is_cut_off:
        monkeypatch.setattr(peers, "MAX_VIOLATIONS", 10**6)
    most = MAX_VIOLATIONS + 1 if is_cut_off else FLOOD

    async def scenario() -> None:
        async with members(2) as (first, second):
            second.transport.clock_ms = lambda: 0  # nothing is forgiven meanwhile
            await _hear(first, second, frame)
            for _ in range(FLOOD - 1):
                first.transport.send(second.transport.public_key, Channel.TRANSACTIONS, frame)
                await trio.testing.wait_all_tasks_blocked()
            assert faults(second, first) == most
            assert first.transport.peers()[0].connected is not is_cut_off

    trio.run(scenario)
    lines = [record for record in caplog.records if "broke a rule" in record.message]
    assert len(lines) == most


@pytest.mark.parametrize("room", [0, 3])
def test_a_link_that_comes_up_costs_as_much_as_it_takes(monkeypatch, room):
    member, sent = make_member(), []
    for data in transfers(30):
        member.chain.add_transaction(data)
    monkeypatch.setattr(spread, "BATCH_COUNT", 1)

    def send(peer: bytes, channel: int, frame: bytes) -> bool:
        sent.append(frame)
        return len(sent) <= room

    member.transport.send = send
    member.spread.on_link(bytes(32))
    assert len(sent) == room + 1, "nothing is encoded after the first that was refused"


@pytest.mark.parametrize("limit", [1_000, 10**9])
def test_a_link_that_comes_up_is_sent_so_many_bytes(monkeypatch, limit):
    member, sent = make_member(), []
    for data in transfers(30):
        member.chain.add_transaction(data)
    monkeypatch.setattr(spread, "BATCH_COUNT", 1)
    monkeypatch.setattr(spread, "RESENT_BYTES", limit)
    member.transport.send = lambda peer, channel, frame: not sent.append(frame)
    member.spread.on_link(bytes(32))
    total = sum(map(len, sent))
    assert (len(sent) < 30 and total < limit + len(sent[0])) or (len(sent) == 30 and limit > total)


def test_news_that_are_none_are_told_of_their_author():
    async def scenario() -> None:
        async with members(2) as (first, second):
            heard = []
            second.spread.listen(lambda author, height: heard.append(height))
            for news in (b"no news", codec.encode(HeadNews(7, bytes(32)))):
                await first.transport.publish(HEADS_TOPIC, news)
            with trio.fail_after(10):
                while not heard:
                    await trio.sleep(0.005)
            assert (heard, faults(second, first)) == ([7], 1)

    trio.run(scenario)
