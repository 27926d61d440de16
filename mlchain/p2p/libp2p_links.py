"""Persistent links over libp2p streams: frames in order, batched, and back soon after a break.

Each peer opens one stream to every other and only writes on it, so no tie has to be broken. The
writing side also dials, for ever, and learns from the stream's end that the link is down.
"""

from __future__ import annotations

import logging

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


class Links:
    """All links of one host."""

    def __init__(self, host: BasicHost, endpoint: Endpoint) -> None:
        self._host, self._endpoint = host, endpoint
        self._scopes: dict[bytes, trio.CancelScope] = {}
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
        """Serve the peer's link: hand its frames out, no faster than it may send."""
        peer = self._endpoint.book.get(public_key(stream.muxed_conn.peer_id) or b"")
        if peer is None:
            await reset(stream)
            return
        frames, decoder = FrameStream(stream), FrameDecoder(peer.address.role)
        try:
            while data := await frames.read():
                if self._endpoint.book.get(peer.key) is not peer:
                    break
                wait_ms = self._endpoint.receive(peer, decoder, data)
                if wait_ms:
                    await trio.sleep(wait_ms / 1000)
        except StreamEOF:
            pass
        except CodecError as error:
            if self._endpoint.blame(peer, error):
                await self._host.disconnect(stream.muxed_conn.peer_id)
        except Exception as error:
            log.debug("link from %s: %r", label(peer), error)
        await reset(stream)
