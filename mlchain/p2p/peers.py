"""Who is known, what each may do, and how much of our time each may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from mlchain.errors import ConfigError
from mlchain.p2p.transport import (
    MAX_REQUESTS_IN_FLIGHT,
    PeerAddress,
    PeerStatus,
    PublicKey,
    Role,
)

FRAMES_PER_S = 20_000
BYTES_PER_S = 64 << 20
"""What a peer may send over its link; faster senders are read more slowly, not dropped."""

GOSSIP_MESSAGES_PER_S = 1000
GOSSIP_BYTES_PER_S = 8 << 20
"""What a peer may gossip to us, its own and forwarded messages together; read slower beyond."""

STREAMS_PER_S = 400
MAX_STREAMS = 128
"""Streams a peer may open to us per second, and hold open; refused beyond."""

MAX_VIOLATIONS = 20
VIOLATIONS_FORGIVEN_PER_S = 1
BAN_MS = 30_000
"""A peer with more broken rules than forgiven ones is a stranger for BAN_MS."""


class TokenBucket:
    """Allows `rate` units per second on average and `burst` at once. The caller brings the time.

    Counts in thousandths of a unit, so that whole milliseconds stay exact.
    """

    __slots__ = ("_at_ms", "_level", "burst", "rate")

    def __init__(self, rate: int, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._level = burst * 1000
        self._at_ms: int | None = None

    def _refill(self, now_ms: int) -> None:
        if self._at_ms is not None and now_ms > self._at_ms:
            gained = (now_ms - self._at_ms) * self.rate
            self._level = min(self.burst * 1000, self._level + gained)
        self._at_ms = now_ms

    def charge(self, amount: int, now_ms: int) -> int:
        """Take `amount` even into debt; return the milliseconds until the debt is paid."""
        self._refill(now_ms)
        self._level -= amount * 1000
        return 0 if self._level >= 0 else -(self._level // self.rate)

    def take(self, amount: int, now_ms: int) -> bool:
        """Take `amount` if there is that much; tell whether there was."""
        self._refill(now_ms)
        if self._level < amount * 1000:
            return False
        self._level -= amount * 1000
        return True


@dataclass(slots=True)
class Peer:
    """One known peer: its address, and the account of what passed between us."""

    key: PublicKey
    address: PeerAddress
    is_linked: bool = False
    seen_at_ms: int | None = None
    frames_received: int = 0
    bytes_received: int = 0
    frames_dropped: int = 0
    bytes_dropped: int = 0
    violations: int = 0
    banned_until_ms: int = 0
    streams: int = 0
    serving: int = 0
    unsent_bytes: int = 0
    frame_rate: TokenBucket = field(default_factory=lambda: TokenBucket(FRAMES_PER_S, FRAMES_PER_S))
    byte_rate: TokenBucket = field(default_factory=lambda: TokenBucket(BYTES_PER_S, BYTES_PER_S))
    gossip_rate: TokenBucket = field(
        default_factory=lambda: TokenBucket(GOSSIP_MESSAGES_PER_S, 2 * GOSSIP_MESSAGES_PER_S)
    )
    gossip_byte_rate: TokenBucket = field(
        default_factory=lambda: TokenBucket(GOSSIP_BYTES_PER_S, 2 * GOSSIP_BYTES_PER_S)
    )
    stream_rate: TokenBucket = field(
        default_factory=lambda: TokenBucket(STREAMS_PER_S, STREAMS_PER_S)
    )
    patience: TokenBucket = field(
        default_factory=lambda: TokenBucket(VIOLATIONS_FORGIVEN_PER_S, MAX_VIOLATIONS)
    )
    asking: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(MAX_REQUESTS_IN_FLIGHT))

    def receive(self, frames: int, size: int, now_ms: int) -> int:
        """Account for `frames` of `size` bytes; return the ms to wait before reading on."""
        self.seen_at_ms = now_ms
        self.frames_received += frames
        self.bytes_received += size
        return max(self.frame_rate.charge(frames, now_ms), self.byte_rate.charge(size, now_ms))

    def receive_gossip(self, messages: int, size: int, now_ms: int) -> int:
        """Account for gossip; return how long to wait before reading on, in ms."""
        self.seen_at_ms = now_ms
        wait_ms = self.gossip_rate.charge(messages, now_ms)
        return max(wait_ms, self.gossip_byte_rate.charge(size, now_ms))

    def open_stream(self, now_ms: int) -> bool:
        """Account for a stream the peer opens; tell whether it may."""
        self.seen_at_ms = now_ms
        if self.streams >= MAX_STREAMS or not self.stream_rate.take(1, now_ms):
            return False
        self.streams += 1
        return True

    def drop(self, frames: int, size: int) -> None:
        """Account for what could not be sent to the peer."""
        self.frames_dropped += frames
        self.bytes_dropped += size

    def violate(self, now_ms: int) -> bool:
        """Account for a broken rule; tell whether the peer is banned now."""
        self.violations += 1
        if not self.patience.take(1, now_ms):
            self.banned_until_ms = now_ms + BAN_MS
        return self.is_banned(now_ms)

    def is_banned(self, now_ms: int) -> bool:
        """Tell whether the peer counts as a stranger for now."""
        return now_ms < self.banned_until_ms

    def status(self, now_ms: int) -> PeerStatus:
        """Return what others may know of this account."""
        return PeerStatus(
            peer=self.key,
            name=self.address.name,
            role=str(self.address.role),
            connected=self.is_linked,
            last_seen_ms=None if self.seen_at_ms is None else now_ms - self.seen_at_ms,
            frames_received=self.frames_received,
            bytes_received=self.bytes_received,
            frames_dropped=self.frames_dropped,
            bytes_dropped=self.bytes_dropped,
            violations=self.violations,
        )


class PeerBook:
    """The allow-list: everybody else is a stranger."""

    def __init__(self, own: PublicKey, peers: Mapping[PublicKey, PeerAddress]) -> None:
        self.own = own
        self.refused = 0
        self._peers: dict[PublicKey, Peer] = {}
        for key in sorted(peers):
            if key != own:
                self.add(key, peers[key])

    def add(self, key: PublicKey, address: PeerAddress) -> Peer:
        """Know `key` at `address`; its account starts anew only if it was a stranger.

        Raises:
            ConfigError: not a key, port or role.
        """
        if len(key) != 32:
            raise ConfigError(f"peer {address.name or key.hex()}: a peer key has 32 bytes")
        if not 0 <= address.port <= 65535:
            raise ConfigError(f"peer {address.name or key.hex()}: port {address.port}")
        if address.role not in set(Role):
            raise ConfigError(f"peer {address.name or key.hex()}: role {address.role!r}")
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = Peer(key, address)
        peer.address = address
        return peer

    def remove(self, key: PublicKey) -> Peer | None:
        """Forget `key`; return the account it had."""
        return self._peers.pop(key, None)

    def get(self, key: PublicKey) -> Peer | None:
        """Return the account of `key`, None for a stranger."""
        return self._peers.get(key)

    def all(self) -> list[Peer]:
        """Return all accounts in key order."""
        return [self._peers[key] for key in sorted(self._peers)]

    def admits(self, key: PublicKey | None, now_ms: int) -> bool:
        """Tell whether `key` may be connected to us; count the refusal if not."""
        peer = self._peers.get(key) if key is not None else None
        if peer is not None and not peer.is_banned(now_ms):
            return True
        self.refused += 1
        return False
