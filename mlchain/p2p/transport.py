"""What a node may rely on to talk to its peers, whoever carries the bytes.

Three ways to move bytes, each for one need:

    frames    small, ordered per peer while the link lasts, lost when it breaks   votes, proposals
    requests  one question, one answer, on a stream of its own                    blocks, data
    gossip    at most once to everybody, any order, maybe never                   announcements

A peer is its 32-byte Ed25519 network key. Strangers are refused before they can say anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Protocol

from mlchain.codec import MAX_RECORD_BYTES
from mlchain.errors import Unreachable

MAX_BATCH_BYTES = 56 << 10
"""Frames are written together up to here: one muxer frame, one encryption, one system call."""

MAX_QUEUE_FRAMES = 8192
"""Frames that may wait for one peer."""

MAX_QUEUE_BYTES = 16 << 20
"""Bytes that may wait for one peer."""

MAX_REQUEST_BYTES = 1 << 20
"""Largest question."""

MAX_RESPONSE_BYTES = 64 << 20
"""Largest answer; a requester usually allows less."""

MAX_GOSSIP_BYTES = 1_000_000
"""Largest gossip message; bigger things are announced by hash and fetched."""

MAX_REQUESTS_IN_FLIGHT = 16
"""Unanswered requests between two peers, in each direction."""

MAX_UNSENT_BYTES = MAX_RESPONSE_BYTES
"""Answers that one peer has asked for and not read; one may always be, however large."""

REQUEST_READ_TIMEOUT_S = 10
"""A question must have arrived by then."""

ANSWER_TIMEOUT_S = 120
"""Handler and transfer of the answer together must be done by then."""

RECONNECT_MIN_MS = 50
RECONNECT_MAX_MS = 1000
"""Pauses between attempts to reach a peer double from the first to the second."""

PublicKey = bytes
"""32 bytes."""

FrameHandler = Callable[[PublicKey, int, bytes], None]
"""Takes (peer, channel, frame). Must not block."""

LinkHandler = Callable[[PublicKey], None]
"""Takes the peer to which frames now get through."""

RequestHandler = Callable[[PublicKey, bytes], Awaitable[bytes]]
"""Takes (peer, question), returns the answer or raises a MlchainError for the asker to see."""

GossipHandler = Callable[[PublicKey, bytes], None]
"""Takes (author, data); the author's signature has been checked. Must not block."""

GossipValidator = Callable[[bytes], bool]
"""Tells from the data alone whether to deliver and pass it on. Must not block."""


class Role(StrEnum):
    """What a peer may do, as the genesis file says."""

    VALIDATOR = "validator"
    WORKER = "worker"
    OBSERVER = "observer"


EVERYBODY = frozenset(Role)
"""All roles."""


class Channel(IntEnum):
    """First byte of a frame: what the rest is."""

    CONSENSUS = 1
    TRANSACTIONS = 2
    STATUS = 3
    WORK = 4


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """Who may send on a channel, and how much at once."""

    max_bytes: int
    roles: Collection[str]


CHANNELS: Mapping[int, ChannelRule] = {
    Channel.CONSENSUS: ChannelRule(MAX_RECORD_BYTES + (64 << 10), frozenset({Role.VALIDATOR})),
    Channel.TRANSACTIONS: ChannelRule(1 << 20, EVERYBODY),
    Channel.STATUS: ChannelRule(64 << 10, EVERYBODY),
    Channel.WORK: ChannelRule(1 << 20, EVERYBODY),
}
"""Everything a link carries. A frame that breaks its rule costs the sender the link."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a known peer listens and what it may do.

    `host` is an IP address or a DNS name. Port 0: the peer is not dialled, it dials us.
    """

    host: str
    port: int
    role: str = Role.VALIDATOR
    name: str = ""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer, for people and for choosing whom to ask.

    `connected` says that frames to it get through. `last_seen_ms` is how long ago anything came
    from it, in milliseconds, None for never. `dropped` counts what we could not send it,
    `violations` what it should not have sent.
    """

    peer: PublicKey
    name: str
    role: str
    connected: bool
    last_seen_ms: int | None
    frames_received: int
    bytes_received: int
    frames_dropped: int
    bytes_dropped: int
    violations: int


class PeerRefused(Unreachable):
    """The peer answered a request with an error of its own; `code` names it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, "ask another peer")
        self.code = code


class Transport(Protocol):
    """The network as a node sees it. `memory` and `libp2p` pass one conformance suite.

    Set `on_frame` and `on_link`, `serve` and `subscribe` before `run`. Nothing a handler raises
    escapes: it is logged, and in a request answered as an error.
    """

    on_frame: FrameHandler
    on_link: LinkHandler
    role: str
    """Our own, as the others know it; set before `run`."""

    @property
    def public_key(self) -> PublicKey:
        """Our own 32-byte network key."""

    def run(self) -> AbstractAsyncContextManager[None]:
        """Listen and stay connected to every known peer inside the `async with`.

        Raises:
            ConfigError: the port is taken or the address cannot be listened on.
        """

    def send(self, peer: PublicKey, channel: int, frame: bytes) -> bool:
        """Queue a frame for `peer`; False if it is not linked or its queue is full.

        Frames of one link arrive in order and once. What is queued when a link breaks is lost:
        `on_link` is the moment to send again what still matters.

        Raises:
            CodecError: the channel does not take such a frame, or none from our role.
        """

    def broadcast(self, channel: int, frame: bytes) -> int:
        """`send` to every peer; return how many took it."""

    async def request(
        self, peer: PublicKey, protocol: str, payload: bytes, max_bytes: int, timeout_s: float
    ) -> bytes:
        """Ask `peer` and return its answer, at most `max_bytes` long.

        Raises:
            Unreachable: no connection, or it broke.
            PeerRefused: (an Unreachable) the peer failed to answer and said so; code "NotServed" if
                it does not know the protocol.
            NotFound, CodecError, InvalidTransaction, Rejected: as raised by the peer's handler;
                Rejected also if the protocol is not for our role, or if we ask too much at once.
            CodecError: question or answer too large, or an answer that is malformed.
            Timeout: no complete answer within `timeout_s` seconds.
        """

    def serve(
        self, protocol: str, handler: RequestHandler, roles: Collection[str] = EVERYBODY
    ) -> None:
        """Answer requests of `protocol` that come from peers of `roles`."""

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data` to all others subscribed to `topic`. Equal data is gossiped once.

        Raises:
            CodecError: larger than MAX_GOSSIP_BYTES.
        """

    def subscribe(
        self, topic: str, handler: GossipHandler, is_valid: GossipValidator | None = None
    ) -> None:
        """Hand what others publish under `topic` to `handler`, once for equal data."""

    def report(self, peer: PublicKey, why: str) -> bool:
        """Count a broken rule that only a handler could see; tell whether it gets `peer` banned.

        As with the rules of a link, a peer that goes on is a stranger for a while.
        """

    def peers(self) -> list[PeerStatus]:
        """Return all known peers in key order."""

    def add_peer(self, peer: PublicKey, address: PeerAddress) -> None:
        """Know `peer` from now on, or know it at a new address."""

    def remove_peer(self, peer: PublicKey) -> None:
        """Forget `peer`: its connections are closed and it is a stranger."""
