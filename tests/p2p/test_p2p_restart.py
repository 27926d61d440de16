"""Peers die, hang and come back; connections come and go by the hundred."""

import signal

import pytest
import trio
from p2p_factory import addresses, child, dial, is_linked, key, libp2p, play, stock_host, until

from mlchain.p2p import libp2p_gate as gate_module
from mlchain.p2p import libp2p_host as host_module
from mlchain.p2p.transport import Channel


def together(scenario, peers=2):
    """Run `scenario` with peer 1 here and the ports of the first two."""

    async def run():
        book = addresses(peers)
        a = libp2p(1, book)
        a.echoes, a.gossip = [], []
        a.on_frame = lambda peer, channel, frame: a.echoes.append(frame)
        a.subscribe("t", lambda author, data: a.gossip.append(data))
        async with a.run():
            await scenario(a, [book[key(2)].port, book[key(1)].port])

    play(run)


async def hears_everything(a):
    """Wait until frames go both ways and gossip arrives."""
    a.echoes.clear()
    a.gossip.clear()
    sent = 0
    while not (a.echoes and a.gossip):
        a.send(key(2), Channel.STATUS, b"%d" % sent)
        sent += 1
        await trio.sleep(0.05)


def test_a_killed_peer_is_noticed_and_back_on_link_and_gossip_when_it_restarts():
    async def scenario(a, ports):
        with child("p2p_echo.py", *ports) as first:
            await hears_everything(a)
            first.send_signal(signal.SIGKILL)
            await until(lambda: not is_linked(a, key(2)), "noticed")
        with child("p2p_echo.py", *ports):
            await hears_everything(a)

    together(scenario)


@pytest.mark.slow
def test_a_peer_that_hangs_is_given_up_and_its_successor_welcome():
    async def scenario(a, ports):
        with child("p2p_echo.py", *ports) as hung:
            await hears_everything(a)
            hung.send_signal(signal.SIGSTOP)  # its sockets stay open, nothing tells us
            await until(lambda: not is_linked(a, key(2)), "given up")
        with child("p2p_echo.py", *ports):
            await hears_everything(a)

    together(scenario)


async def come_and_go(host, port, times) -> int:
    """Connect and disconnect; return how often that worked."""
    for done in range(times):
        try:
            with trio.fail_after(3):
                await dial(host, 1, port)
            await host.disconnect(gate_module.peer_id(key(1)))
        except (Exception, trio.TooSlowError):
            return done
    return times


SLOTS = 2


def test_slots_for_inbound_connections_are_given_back(monkeypatch):
    monkeypatch.setattr(host_module, "MAX_HANDSHAKES", SLOTS)

    async def scenario(a, ports):
        async with stock_host(2) as visitor:
            assert await come_and_go(visitor, a.port, 2 * SLOTS) == 2 * SLOTS
            await until(lambda: a.book.get(key(2)).streams == 0)
            assert a._libp2p.get_network().handshakes.total() == 0

    together(scenario)


def test_the_library_alone_is_deaf_after_as_many_visits_as_it_has_slots():
    async def scenario():
        from libp2p.network.config import ConnectionConfig

        config = ConnectionConfig(SLOTS, 0, low_watermark=0, high_watermark=SLOTS)
        async with stock_host(1, connection_config=config) as victim, stock_host(2) as visitor:
            (address,) = victim.get_transport_addrs()
            port = int(address.value_for_protocol("tcp"))
            assert await come_and_go(visitor, port, 2 * SLOTS) == SLOTS

    play(scenario)


@pytest.mark.slow
def test_three_hundred_visits_leave_nothing_behind():
    """More than the 250 after which the library is deaf with its usual settings."""

    async def scenario(a, ports):
        async def visit(number):
            async with stock_host(number) as visitor:
                assert await come_and_go(visitor, a.port, 30) == 30

        async with trio.open_nursery() as nursery:
            for number in range(2, 12):
                nursery.start_soon(visit, number)
        await until(lambda: a._libp2p.get_network().get_connections() == [])
        assert all(peer.streams == 0 for peer in a.book.all())

    together(scenario, peers=11)
