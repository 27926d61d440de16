"""What makes the library's streams cheap enough for votes: fewer turns of the scheduler.

A trio lock yields to the scheduler even when nobody holds it, and the library takes seven of them
for each frame it sends or receives; and it answers most reads with a frame that gives the bytes
back to the sender's window. Both cost more than encrypting the frame.
"""

from __future__ import annotations

import trio
from libp2p.abc import INetStream
from libp2p.stream_muxer.yamux.yamux import YamuxStream

WINDOW_BYTES = 1 << 20
"""What a peer may send on a link before we have read it."""


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
