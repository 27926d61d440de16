"""Yamux as a validator can bear it: bounded in what it keeps, and short for plain frames.

Nearly every frame is data for a stream that is open. Those are handed to their streams as soon as
they are decrypted; all others, and all questions of opening and closing, take the library's way.
"""

from __future__ import annotations

import struct

import trio
from libp2p.abc import IMuxedConn, INetStream, ISecureConn
from libp2p.peer.id import ID
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import (
    HEADER_SIZE,
    TYPE_DATA,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)

from mlchain.p2p.libp2p_quick import EagerLock, ease_stream
from mlchain.p2p.libp2p_session import QuickSession

MAX_MUX_FRAME_BYTES = 1 << 20
MAX_UNREAD_BYTES = 64 << 20
"""What one connection may hold that its streams' readers have not taken yet."""

BODY_TIMEOUT_S = 60.0
"""A muxer frame that was begun must be complete by then."""

READ_BYTES = 256 << 10
_HEADER = struct.Struct(YAMUX_HEADER_FORMAT)


class MuxOverrun(trio.TooSlowError):
    """A peer sent more than it may. The library closes the connection on the base class only."""


class BoundedYamux(Yamux):
    """Yamux that believes no length and keeps no more than MAX_UNREAD_BYTES."""

    def __init__(self, session: QuickSession, peer_id: ID) -> None:
        super().__init__(session, peer_id, is_initiator=session.is_initiator)
        self.streams_lock = EagerLock()  # type: ignore[assignment]
        self._session = session
        session.skim = self._skim

    def _skim(self, plain: bytearray) -> None:
        """Hand out the data frames at the front of `plain` that are whole and plain."""
        while len(plain) >= HEADER_SIZE:
            _, kind, flags, number, length = _HEADER.unpack_from(plain)
            end = HEADER_SIZE + length
            if kind != TYPE_DATA or flags or len(plain) < end or number not in self.streams:
                return
            if length > self._room():
                return  # read by the library's loop, which ends the connection
            self.stream_buffers[number] += plain[HEADER_SIZE:end]
            del plain[:end]
            stream = self.streams[number]
            stream.recv_window = max(0, stream.recv_window - length)
            self.stream_events[number].set()

    def _room(self) -> int:
        """Return how large the next frame's body may be."""
        unread = sum(map(len, self.stream_buffers.values()))
        return min(MAX_MUX_FRAME_BYTES, MAX_UNREAD_BYTES - unread)

    async def _read_data_body(self, length: int) -> bytes:
        if length > self._room():
            raise MuxOverrun(f"frame of {length} bytes: too large, or too much unread")
        if self._session.has(length):
            return await self._session.take(length)
        with trio.fail_after(BODY_TIMEOUT_S):
            return await self._session.take(length)

    async def _write_frame(self, data: bytes) -> None:
        await self._session.write(data)  # the library's also spells out each frame for its log


class BoundedMuxing(MuxerMultistream):
    """Negotiates as the library does, but makes the muxer that was asked for, not a stock Yamux."""

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        """Return the muxed connection over a secured one."""
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        assert isinstance(conn, QuickSession), "the gate makes no other"
        return self._annotate_connection(BoundedYamux(conn, peer_id), conn, protocol)


class FrameStream:
    """A stream that carries frames one way: short where nothing is unusual, else the library's."""

    def __init__(self, stream: INetStream) -> None:
        """Take over a stream that nobody uses yet."""
        ease_stream(stream)
        self._stream = stream
        self._muxed: YamuxStream = stream.muxed_stream  # type: ignore[attr-defined]

    async def write(self, data: bytes) -> None:
        """Send `data` as soon as the other side's window has room; one task at a time.

        Raises:
            Exception: the stream or its connection has ended.
        """
        muxed = self._muxed
        if len(data) > min(muxed.send_window, MAX_MUX_FRAME_BYTES) or muxed.send_closed:
            await self._stream.write(data)
            return
        muxed.send_window -= len(data)
        await muxed.conn._write_frame(
            _HEADER.pack(0, TYPE_DATA, 0, muxed.stream_id, len(data)) + data
        )

    @property
    def has_some(self) -> bool:
        """Whether there are bytes that nobody has read."""
        return bool(self._muxed.conn.stream_buffers.get(self._muxed.stream_id))

    @property
    def has_ended(self) -> bool:
        """Whether the other side writes no more, or the connection is gone."""
        muxed = self._muxed
        is_known = muxed.stream_id in muxed.conn.stream_events
        return not is_known or muxed.closed or muxed.recv_closed or muxed.reset_received

    async def wait(self) -> None:
        """Return when `read` need not wait for the other side. May be cancelled without loss."""
        events, number = self._muxed.conn.stream_events, self._muxed.stream_id
        while not self.has_some and not self.has_ended:
            await events[number].wait()
            if number in events:
                events[number] = trio.Event()

    async def read(self) -> bytes:
        """Wait for bytes and return those there are, at most READ_BYTES. Not to be cancelled.

        Raises:
            StreamEOF: the other side closed the stream.
            Exception: the stream or its connection has ended.
        """
        await self.wait()
        conn, number = self._muxed.conn, self._muxed.stream_id
        buffer = conn.stream_buffers.get(number)
        if not buffer or self._muxed.closed:
            return await self._stream.read(READ_BYTES)
        data = bytes(buffer[:READ_BYTES])
        del buffer[:READ_BYTES]
        await self._muxed._auto_tune_and_send_window_update(bytes_read=len(data))
        return data
