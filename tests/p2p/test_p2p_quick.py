"""The streams' own locks and window: cheap, and still what they stand in for."""

import pytest
import trio
from p2p_factory import collect, make, play, running, until

from mlchain.p2p.libp2p_quick import WINDOW_BYTES, EagerLock, Window
from mlchain.p2p.transport import Channel


@pytest.mark.parametrize(("lock", "is_quick"), [(EagerLock, True), (trio.Lock, False)])
def test_a_free_lock_is_taken_without_a_turn_of_the_scheduler(lock, is_quick):
    async def scenario():
        turns = []

        async def other():
            while True:
                turns.append(1)
                await trio.lowlevel.checkpoint()

        own = lock()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await trio.lowlevel.checkpoint()
            before = len(turns)
            for _ in range(10):
                async with own:
                    pass
            assert (len(turns) == before) is is_quick
            nursery.cancel_scope.cancel()

    play(scenario)


def test_a_lock_that_is_held_is_waited_for():
    async def scenario():
        lock, log = EagerLock(), []

        async def hold(name):
            async with lock:
                log.append(name)
                await trio.sleep(0.001)
                log.append(name)

        async with trio.open_nursery() as nursery:
            for name in range(5):
                nursery.start_soon(hold, name)
        assert log[::2] == log[1::2], "nobody came between"

    play(scenario)


def test_a_link_carries_more_than_its_window():
    async def scenario():
        a, b = make("libp2p", 2)
        got = collect(b)
        frames = [bytes([i]) * 60_000 for i in range(60)]
        assert sum(map(len, frames)) > 3 * WINDOW_BYTES
        async with running(a, b):
            for frame in frames:
                while not a.send(b.public_key, Channel.STATUS, frame):
                    await trio.sleep(0.001)
            await until(lambda: len(got) == len(frames))
            assert [frame for _, _, frame in got] == frames

    play(scenario)


@pytest.mark.parametrize("read", [100, WINDOW_BYTES // 3, 3 * WINDOW_BYTES])
def test_the_sender_s_window_is_what_it_may_send_and_never_falls_below_half(read):
    class Muxed:
        recv_window = 256 << 10
        granted = recv_window

        async def send_window_update(self, increment):
            self.granted += increment

    async def scenario():
        muxed, total = Muxed(), 0
        window = Window(muxed)
        for _ in range(50):
            muxed.recv_window -= read
            total += read
            await window.release(bytes_read=read)
            assert muxed.granted - total == muxed.recv_window
            assert WINDOW_BYTES // 2 < muxed.recv_window <= WINDOW_BYTES

    play(scenario)
