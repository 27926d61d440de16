"""A network inside one process: the same promises as `libp2p`, no sockets.

All transports of one `Hub` can reach each other, unless a pair is cut. Bytes pass through the same
framing, limits and accounts as on a real wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import trio

from mlchain import crypto
from mlchain.errors import CodecError, Timeout, Unreachable
from mlchain.p2p.endpoint import Endpoint, check_gossip, label, monotonic_ms
from mlchain.p2p.framing import (
    REPLY_HEADER,
    STATUS_ERROR,
    STATUS_OK,
    FrameDecoder,
    FrameQueue,
    check_reply_header,
    decode_error,
    encode_error,
    encode_question,
)
from mlchain.p2p.peers import Peer
from mlchain.p2p.transport import (
    MAX_RESPONSE_BYTES,
    PeerAddress,
    PublicKey,
    Role,
)

MAX_SEEN = 1 << 16


class Hub:
    """Where the transports of one process meet."""

    def __init__(self) -> None:
        self._running: dict[PublicKey, MemoryTransport] = {}
        self._cuts: set[frozenset[PublicKey]] = set()

    def reach(self, one: MemoryTransport, other: PublicKey) -> MemoryTransport | None:
        """Return the transport of `other` if `one` and `other` run, know each other, and no cut."""
        there = self._running.get(other)
        if there is None or frozenset((one.public_key, other)) in self._cuts:
            return None
        if self._running.get(one.public_key) is not one:
            return None
        if not there.book.admits(one.public_key, there.clock_ms()):
            return None
        return there if one.book.admits(other, one.clock_ms()) else None

    def cut(self, one: PublicKey, other: PublicKey) -> None:
        """Break the link between two peers until `heal`."""
        self._cuts.add(frozenset((one, other)))
        self._notify()

    def heal(self, one: PublicKey, other: PublicKey) -> None:
        """Undo `cut`."""
        self._cuts.discard(frozenset((one, other)))
        self._notify()

    def join(self, transport: MemoryTransport) -> None:
        """A transport starts."""
        self._running[transport.public_key] = transport
        self._notify()

    def leave(self, transport: MemoryTransport) -> None:
        """A transport stops."""
        self._running.pop(transport.public_key, None)
        self._notify()

    def _notify(self) -> None:
        for transport in self._running.values():
            transport.look_again()


class MemoryTransport(Endpoint):
    """One member of a hub. Fulfils `transport.Transport`."""

    def __init__(
        self,
        hub: Hub,
        own: PublicKey,
        peers: Mapping[PublicKey, PeerAddress],
        role: str = Role.VALIDATOR,
        clock_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        super().__init__(own, peers, role, clock_ms)
        self.hub = hub
        self._nursery: trio.Nursery | None = None
        self._links: dict[PublicKey, trio.CancelScope] = {}
        self._seen: dict[bytes, None] = {}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Take part in the hub inside the `async with`."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.hub.join(self)
            for peer in self.book.all():
                nursery.start_soon(self._run_link, peer)
            try:
                yield
            finally:
                self._nursery = None
                self.hub.leave(self)
                for peer in self.book.all():
                    self.link_down(peer)
                nursery.cancel_scope.cancel()

    def look_again(self) -> None:
        """Some peer came, left or was cut off."""
        for queue in self.queues.values():
            queue.wake.set()

    def report(self, peer: PublicKey, why: str) -> bool:
        """Count a broken rule that only a handler could see. See `transport.Transport.report`."""
        is_banned = super().report(peer, why)
        if is_banned:
            self.hub._notify()
        return is_banned

    def add_peer(self, peer: PublicKey, address: PeerAddress) -> None:
        """Know `peer` from now on."""
        is_new = self.book.get(peer) is None
        entry = self.book.add(peer, address)
        if is_new and peer != self.public_key:
            self.queues[peer] = FrameQueue()
            if self._nursery is not None:
                self._nursery.start_soon(self._run_link, entry)
        self.hub._notify()

    def remove_peer(self, peer: PublicKey) -> None:
        """Forget `peer`."""
        entry = self.book.remove(peer)
        if entry is not None:
            self.link_down(entry)
            del self.queues[peer]
            scope = self._links.pop(peer, None)
            if scope is not None:
                scope.cancel()
        self.hub._notify()

    async def _run_link(self, peer: Peer) -> None:
        """Carry frames to `peer`, one incarnation of it after the other."""
        if self.book.get(peer.key) is not peer:
            return
        queue = self.queues[peer.key]
        linked: MemoryTransport | None = None
        decoder: FrameDecoder | None = None
        with trio.CancelScope() as scope:
            self._links[peer.key] = scope
            while True:
                there = self.hub.reach(self, peer.key)
                if there is not linked or decoder is None:
                    self.link_down(peer)
                    linked, decoder = there, None
                    sender = there.book.get(self.public_key) if there is not None else None
                    if there is not None and sender is not None:
                        decoder = FrameDecoder(sender.address.role)
                        self.link_up(peer)
                if there is None or sender is None or decoder is None or not queue:
                    await queue.wait()
                    continue
                await trio.lowlevel.checkpoint()
                _, data = queue.pop()
                try:
                    wait_ms = there.receive(sender, decoder, data)
                except CodecError as error:
                    there.blame(sender, error)
                    decoder = None
                    continue
                await trio.sleep(wait_ms / 1000)

    async def request(
        self, peer: PublicKey, protocol: str, payload: bytes, max_bytes: int, timeout_s: float
    ) -> bytes:
        """Ask `peer` and return its answer. See `transport.Transport.request`."""
        entry = self.book.get(peer)
        if entry is None:
            raise Unreachable(f"{peer.hex()[:12]} is not a known peer")
        encode_question(protocol, payload)
        try:
            with trio.fail_after(timeout_s):
                async with entry.asking:
                    return await self._ask(entry, protocol, payload, max_bytes)
        except trio.TooSlowError as error:
            raise Timeout(f"{label(entry)}: no answer in {timeout_s} s") from error

    async def _ask(self, peer: Peer, protocol: str, payload: bytes, max_bytes: int) -> bytes:
        there = self.hub.reach(self, peer.key)
        asker = there.book.get(self.public_key) if there is not None else None
        if there is None or asker is None:
            raise Unreachable(f"{label(peer)} is not connected")
        await trio.lowlevel.checkpoint()
        try:
            with there.serving(asker):
                status, body = STATUS_OK, await there.answer(asker, protocol, payload)
        except Exception as error:
            status, body = STATUS_ERROR, encode_error(error)
        if self.hub.reach(self, peer.key) is not there:
            raise Unreachable(f"{label(peer)} went away")
        header = REPLY_HEADER.pack(status, len(body))
        check_reply_header(header, min(max_bytes, MAX_RESPONSE_BYTES))
        if status == STATUS_ERROR:
            raise decode_error(body)
        return body

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data` to all others subscribed to `topic`."""
        check_gossip(data)
        await trio.lowlevel.checkpoint()
        if self._is_new(topic, data):
            self._pass_on(self.public_key, topic, data)

    def _is_new(self, topic: str, data: bytes) -> bool:
        """Tell whether this is heard for the first time; remembers the last MAX_SEEN."""
        name = crypto.digest("mlchain/gossip", topic.encode(), data)
        if name in self._seen:
            return False
        self._seen[name] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return True

    def _pass_on(self, author: PublicKey, topic: str, data: bytes) -> None:
        for peer in self.book.all():
            there = self.hub.reach(self, peer.key)
            if there is not None and there._nursery is not None:
                there._nursery.start_soon(there._hear, author, topic, data)

    async def _hear(self, author: PublicKey, topic: str, data: bytes) -> None:
        """Take a gossip message, deliver it and pass it on, once."""
        if self.book.get(author) is None or not self.accepts_gossip(topic, data):
            return
        if not self._is_new(topic, data):
            return
        self.deliver_gossip(author, topic, data)
        self._pass_on(author, topic, data)
