"""Strangers do not get in, and each of these fails when the gate is left open."""

import socket
from types import SimpleNamespace

import pytest
import trio
from p2p_factory import (
    addresses,
    dial,
    free_port,
    is_linked,
    key,
    libp2p,
    play,
    running,
    seed,
    stock_host,
    until,
)

from mlchain.errors import ConfigError
from mlchain.p2p import libp2p_gate as gate_module
from mlchain.p2p import libp2p_host as host_module
from mlchain.p2p import libp2p_links as links_module
from mlchain.p2p.transport import Channel, PeerAddress

STRANGER = 9


def noise_only(number):
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
    from libp2p.security.noise.transport import PROTOCOL_ID, Transport

    pair = create_new_key_pair(seed(number))
    return {PROTOCOL_ID: Transport(pair, noise_privkey=create_x25519().private_key)}


def plaintext_as(number):
    """Security options of an attacker who has only the public key of peer `number`."""
    from libp2p.crypto.keys import KeyPair
    from libp2p.peer.peerstore import PeerStore
    from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport

    his = gate_module.key_pair(seed(number)).public_key
    pretence = SimpleNamespace(get_public_key=lambda: his)  # plain text asks for no signature
    store = PeerStore()
    return {PLAINTEXT_PROTOCOL_ID: InsecureTransport(KeyPair(pretence, his), peerstore=store)}


async def knock(number, port, **options):
    """Connect with the key of `number` and open a stream; tell whether anything worked."""
    async with stock_host(number, **options) as attacker:
        try:
            with trio.fail_after(5):
                await dial(attacker, 1, port)
                target = gate_module.peer_id(key(1))
                stream = await attacker.get_network().new_stream(target)
                await stream.write(b"\x13/multistream/1.0.0\n")
                await stream.read(1)
        except (Exception, trio.TooSlowError):
            return False
        return True


def test_a_stranger_is_refused_before_any_stream_is_handled():
    async def scenario():
        book = addresses(2)
        a = libp2p(1, book)
        async with a.run():
            assert not await knock(STRANGER, a.port, sec_opt=noise_only(STRANGER))
            assert a._libp2p.streams_handled == 0
            assert a._libp2p.get_network().get_connections() == []
            assert a.book.refused >= 1
            assert await knock(2, a.port, sec_opt=noise_only(2)), "a known peer is let in"

    play(scenario)


def test_without_the_gate_the_stranger_is_let_in(monkeypatch):
    monkeypatch.setattr("mlchain.p2p.peers.PeerBook.admits", lambda self, key, now_ms: True)
    monkeypatch.setattr(
        gate_module.GatedResources, "acquire_stream", lambda self, peer_id, direction: True
    )

    async def scenario():
        a = libp2p(1, addresses(2))
        async with a.run():
            assert await knock(STRANGER, a.port, sec_opt=noise_only(STRANGER))
            assert a._libp2p.streams_handled >= 1

    play(scenario)


def test_the_second_gate_alone_keeps_a_stranger_from_streams(monkeypatch):
    async def open_gate(self, session):
        return session

    monkeypatch.setattr(gate_module.GatedNoise, "_gate", open_gate)

    async def scenario():
        a = libp2p(1, addresses(2))
        async with a.run():
            assert not await knock(STRANGER, a.port, sec_opt=noise_only(STRANGER))
            assert a._libp2p.streams_handled == 0

    play(scenario)


def test_a_peer_cannot_be_impersonated_in_plain_text():
    async def scenario():
        a = libp2p(1, addresses(2))
        async with a.run():
            assert not await knock(STRANGER, a.port, sec_opt=plaintext_as(2))
            assert a._libp2p.streams_handled == 0

    play(scenario)


def test_a_host_as_the_library_makes_it_takes_the_impersonator_for_the_peer():
    async def scenario():
        from libp2p.peer.id import ID
        from libp2p.peer.peerinfo import PeerInfo

        async with stock_host(1) as victim, stock_host(STRANGER, sec_opt=plaintext_as(2)) as liar:
            (address,) = victim.get_transport_addrs()
            await liar.connect(PeerInfo(ID.from_base58(str(victim.get_id())), [address]))
            believed = [
                gate_module.public_key(c.muxed_conn.peer_id)
                for c in victim.get_network().get_connections()
            ]
            assert believed == [key(2)]

    play(scenario)


def test_a_removed_peer_is_a_stranger_at_once():
    async def scenario():
        book = addresses(2)
        a, b = libp2p(1, book), libp2p(2, book)
        async with running(a, b):
            a.remove_peer(key(2))
            await until(lambda: a._libp2p.get_network().get_connections() == [])
            refused = a.book.refused
            await until(lambda: a.book.refused > refused + 2, "it keeps knocking")
            assert a._libp2p.get_network().get_connections() == []

    play(scenario)


def test_a_banned_peer_is_shut_out_and_let_in_again(monkeypatch):
    monkeypatch.setattr("mlchain.p2p.peers.MAX_VIOLATIONS", 3)

    async def scenario():
        book = addresses(2)
        clock = SimpleNamespace(now_ms=0)
        a = libp2p(1, book, clock_ms=lambda: clock.now_ms)
        b = libp2p(2, book)
        async with running(a, b):
            # Fresh links, all of them ending in nonsense, until b's patience with us is used up.
            entry = a.book.get(key(2))
            while not entry.is_banned(clock.now_ms):
                b._nursery.start_soon(_nonsense, b)
                seen = entry.violations
                await until(lambda n=seen: entry.violations > n or entry.is_banned(0))
            await until(lambda: not is_linked(a, key(2)), "thrown out")
            refused = a.book.refused
            await until(lambda: a.book.refused > refused + 2)
            assert not is_linked(a, key(2))
            clock.now_ms += 10**6
            await until(lambda: is_linked(a, key(2)) and is_linked(b, key(1)), "forgiven")

    play(scenario)


async def _nonsense(transport):
    stream = await transport._libp2p.new_stream(gate_module.peer_id(key(1)), [links_module.LINK])
    await stream.write(b"\xff" * 5)


def test_a_taken_port_is_the_operators_error():
    async def scenario():
        book = addresses(2)
        taken = book[key(1)].port
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", taken))
            other.listen()
            with pytest.raises(ConfigError, match=str(taken)):
                async with libp2p(1, book).run():
                    pass
        async with libp2p(1, book).run():
            pass

    play(scenario)


@pytest.mark.parametrize("host", ["203.0.113.7", "no-address"])
def test_a_foreign_address_is_the_operators_error(host):
    from mlchain.p2p.libp2p import LibP2PTransport

    async def scenario():
        with pytest.raises(ConfigError):
            async with LibP2PTransport(seed(1), host, 0, {}).run():
                pass

    play(scenario)


def test_port_0_takes_a_free_one():
    from mlchain.p2p.libp2p import LibP2PTransport

    async def scenario():
        a = LibP2PTransport(seed(1), "127.0.0.1", 0, {})
        async with a.run():
            assert a.port > 0
            socket.create_connection(("127.0.0.1", a.port), 5).close()

    play(scenario)


def test_a_peer_without_a_port_is_not_dialled_but_may_come():
    async def scenario():
        book = addresses(2)
        a, b = libp2p(1, book), libp2p(2, book)
        a.add_peer(key(2), PeerAddress("127.0.0.1", 0))
        got = []
        b.on_frame = lambda *frame: got.append(frame)
        async with running(a, b):
            assert a.send(key(2), Channel.STATUS, b"on your own connection")
            await until(lambda: got)

    play(scenario)


def test_a_flood_of_handshakes_from_one_address_leaves_others_room(monkeypatch):
    monkeypatch.setattr(host_module, "MAX_HANDSHAKES_PER_IP", 4)

    async def scenario():
        book = addresses(2)
        a = libp2p(1, book)
        async with a.run():
            silent = [socket.create_connection(("127.0.0.1", a.port), 5) for _ in range(20)]
            swarm = a._libp2p.get_network()
            await until(lambda: swarm.handshakes.total() == 4)
            await trio.sleep(0.05)
            assert swarm.handshakes.total() == 4, "from one address no more than that"
            for each in silent:
                each.close()
            await until(lambda: swarm.handshakes.total() == 0, "given up")
            assert await knock(2, a.port, sec_opt=noise_only(2))
        assert free_port()

    play(scenario)
