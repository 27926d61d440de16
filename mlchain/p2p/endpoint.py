"""What every transport does alike: know peers, hand out what arrives, answer requests.

Subclasses move the bytes. Whatever a handler raises ends here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mlchain.errors import CodecError, MlchainError, Rejected
from mlchain.p2p.framing import FrameDecoder, FrameQueue, encode_frame
from mlchain.p2p.peers import Peer, PeerBook
from mlchain.p2p.transport import (
    EVERYBODY,
    MAX_GOSSIP_BYTES,
    MAX_REQUESTS_IN_FLIGHT,
    MAX_UNSENT_BYTES,
    FrameHandler,
    GossipHandler,
    GossipValidator,
    LinkHandler,
    PeerAddress,
    PeerRefused,
    PeerStatus,
    PublicKey,
    RequestHandler,
    Role,
)

log = logging.getLogger("mlchain.p2p")


def monotonic_ms() -> int:
    """Milliseconds of a clock that never goes back."""
    return time.monotonic_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Service:
    """One request protocol we answer."""

    handler: RequestHandler
    roles: Collection[str]


@dataclass(frozen=True, slots=True)
class Topic:
    """One gossip topic we take part in."""

    handler: GossipHandler
    is_valid: GossipValidator | None


class Endpoint:
    """The half of a transport that does not depend on how bytes travel."""

    def __init__(
        self,
        own: PublicKey,
        peers: Mapping[PublicKey, PeerAddress],
        role: str = Role.VALIDATOR,
        clock_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        self.role = role
        self.on_frame: FrameHandler = lambda peer, channel, frame: None
        self.on_link: LinkHandler = lambda peer: None
        self.book = PeerBook(own, peers)
        self.clock_ms = clock_ms
        self.services: dict[str, Service] = {}
        self.topics: dict[str, Topic] = {}
        self.queues: dict[PublicKey, FrameQueue] = {p.key: FrameQueue() for p in self.book.all()}

    @property
    def public_key(self) -> PublicKey:
        """Our own 32-byte network key."""
        return self.book.own

    def serve(
        self, protocol: str, handler: RequestHandler, roles: Collection[str] = EVERYBODY
    ) -> None:
        """Answer requests of `protocol` that come from peers of `roles`."""
        self.services[protocol] = Service(handler, frozenset(roles))

    def subscribe(
        self, topic: str, handler: GossipHandler, is_valid: GossipValidator | None = None
    ) -> None:
        """Hand what others publish under `topic` to `handler`, once for equal data."""
        self.topics[topic] = Topic(handler, is_valid)

    def peers(self) -> list[PeerStatus]:
        """Return all known peers in key order."""
        now_ms = self.clock_ms()
        return [peer.status(now_ms) for peer in self.book.all()]

    def send(self, peer: PublicKey, channel: int, frame: bytes) -> bool:
        """Queue a frame; False if the peer is not linked or its queue is full.

        Raises:
            CodecError: the channel does not take such a frame, or none from our role.
        """
        return self._enqueue(self.book.get(peer), encode_frame(channel, frame, self.role))

    def broadcast(self, channel: int, frame: bytes) -> int:
        """Queue a frame for every peer; return how many took it.

        Raises:
            CodecError: the channel does not take such a frame, or none from our role.
        """
        encoded = encode_frame(channel, frame, self.role)
        return sum(self._enqueue(peer, encoded) for peer in self.book.all())

    def _enqueue(self, peer: Peer | None, encoded: bytes) -> bool:
        if peer is None:
            return False
        if peer.is_linked and self.queues[peer.key].push(encoded):
            return True
        peer.drop(1, len(encoded))
        return False

    def link_up(self, peer: Peer) -> None:
        """Frames to `peer` get through from now on."""
        peer.is_linked = True
        try:
            self.on_link(peer.key)
        except Exception:
            log.exception("on_link failed for %s", label(peer))

    def link_down(self, peer: Peer) -> None:
        """Frames to `peer` get lost from now on, the waiting ones too."""
        peer.is_linked = False
        queue = self.queues.get(peer.key)
        if queue is not None:
            peer.drop(*queue.clear())

    def receive(self, peer: Peer, decoder: FrameDecoder, data: bytes) -> int:
        """Hand the frames in `data` to `on_frame`; return the ms to wait before reading on.

        Raises:
            CodecError: the peer broke a rule of the link.
        """
        count, now_ms = 0, self.clock_ms()
        try:
            for channel, frame in decoder.feed(data):
                count += 1
                try:
                    self.on_frame(peer.key, channel, frame)
                except Exception:
                    log.exception("on_frame failed for channel %d from %s", channel, label(peer))
                if peer.is_banned(now_ms):  # for this frame: those after it are a stranger's
                    break
        finally:
            wait_ms = peer.receive(count, len(data), now_ms)
        return wait_ms

    def report(self, peer: PublicKey, why: str) -> bool:
        """Count a broken rule that only a handler could see. See `transport.Transport.report`."""
        entry = self.book.get(peer)
        if entry is None or entry.is_banned(self.clock_ms()):
            return False
        return self.blame(entry, why)

    def blame(self, peer: Peer, why: object) -> bool:
        """Count a broken rule against `peer`; tell whether it is banned for it."""
        is_banned = peer.violate(self.clock_ms())
        log.warning("%s broke a rule: %s%s", label(peer), why, "; banned" if is_banned else "")
        return is_banned

    @contextmanager
    def serving(self, peer: Peer) -> Iterator[None]:
        """Count a question of `peer` until its answer has left, be that an error.

        Raises:
            Rejected: it asks too much at once.
        """
        if peer.serving >= MAX_REQUESTS_IN_FLIGHT:
            raise Rejected(f"more than {MAX_REQUESTS_IN_FLIGHT} requests at once")
        peer.serving += 1
        try:
            yield
        finally:
            peer.serving -= 1

    @contextmanager
    def sending(self, peer: Peer, size: int) -> Iterator[None]:
        """Count an answer of `size` bytes until it has left.

        Raises:
            Rejected: `peer` leaves too much of what it asked for unread.
        """
        if peer.unsent_bytes and peer.unsent_bytes + size > MAX_UNSENT_BYTES:
            raise Rejected(f"more than {MAX_UNSENT_BYTES} bytes of answers at once")
        peer.unsent_bytes += size
        try:
            yield
        finally:
            peer.unsent_bytes -= size

    async def answer(self, peer: Peer, protocol: str, payload: bytes) -> bytes:
        """Return our handler's answer to `peer`, in the place of a question that `serving` counts.

        No place is shared with other peers, and so a handler may wait: it holds up its asker alone.

        Raises:
            MlchainError: what the handler raised, Rejected if the peer may not ask, or
                PeerRefused if nobody here answers that.
            Exception: a bug in the handler, logged here already.
        """
        service = self.services.get(protocol)
        if service is None:
            raise PeerRefused(f"{protocol} is not served", "NotServed")
        if peer.address.role not in service.roles:
            raise Rejected(f"{protocol} is not served to a {peer.address.role}")
        try:
            return await service.handler(peer.key, payload)
        except MlchainError:
            raise
        except Exception:
            log.exception("handler of %s failed for %s", protocol, label(peer))
            raise

    def accepts_gossip(self, topic: str, data: bytes) -> bool:
        """Tell whether a message is to be delivered and passed on."""
        entry = self.topics.get(topic)
        if entry is None or len(data) > MAX_GOSSIP_BYTES:
            return False
        try:
            return entry.is_valid is None or entry.is_valid(data)
        except Exception:
            log.exception("validator of %s failed", topic)
            return False

    def deliver_gossip(self, author: PublicKey, topic: str, data: bytes) -> None:
        """Hand a message to its subscriber."""
        try:
            self.topics[topic].handler(author, data)
        except Exception:
            log.exception("handler of topic %s failed", topic)


def check_gossip(data: bytes) -> None:
    """Return if `data` may be published.

    Raises:
        CodecError: too large.
    """
    if len(data) > MAX_GOSSIP_BYTES:
        raise CodecError(f"gossip: {len(data)} bytes, at most {MAX_GOSSIP_BYTES} allowed")


def label(peer: Peer | None) -> str:
    """A peer for log lines."""
    return "a stranger" if peer is None else peer.address.name or peer.key.hex()[:12]
