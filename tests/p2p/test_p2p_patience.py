"""Dials end soon, handshakes are waited for: where all are slow, beginning anew is slower still."""

import socket
from functools import partial

import pytest
import trio
from p2p_factory import addresses, free_port, is_linked, key, libp2p, play, until

from mlchain.p2p import libp2p_host as host_module
from mlchain.p2p import libp2p_links as links_module
from mlchain.p2p.libp2p_host import BoundedTCP, to_multiaddr
from mlchain.p2p.transport import PeerAddress

LAG_S = 0.2
"""Of every packet; the handshake takes a dozen of them one after the other."""
SHORT_S = 1.0
"""More than a dial needs and less than such a handshake does."""
HOST = "127.0.0.1"


async def slow_way(port, target, *, task_status):
    """Carry bytes to and from `target`, each packet late."""

    async def carry(source, sink):
        async with sink:
            async for data in source:
                await trio.sleep(LAG_S)
                await sink.send_all(data)

    async def serve(client):
        server = await trio.open_tcp_stream(HOST, target)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry, client, server)
            nursery.start_soon(carry, server, client)

    async def forgive(client):
        try:
            await serve(client)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    await trio.serve_tcp(forgive, port, host=HOST, task_status=task_status)


def link_over_a_slow_way(verdict):
    """Let peer 1, which nobody else can dial, reach peer 2 only late; `verdict` looks at peer 1."""

    async def scenario():
        book = addresses(2)
        way = free_port()
        dialler = libp2p(1, {**book, key(2): PeerAddress(HOST, way)})
        listener = libp2p(2, {key(2): book[key(2)], key(1): PeerAddress("", 0)})
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(slow_way, way, book[key(2)].port))
            async with dialler.run(), listener.run():
                await verdict(dialler)
            nursery.cancel_scope.cancel()

    play(scenario)


def test_a_handshake_that_takes_longer_than_a_dial_may_is_waited_for(monkeypatch):
    monkeypatch.setattr(host_module, "DIAL_TIMEOUT_S", SHORT_S)
    monkeypatch.setattr(links_module, "DIAL_TIMEOUT_S", SHORT_S)

    async def verdict(dialler):
        await until(lambda: is_linked(dialler, key(2)), "linked in the end")

    link_over_a_slow_way(verdict)


def test_the_control_gives_it_as_long_as_a_dial_and_is_never_linked(monkeypatch):
    for module in (host_module, links_module):
        monkeypatch.setattr(module, "DIAL_TIMEOUT_S", 0.0 if module is links_module else SHORT_S)
        monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT_S", SHORT_S)

    async def verdict(dialler):
        for _ in range(80):
            assert not is_linked(dialler, key(2))
            await trio.sleep(0.05)

    link_over_a_slow_way(verdict)


def test_a_dial_that_nobody_answers_ends(monkeypatch):
    monkeypatch.setattr(host_module, "DIAL_TIMEOUT_S", 0.2)
    with socket.create_server((HOST, 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:  # fill the queue of those who knock: from then on SYNs are dropped
            one.setblocking(False)
            one.connect_ex((HOST, port))
        with pytest.raises(trio.TooSlowError):
            trio.run(BoundedTCP().dial, to_multiaddr(HOST, port))
        for one in waiting:
            one.close()
