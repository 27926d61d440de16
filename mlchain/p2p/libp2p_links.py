"""Persistent links over libp2p streams: frames in order, batched, and back soon after a break.

Each peer opens one stream to every other and only writes on it, so no tie has to be broken. The
writing side also dials, for ever, and learns from the stream's end that the link is down.

The reading side reads one stream of each peer. A newer one takes its place: a peer that was killed
cannot tell us that its old one is dead. What the old one had brought is handed out first.
"""

from __future__ import annotations

import logging
import math

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.swarm import Swarm
from libp2p.peer.peerinfo import PeerInfo

from mlchain.errors import CodecError
from mlchain.p2p.endpoint import Endpoint, label
from mlchain.p2p.framing import FrameDecoder
from mlchain.p2p.libp2p_gate import peer_id, public_key
from mlchain.p2p.libp2p_host import DIAL_TIMEOUT_S, HANDSHAKE_TIMEOUT_S, reset, to_multiaddr
from mlchain.p2p.libp2p_mux import FrameStream
from mlchain.p2p.peers import Peer
from mlchain.p2p.transport import RECONNECT_MAX_MS, RECONNECT_MIN_MS

log = logging.getLogger("mlchain.p2p")

LINK = TProtocol("/mlchain/link/1.0.0")
COURTESY_S = 0.1
"""The peer with the larger key lets the other dial first: one connection instead of two."""
FRAME_TIMEOUT_S = 60.0
"""A frame that was begun must be complete by then."""
HANDOVER_S = 1.0
"""What an older stream has brought is handed out within this, before a newer one is read."""


class Reading:
    """One stream being read, until it ends or a newer one of the same peer takes its place."""

    def __init__(self) -> None:
        self.is_replaced = False
        """Nothing more is waited for on this stream."""
        self.is_over = False
        """Nothing more is handed out of it either."""
        self.ended = trio.Event()
        self._waiting = trio.CancelScope()

    async def wait(self, frames: FrameStream, deadline: float) -> bool:
        """Wait for bytes; False if none are to be read any more.

        Only waiting is ever cancelled: reading may write, and half a write ends the connection.
        """
        with trio.CancelScope(deadline=deadline) as self._waiting:
            if not self.is_replaced:
                await frames.wait()
        is_late = self._waiting.cancelled_caught and not self.is_replaced
        return not (self.is_over or is_late) and (frames.has_some or not self.is_replaced)

    async def replace(self) -> None:
        """Return when a newer stream may be read."""
        self.is_replaced = True
        self._waiting.cancel()
        with trio.move_on_after(HANDOVER_S):
            await self.ended.wait()
        self.is_over = True


class Links:
    """All links of one host."""

    def __init__(self, host: BasicHost, endpoint: Endpoint) -> None:
        self._host, self._endpoint = host, endpoint
        self._scopes: dict[bytes, trio.CancelScope] = {}
        self._readings: dict[bytes, Reading] = {}
        host.set_stream_handler(LINK, self._read)

    async def keep(self, peer: Peer) -> None:
        """Keep a link to `peer` until it is removed."""
        pause_ms = RECONNECT_MIN_MS
        with trio.CancelScope() as scope:
            self._scopes[peer.key] = scope
            if self._endpoint.public_key > peer.key and peer.address.port:
                await trio.sleep(COURTESY_S)
            while self._endpoint.book.get(peer.key) is peer:
                was_up = await self._link(peer)
                pause_ms = RECONNECT_MIN_MS if was_up else min(2 * pause_ms, RECONNECT_MAX_MS)
                await trio.sleep(pause_ms / 1000)

    def stop(self, peer: Peer) -> None:
        """End the link to a peer that is being removed."""
        scope = self._scopes.pop(peer.key, None)
        if scope is not None:
            scope.cancel()

    async def _link(self, peer: Peer) -> bool:
        """Connect, open the stream and write on it until it ends; tell whether it ever worked."""
        stream: INetStream | None = None
        try:
            if not await self._connect(peer):
                return False
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                stream = await self._host.new_stream(peer_id(peer.key), [LINK])
            frames = FrameStream(stream)
            self._endpoint.link_up(peer)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, stream, nursery.cancel_scope)
                await self._write(peer, frames)
                nursery.cancel_scope.cancel()
        except Exception as error:
            log.debug("link to %s: %r", label(peer), error)
        finally:
            if peer.is_linked:
                log.info("link to %s is down", label(peer))
            self._endpoint.link_down(peer)
            if stream is not None:
                await reset(stream)
        return stream is not None

    async def _connect(self, peer: Peer) -> bool:
        """Make sure there is a connection to `peer`; False if there is none and none is to be."""
        network, identity = self._host.get_network(), peer_id(peer.key)
        if network.get_connections(identity):
            return True
        if peer.address.port == 0 or peer.is_banned(self._endpoint.clock_ms()):
            return False
        assert isinstance(network, Swarm)
        network.unblock_peer(identity)  # the library refuses to try again for 60 s otherwise
        self._host.get_peerstore().clear_addrs(identity)
        address = to_multiaddr(peer.address.host, peer.address.port)
        with trio.fail_after(DIAL_TIMEOUT_S + HANDSHAKE_TIMEOUT_S):
            await self._host.connect(PeerInfo(identity, [address]))
        return True

    async def _watch(self, stream: INetStream, scope: trio.CancelScope) -> None:
        """The peer never writes here: whatever a read returns means the end."""
        try:
            await stream.read(1)
        except Exception as error:
            log.debug("link ended: %r", error)
        scope.cancel()

    async def _write(self, peer: Peer, stream: FrameStream) -> None:
        queue = self._endpoint.queues[peer.key]
        while True:
            await queue.wait()
            while queue:
                count, batch = queue.pop()
                try:
                    await stream.write(batch)
                except Exception as error:
                    peer.drop(count, len(batch))
                    log.debug("link to %s: %r", label(peer), error)
                    return

    async def _read(self, stream: INetStream) -> None:
        """Serve the peer's link, in place of an older one."""
        peer = self._endpoint.book.get(public_key(stream.muxed_conn.peer_id) or b"")
        frames = FrameStream(stream)
        if peer is None or frames.has_ended:  # an end that comes late replaces nothing
            await reset(stream)
            return
        older, reading = self._readings.get(peer.key), Reading()
        self._readings[peer.key] = reading
        try:
            if older is not None:
                await older.replace()
            await self._hand_out(peer, frames, reading)
        except StreamEOF:
            pass
        except CodecError as error:
            if self._endpoint.blame(peer, error):
                await self._host.disconnect(stream.muxed_conn.peer_id)
        except Exception as error:
            log.debug("link from %s: %r", label(peer), error)
        finally:
            reading.ended.set()
            if self._readings.get(peer.key) is reading:
                del self._readings[peer.key]
        await reset(stream)

    async def _hand_out(self, peer: Peer, frames: FrameStream, reading: Reading) -> None:
        """Hand the frames of a stream out, no faster than the peer may send.

        Raises:
            CodecError: the peer broke a rule of the link.
            Exception: the stream or its connection has ended.
        """
        decoder, deadline, data = FrameDecoder(peer.address.role), math.inf, b""
        while True:  # first without data: what an older stream owes is waited for
            before = decoder.count
            if wait_ms := self._endpoint.receive(peer, decoder, data):
                await trio.sleep(wait_ms / 1000)
            if not decoder.is_midway:
                deadline = math.inf
            elif decoder.count > before or deadline == math.inf:
                deadline = trio.current_time() + FRAME_TIMEOUT_S
            if not await reading.wait(frames, deadline):
                return
            data = await frames.read()
            if not data or reading.is_over or self._endpoint.book.get(peer.key) is not peer:
                return
