"""What makes py-libp2p cheap enough for votes: fewer turns of the scheduler, fewer system calls.

A trio lock yields to the scheduler even when nobody holds it, and the library takes seven of them
for each frame it sends or receives; it asks the kernel for two bytes of length before it asks for
the rest; and it answers most reads with a frame that gives the bytes back to the sender's window.
All three cost far more than encrypting the frame.
"""

from __future__ import annotations

import trio
from libp2p.abc import INetStream, IRawConnection
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.stream_muxer.yamux.yamux import YamuxStream
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr  # type: ignore[import-untyped]

READ_BYTES = 32 << 10
WINDOW_BYTES = 1 << 20
"""What a peer may send on a link before we have read it."""

READS_A_TURN = 32
"""Reads served from the buffer before others get a turn: a peer may send many tiny frames."""


class EagerLock:
    """A lock that is taken at once when it is free; in turn, when it is not."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()


class EagerWriteLock(EagerLock):
    """Stands in for the library's lock of readers and writers, of which it uses the writers'."""

    def write_lock(self) -> EagerLock:
        """Return the lock of writers."""
        return self


def ease_stream(stream: INetStream) -> None:
    """Make a stream that nobody uses yet cheap: for frames, or for one question and its answer."""
    stream._state_lock = EagerLock()  # type: ignore[attr-defined]
    muxed = stream.muxed_stream  # type: ignore[attr-defined]
    assert isinstance(muxed, YamuxStream), "no other muxer is offered"
    muxed.window_lock = EagerLock()  # type: ignore[assignment]
    muxed.rw_lock = EagerWriteLock()  # type: ignore[assignment]
    muxed._auto_tune_and_send_window_update = Window(muxed).release  # type: ignore[method-assign]


class Window:
    """Gives what was read back to the sender's window, half a window at a time."""

    def __init__(self, stream: YamuxStream) -> None:
        self._stream = stream
        self._owed = WINDOW_BYTES - stream.recv_window  # granted with the first bytes read

    async def release(self, *, bytes_read: int = 0) -> None:
        """Take note of `bytes_read`; tell the sender if it is time."""
        self._owed += bytes_read
        if self._owed >= WINDOW_BYTES // 2:
            owed, self._owed = self._owed, 0
            self._stream.recv_window += owed
            await self._stream.send_window_update(owed)


class BufferedStream(ReadWriteCloser):
    """A TCP stream that reads ahead. One task reads and one lock holder writes, as yamux does."""

    def __init__(self, stream: ReadWriteCloser) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._reads = 0

    async def read(self, n: int | None = None) -> bytes:
        """Return up to `n` bytes, none at the end of the stream."""
        if not self._buffer:
            self._reads = 0
            data = await self._stream.read(max(n or 0, READ_BYTES))
            if n is None or len(data) <= n:
                return data
            self._buffer += data
        elif self._reads >= READS_A_TURN:
            self._reads = 0
            await trio.lowlevel.checkpoint()
        self._reads += 1
        size = len(self._buffer) if n is None else n
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        await self._stream.write(data)

    async def close(self) -> None:
        """Close the stream."""
        await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the other side's host and port."""
        return self._stream.get_remote_address()


def ease_connection(stream: ReadWriteCloser) -> BufferedStream:
    """Return a fresh TCP stream buffered, and with locks that do not yield."""
    stream.read_lock = EagerLock()  # type: ignore[attr-defined]
    stream.write_lock = EagerLock()  # type: ignore[attr-defined]
    return BufferedStream(stream)


class BufferedTCP(TCP):
    """TCP whose outgoing connections read ahead; incoming ones are wrapped by the swarm."""

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """Return a connection to an address."""
        raw = await super().dial(maddr)
        assert isinstance(raw, RawConnection), "TCP makes no other"
        raw.stream = ease_connection(raw.stream)
        return raw
