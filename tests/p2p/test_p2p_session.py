"""The session after the handshake: the library's bytes, in fewer steps."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.crypto.x25519 import create_new_key_pair as x25519_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.io.utils import read_exactly
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.noise.transport import Transport
from p2p_factory import key, play, seed

from mlchain.p2p import libp2p_session
from mlchain.p2p.libp2p_gate import key_pair, peer_id
from mlchain.p2p.libp2p_session import READS_A_TURN, quicken

KINDS = {"quick": quicken, "library": lambda session: session}


@asynccontextmanager
async def sessions(first: str = "quick", second: str = "quick") -> AsyncIterator[tuple]:
    """Two ends of one connection over a socket, after their handshake."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    streams = [await trio.open_tcp_stream(*listener.socket.getsockname()), await listener.accept()]
    await listener.aclose()
    raws = [RawConnection(TrioTCPStream(s), i == 0) for i, s in enumerate(streams)]
    noises = [Transport(key_pair(seed(n)), x25519_pair().private_key) for n in (1, 2)]
    ends: dict[int, object] = {}

    async def secure(number: int) -> None:
        if number == 0:
            ends[0] = await noises[0].secure_outbound(raws[0], peer_id(key(2)))
        else:
            ends[1] = await noises[1].secure_inbound(raws[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure, 0)
        nursery.start_soon(secure, 1)
    yield KINDS[first](ends[0]), KINDS[second](ends[1])
    for stream in streams:
        stream.socket.close()


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_what_one_writes_the_other_reads_whichever_made_the_session(first, second):
    async def scenario():
        data = os.urandom(1 << 20)
        async with sessions(first, second) as (a, b):

            async def write():
                for at in range(0, len(data), 200_000):
                    await a.write(data[at : at + 200_000])
                await b.write(b"and back")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                got = b""
                while len(got) < len(data):
                    got += await read_exactly(b, min(1 + len(got) % 70_001, len(data) - len(got)))
            assert got == data
            assert await read_exactly(a, 8) == b"and back"

    play(scenario)


def test_many_small_messages_take_few_system_calls(monkeypatch):
    reads = []
    system = os.read
    monkeypatch.setattr(libp2p_session.os, "read", lambda *args: reads.append(1) or system(*args))

    async def scenario():
        async with sessions() as (a, b):
            for number in range(500):
                await a.write(number.to_bytes(2, "big") * 6)
            for number in range(500):
                assert await b.read(12) == number.to_bytes(2, "big") * 6
        assert len(reads) < 20

    play(scenario)


@pytest.mark.parametrize("is_fair", [True, False])
def test_a_flood_of_tiny_frames_leaves_others_their_turn(monkeypatch, is_fair):
    if not is_fair:
        monkeypatch.setattr(libp2p_session, "READS_A_TURN", 10**9)

    async def scenario():
        turns = []

        async def other():
            while True:
                turns.append(1)
                await trio.lowlevel.checkpoint()

        async with sessions() as (a, b), trio.open_nursery() as nursery:
            await a.write(bytes(12 * 1000))
            assert len(await b.read(12)) == 12
            nursery.start_soon(other)
            for _ in range(999):
                assert len(await b.read(12)) == 12
            nursery.cancel_scope.cancel()
        assert (len(turns) >= 1000 // READS_A_TURN - 2) is is_fair

    play(scenario)


def test_a_write_cut_short_ends_the_connection_instead_of_garbling_it():
    async def scenario():
        async with sessions() as (a, b):
            with trio.move_on_after(0.1) as scope:
                while True:
                    await a.write(bytes(1 << 20))  # nobody reads: the kernel's buffers fill
            assert scope.cancelled_caught
            with pytest.raises(ConnectionClosedError):
                await a.write(b"the next")
            got = 0
            with pytest.raises(ConnectionClosedError):
                while part := await b.read():
                    got += len(part)
                    assert not any(part), "only what was written"
            assert got > 0

    play(scenario)


def test_bytes_that_were_changed_on_the_way_end_the_reading():
    async def scenario():
        async with sessions() as (a, b):
            good = a._noise.encrypt(b"twelve bytes")
            bad = bytes([good[0] ^ 1]) + good[1:]
            await a._tcp.send_all(len(bad).to_bytes(2, "big") + bad)
            with pytest.raises(Exception) as caught:
                await b.read(12)
            assert not isinstance(caught.value, ConnectionClosedError)

    play(scenario)


def test_the_end_of_the_other_side_is_told():
    async def scenario():
        async with sessions() as (a, b):
            await a.write(b"half")
            await a.close()
            with pytest.raises(ConnectionClosedError):
                await b.read(12)

    play(scenario)
