"""The transport of real nodes: py-libp2p over TCP, Noise and Yamux, between known peers only.

The library is used as `libp2p_host` repairs it. Frames travel on `libp2p_links`, gossip on
`libp2p_gossip`; requests, here, take a stream of their own each.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF

from mlchain import crypto
from mlchain.errors import CodecError, ConfigError, MlchainError, Timeout, Unreachable
from mlchain.p2p.endpoint import Endpoint, label, monotonic_ms
from mlchain.p2p.framing import (
    QUESTION_HEADER,
    REPLY_HEADER,
    STATUS_ERROR,
    STATUS_OK,
    FrameQueue,
    check_question_header,
    check_reply_header,
    decode_error,
    encode_error,
    encode_question,
)
from mlchain.p2p.libp2p_gate import key_pair, peer_id, public_key
from mlchain.p2p.libp2p_gossip import Gossip
from mlchain.p2p.libp2p_host import (
    GuardedHost,
    build_host,
    claim_port,
    close_host,
    reset,
    to_multiaddr,
)
from mlchain.p2p.libp2p_links import Links
from mlchain.p2p.libp2p_quick import ease_stream
from mlchain.p2p.peers import Peer
from mlchain.p2p.transport import (
    ANSWER_TIMEOUT_S,
    MAX_RESPONSE_BYTES,
    REQUEST_READ_TIMEOUT_S,
    GossipHandler,
    GossipValidator,
    PeerAddress,
    PeerRefused,
    PublicKey,
    Role,
)

log = logging.getLogger("mlchain.p2p")

REQUEST = TProtocol("/mlchain/request/1.0.0")
CLOSE_TIMEOUT_S = 3.0
WRITE_BYTES = 1 << 18


class LibP2PTransport(Endpoint):
    """One node's network. Fulfils `transport.Transport`.

    Args:
        seed: 32 secret bytes; the Ed25519 key made from them is our identity.
        host: IP address to listen on.
        port: TCP port to listen on; 0 chooses one, see `port` while running.
        peers: everybody we talk to, by 32-byte public key; an entry for ourselves is ignored.
        role: our own, as the others know it: it decides which channels we may send on.
        clock_ms: monotonic milliseconds.
    """

    def __init__(
        self,
        seed: bytes,
        host: str,
        port: int,
        peers: Mapping[PublicKey, PeerAddress],
        role: str = Role.VALIDATOR,
        clock_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        super().__init__(crypto.SecretKey(seed).public, peers, role, clock_ms)
        self.host, self.port = host, port
        self._keys = key_pair(seed)
        self._nursery: trio.Nursery | None = None
        self._libp2p: GuardedHost | None = None
        self._links: Links | None = None
        self._gossip: Gossip | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Listen and stay connected inside the `async with`. See `transport.Transport.run`."""
        try:
            async with self._run():
                yield
        except BaseExceptionGroup as group:
            raise _only(group) from None

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        self.port = claim_port(self.host, self.port)
        address = to_multiaddr(self.host, self.port)
        host = build_host(self._keys, self.book, self.clock_ms)
        links, gossip = Links(host, self), Gossip(host, self)
        host.set_stream_handler(REQUEST, self._serve)
        async with host.run([address]), gossip.run(), trio.open_nursery() as nursery:
            try:
                if str(address) not in host.get_network().listeners:
                    raise ConfigError(f"cannot listen on {self.host} port {self.port}")
                self._libp2p, self._links, self._gossip = host, links, gossip
                self._nursery = nursery
                for peer in self.book.all():
                    nursery.start_soon(links.keep, peer)
                yield
            finally:
                self._nursery = self._libp2p = self._links = self._gossip = None
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT_S):
                    await close_host(host)

    def subscribe(
        self, topic: str, handler: GossipHandler, is_valid: GossipValidator | None = None
    ) -> None:
        """Hand what others publish under `topic` to `handler`, once for equal data."""
        super().subscribe(topic, handler, is_valid)
        if self._nursery is not None and self._gossip is not None:
            self._nursery.start_soon(self._gossip.join, topic)

    def add_peer(self, peer: PublicKey, address: PeerAddress) -> None:
        """Know `peer` from now on, or dial it at a new address from the next break on."""
        is_new = self.book.get(peer) is None
        if peer == self.public_key:
            return
        entry = self.book.add(peer, address)
        if is_new:
            self.queues[peer] = FrameQueue()
            if self._nursery is not None and self._links is not None:
                self._nursery.start_soon(self._links.keep, entry)

    def remove_peer(self, peer: PublicKey) -> None:
        """Forget `peer`: its connections are closed and it is a stranger."""
        entry = self.book.remove(peer)
        if entry is None:
            return
        self.link_down(entry)
        del self.queues[peer]
        if self._nursery is not None and self._libp2p is not None and self._links is not None:
            self._links.stop(entry)
            self._nursery.start_soon(self._libp2p.disconnect, peer_id(peer))

    def report(self, peer: PublicKey, why: str) -> bool:
        """Count a broken rule that only a handler could see. See `transport.Transport.report`."""
        is_banned = super().report(peer, why)
        if is_banned and self._nursery is not None and self._libp2p is not None:
            self._nursery.start_soon(self._libp2p.disconnect, peer_id(peer))
        return is_banned

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data` to all others subscribed to `topic`. See `transport.Transport.publish`."""
        if self._gossip is None:
            raise Unreachable("the transport is not running")
        await self._gossip.publish(topic, data)

    async def request(
        self, peer: PublicKey, protocol: str, payload: bytes, max_bytes: int, timeout_s: float
    ) -> bytes:
        """Ask `peer` and return its answer. See `transport.Transport.request`."""
        entry = self.book.get(peer)
        if entry is None:
            raise Unreachable(f"{peer.hex()[:12]} is not a known peer")
        question = encode_question(protocol, payload)
        try:
            with trio.fail_after(timeout_s):
                async with entry.asking:
                    return await self._ask(entry, question, max_bytes)
        except trio.TooSlowError as error:
            raise Timeout(f"{label(entry)}: no answer in {timeout_s} s") from error

    async def _ask(self, peer: Peer, question: bytes, max_bytes: int) -> bytes:
        identity = peer_id(peer.key)
        if self._libp2p is None or not self._libp2p.get_network().get_connections(identity):
            raise Unreachable(f"{label(peer)} is not connected")
        stream: INetStream | None = None
        try:
            stream = await self._libp2p.new_stream(identity, [REQUEST])
            ease_stream(stream)
            await stream.write(question)
            header = await _read_exactly(stream, REPLY_HEADER.size)
            status, size = check_reply_header(header, min(max_bytes, MAX_RESPONSE_BYTES))
            body = await _read_exactly(stream, size)
            await stream.close()
            stream = None
        except (MlchainError, trio.TooSlowError):
            raise
        except Exception as error:
            raise Unreachable(f"{label(peer)} broke the connection") from error
        finally:
            if stream is not None:
                await reset(stream)
        peer.seen_at_ms = self.clock_ms()
        if status == STATUS_ERROR:
            raise decode_error(body)
        return body

    async def _serve(self, stream: INetStream) -> None:
        """Answer the one question on `stream`."""
        peer = self.book.get(public_key(stream.muxed_conn.peer_id) or b"")
        ease_stream(stream)
        try:
            if peer is not None:
                with trio.fail_after(REQUEST_READ_TIMEOUT_S):
                    header = await _read_exactly(stream, QUESTION_HEADER.size)
                    name_size, size = check_question_header(header)
                    question = await _read_exactly(stream, name_size + size)
                protocol = question[:name_size].decode(errors="replace")
                with trio.fail_after(ANSWER_TIMEOUT_S):
                    await self._reply(peer, protocol, question[name_size:], stream)
                return
        except CodecError as error:
            assert peer is not None, "nothing was read from a stranger"
            if self.blame(peer, error) and self._libp2p is not None:
                await self._libp2p.disconnect(stream.muxed_conn.peer_id)
        except Exception as error:
            log.debug("request of %s: %r", label(peer), error)
        await reset(stream)

    async def _reply(self, peer: Peer, protocol: str, payload: bytes, stream: INetStream) -> None:
        with ExitStack() as account:  # of what is held until the answer has left
            try:
                account.enter_context(self.serving(peer))
                status, body = STATUS_OK, await self.answer(peer, protocol, payload)
                if len(body) > MAX_RESPONSE_BYTES:
                    raise PeerRefused(f"the answer has {len(body)} bytes", "TooLarge")
                account.enter_context(self.sending(peer, len(body)))
            except Exception as error:
                status, body = STATUS_ERROR, encode_error(error)
            await stream.write(REPLY_HEADER.pack(status, len(body)) + body[:WRITE_BYTES])
            for at in range(WRITE_BYTES, len(body), WRITE_BYTES):
                await stream.write(body[at : at + WRITE_BYTES])
        await stream.close()  # uncounted: the peer may have read it all and ask the next


async def _read_exactly(stream: INetStream, size: int) -> bytes:
    """Read `size` bytes; memory grows with what arrives, not with what was announced."""
    data = bytearray()
    while len(data) < size:
        part = await stream.read(size - len(data))
        if not part:
            raise StreamEOF
        data += part
    return bytes(data)


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one exception that nested task groups wrapped, or the group if there are more."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
