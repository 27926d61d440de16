"""One stream of each peer is read: a newer one takes its place, and costs nobody a good link."""

import gc
import math

import pytest
import trio
from p2p_factory import (
    addresses,
    collect,
    dial,
    is_linked,
    is_reset,
    key,
    libp2p,
    play,
    stock_host,
    until,
)

from mlchain.p2p import libp2p_links as links_module
from mlchain.p2p.framing import FRAME_HEADER, FrameDecoder, encode_frame
from mlchain.p2p.libp2p_gate import peer_id
from mlchain.p2p.transport import CHANNELS, Channel

BIG = 256 << 10
"""So much of a frame is sent, and its end never."""
UNFINISHED = FRAME_HEADER.pack(CHANNELS[Channel.CONSENSUS].max_bytes, Channel.CONSENSUS)


def with_attacker(act):
    """Let peer 2 `act` on a transport; `act` gets both and the frames that came."""

    async def scenario():
        a = libp2p(1, addresses(2))
        got = collect(a)
        async with a.run(), stock_host(2) as attacker:
            await dial(attacker, 1, a.port)

            async def link():
                return await attacker.new_stream(peer_id(key(1)), [links_module.LINK])

            await act(a, link, got)

    play(scenario)


def status(number) -> bytes:
    return encode_frame(Channel.STATUS, b"%d" % number, "validator")


def held_bytes() -> int:
    """Bytes of unfinished frames that anybody here keeps."""
    return sum(len(o._buffer) for o in gc.get_objects() if isinstance(o, FrameDecoder))


@pytest.mark.parametrize("is_one", [True, False])
def test_unfinished_frames_of_many_streams_are_those_of_one(monkeypatch, is_one):
    count = 8
    if not is_one:  # the control: nobody hears that a newer stream is there
        monkeypatch.setattr(links_module.Reading, "replace", lambda reading: trio.sleep(0))

    async def act(a, link, got):
        account = a.book.get(key(2))
        for _ in range(count):
            stream = await link()
            before = account.bytes_received
            await stream.write(UNFINISHED + bytes(BIG))
            await until(lambda n=before: account.bytes_received >= n + BIG)
        await trio.sleep(0.05)
        assert (held_bytes() < 2 * BIG) is is_one
        assert (held_bytes() > count * BIG) is not is_one

    with_attacker(act)


def test_a_newer_stream_ends_the_older_and_the_end_of_the_older_leaves_the_newer_alone():
    async def act(a, link, got):
        old, count = await link(), 0
        for _ in range(5):
            await old.write(status(count))
            await until(lambda n=count: len(got) == n + 1)
            new = await link()
            await new.write(status(count + 1))
            assert await is_reset(old)
            await until(lambda n=count: len(got) == n + 2)
            old, count = new, count + 2
        await old.write(status(count))
        await until(lambda: len(got) == 11)
        assert [frame for _, _, frame in got] == [b"%d" % n for n in range(11)]
        assert a.book.get(key(2)).violations == 0

    with_attacker(act)


@pytest.mark.parametrize("is_patient", [True, False])
def test_what_an_older_stream_brought_comes_before_what_a_newer_does(monkeypatch, is_patient):
    """Many frames are read slowly, for the peer is over its rate."""
    count = 200
    if not is_patient:
        monkeypatch.setattr(links_module.Reading, "replace", lambda reading: trio.sleep(0))

    async def act(a, link, got):
        account = a.book.get(key(2))
        first = await link()
        await first.write(status(0))
        await until(lambda: got)
        waits = iter([300])
        monkeypatch.setattr(
            type(account), "receive", lambda *args: next(waits, 0) if args[1] else 0
        )
        await first.write(status(1))
        await until(lambda: len(got) == 2)  # the reader sleeps now
        await first.write(b"".join(status(n) for n in range(2, count)))
        second = await link()
        await second.write(status(count))
        await until(lambda: len(got) == count + 1)
        order = [int(frame) for _, _, frame in got]
        assert (order == list(range(count + 1))) is is_patient

    with_attacker(act)


def test_a_reader_that_does_not_end_holds_up_a_newer_stream_for_a_moment_only(monkeypatch):
    monkeypatch.setattr(links_module, "HANDOVER_S", 0.1)

    async def act(a, link, got):
        account = a.book.get(key(2))
        first = await link()
        waits = iter([3_600_000])
        monkeypatch.setattr(
            type(account), "receive", lambda *args: next(waits, 0) if args[1] else 0
        )
        await first.write(status(0))
        await until(lambda: got)
        await first.write(status(1))
        second = await link()
        await second.write(status(2))
        await until(lambda: len(got) == 2)
        assert [frame for _, _, frame in got] == [b"0", b"2"], "what waited is lost with its link"

    with_attacker(act)


@pytest.mark.parametrize("timeout_s", [0.2, math.inf])
def test_a_frame_that_does_not_come_to_its_end_costs_the_stream(monkeypatch, timeout_s):
    monkeypatch.setattr(links_module, "FRAME_TIMEOUT_S", timeout_s)

    async def act(a, link, got):
        idle = await link()
        await idle.write(status(0))
        await until(lambda: got)
        await trio.sleep(0.3)
        await idle.write(status(1))
        await until(lambda: len(got) == 2, "between frames there is no hurry")
        ended = trio.Event()

        async def trickle():
            while True:
                try:
                    await idle.write(b"x")
                except Exception:
                    ended.set()
                    return
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            await idle.write(UNFINISHED)
            nursery.start_soon(trickle)
            with trio.move_on_after(20 if timeout_s < 1 else 1):
                await ended.wait()
            nursery.cancel_scope.cancel()
        assert ended.is_set() is (timeout_s < 1)

    with_attacker(act)


def test_peers_that_lose_their_connections_again_and_again_are_linked_both_ways_in_the_end():
    """Both dial at once, connections end on one side or the other, and streams come late."""

    async def scenario():
        book = addresses(2)
        a, b = libp2p(1, book), libp2p(2, book)
        boxes = collect(a), collect(b)
        async with a.run(), b.run():
            await until(lambda: is_linked(a, key(2)) and is_linked(b, key(1)))
            for turn in range(6):
                one, other = (a, key(2)) if turn % 2 else (b, key(1))
                await one._libp2p.disconnect(peer_id(other))
                await trio.sleep(0.02 * turn)
            for box in boxes:
                box.clear()
            for n in range(20):  # what is sent now and then arrives, both ways
                a.send(key(2), Channel.STATUS, b"%d" % n)
                b.send(key(1), Channel.STATUS, b"%d" % n)
                await trio.sleep(0.1)
                if all(boxes):
                    break
            await until(lambda: is_linked(a, key(2)) and is_linked(b, key(1)), "both ways")
            for box in boxes:
                box.clear()
            a.send(key(2), Channel.STATUS, b"last")
            b.send(key(1), Channel.STATUS, b"last")
            await until(lambda: all(boxes), "over links that last")

    play(scenario)
