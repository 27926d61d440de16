"""Transactions get to every member, also to one that was away when they were sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from factories import TRANSACTION_GAS, GrowingChain, make_chain, make_key

from mlchain import codec
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id
from mlchain.node.spread import Batch, Spread
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import Channel, PeerAddress
from mlchain.vm.families.accounts import Transfer


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


CHAIN: GrowingChain = make_chain()


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


def test_forged_and_senseless_ones_are_left_out_of_a_batch():
    async def scenario() -> None:
        async with members(2) as (first, second):
            good = transfers(20)
            forged = good[0][:-1] + bytes([good[0][-1] ^ 1])
            batch = Batch((b"", forged, *good, bytes(100)))
            peer = second.transport.public_key
            with trio.fail_after(10):
                while not first.transport.send(peer, Channel.TRANSACTIONS, codec.encode(batch)):
                    await trio.sleep(0.005)
            first.transport.send(peer, Channel.TRANSACTIONS, b"no batch")
            await second.until(20)
            assert list(second.chain.mempool) == good
            assert transaction_id(forged) not in second.chain.mempool.verified

    trio.run(scenario)
