"""Noise over TCP after the handshake: one layer where the library has seven.

The library passes each frame through a session, a cipher, two framings, a connection and a stream,
each a coroutine of its own, and asks the kernel for two bytes of length before it asks for the
rest. The bytes on the wire are the same here; see decision 39.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import trio
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.security.secure_session import SecureSession

from mlchain.p2p.libp2p_quick import EagerLock

READ_BYTES = 64 << 10
LENGTH_BYTES = 2
"""Before each Noise message, big-endian."""

READS_A_TURN = 32
"""Reads served from what is decrypted before others get a turn: a peer may send tiny frames."""


class QuickSession(SecureSession):
    """A secured connection. Any task may write; one task reads."""

    def __init__(self, session: SecureSession) -> None:
        """Take over a session fresh from its handshake, of which nothing was read ahead."""
        super().__init__(
            local_peer=session.local_peer,
            local_private_key=session.local_private_key,
            remote_peer=session.remote_peer,
            remote_permanent_pubkey=session.remote_permanent_pubkey,
            is_initiator=session.is_initiator,
            conn=session.conn,
        )
        conn: Any = session.conn
        self._noise = conn.noise_state
        self._tcp: trio.SocketStream = conn.read_writer.read_write_closer.stream.stream
        self._lock = EagerLock()
        self._received = bytearray()
        self._plain = bytearray()
        self._reads = 0
        self.skim: Callable[[bytearray], None] = lambda plain: None
        """Called with what is decrypted before each `read`; may take from its front what needs no
        reader."""

    async def read(self, n: int | None = None) -> bytes:
        """Return `n` bytes, or what there is for None.

        Raises:
            ConnectionClosedError: the other side closed.
            Exception: a message was not encrypted by the other side.
        """
        self.skim(self._plain)
        while len(self._plain) < (n or 1):
            await self._fill()
            self.skim(self._plain)
        return await self.take(len(self._plain) if n is None else n)

    async def take(self, n: int) -> bytes:
        """Return exactly the next `n` bytes; raises as `read` does."""
        if self._reads >= READS_A_TURN:
            self._reads = 0
            await trio.lowlevel.checkpoint()
        self._reads += 1
        while len(self._plain) < n:
            await self._fill()
        data = bytes(self._plain[:n])
        del self._plain[:n]
        return data

    def has(self, n: int) -> bool:
        """Tell whether `take(n)` need not wait for the other side."""
        return len(self._plain) >= n

    async def _fill(self) -> None:
        """Wait for bytes and decrypt the messages that they complete."""
        self._reads = 0
        try:
            await trio.lowlevel.wait_readable(self._tcp.socket)
            data = os.read(self._tcp.socket.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        except (OSError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"broken: {error}", transport="tcp") from error
        if not data:
            raise ConnectionClosedError("closed by the other side", transport="tcp")
        received = self._received
        received += data
        at = 0
        while len(received) - at >= LENGTH_BYTES:
            start = at + LENGTH_BYTES
            end = start + int.from_bytes(received[at:start], "big")
            if len(received) < end:
                break
            self._plain += self._noise.decrypt(bytes(received[start:end]))
            at = end
        del received[:at]

    async def write(self, data: bytes) -> None:
        """Encrypt and send all of `data`.

        Raises:
            ConnectionClosedError: broken or closed. So it is after a write that was cancelled
                midway, for half a message would garble all that follow.
        """
        async with self._lock:
            packets = b"".join(
                self._packet(data[at : at + MAX_PLAINTEXT_LENGTH])
                for at in range(0, len(data), MAX_PLAINTEXT_LENGTH)
            )
            sent = self._send_some(packets)
            if sent < len(packets):
                await self._send_rest(packets[sent:])

    def _packet(self, plain: bytes) -> bytes:
        message = self._noise.encrypt(plain)
        return len(message).to_bytes(LENGTH_BYTES, "big") + message

    def _send_some(self, packets: bytes) -> int:
        """Send what the kernel takes at once, as it nearly always takes all; return how much."""
        try:
            return os.write(self._tcp.socket.fileno(), packets)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionClosedError(f"broken: {error}", transport="tcp") from error

    async def _send_rest(self, packets: bytes) -> None:
        is_whole = False
        try:
            await self._tcp.send_all(packets)
            is_whole = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"broken: {error}", transport="tcp") from error
        finally:
            if not is_whole:
                self._tcp.socket.close()


def quicken(session: ISecureConn) -> ISecureConn:
    """Return a session of the library's Noise over its TCP as one of ours."""
    assert isinstance(session, SecureSession), "Noise makes no other"
    return QuickSession(session)
