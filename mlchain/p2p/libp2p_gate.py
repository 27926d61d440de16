"""Who gets in: the names of peers in libp2p, and the two gates strangers cannot pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from libp2p.abc import ISecureConn
from libp2p.crypto.ed25519 import Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.peer.id import ID
from libp2p.rcmgr import Direction, ResourceLimits, ResourceManager
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import Transport as NoiseTransport

from mlchain.p2p.libp2p_session import quicken
from mlchain.p2p.peers import PeerBook
from mlchain.p2p.transport import PublicKey

MAX_CONNECTIONS = 1024
MAX_CONNECTIONS_PER_PEER = 6
"""Both sides dial, so two are normal, and twice that after a peer died silently and came back."""

_ID_PREFIX = b"\x00\x24\x08\x01\x12\x20"
"""An Ed25519 peer id is this (identity hash of 36 bytes: key type, key length) and the key."""


def peer_id(key: PublicKey) -> ID:
    """Return the libp2p name of a peer."""
    return ID(_ID_PREFIX + key)


def public_key(identity: ID) -> PublicKey | None:
    """Return the key behind a libp2p name; None if it is not an Ed25519 one."""
    raw = identity.to_bytes()
    is_ed25519 = len(raw) == 38 and raw.startswith(_ID_PREFIX)
    return raw[len(_ID_PREFIX) :] if is_ed25519 else None


@lru_cache(maxsize=1024)
def _public_key_of_text(text: str) -> PublicKey | None:
    return public_key(ID.from_string(text))


def key_pair(seed: bytes) -> KeyPair:
    """Return the network keys made from 32 secret bytes."""
    pair = create_new_key_pair(seed)
    assert isinstance(pair.public_key, Ed25519PublicKey)
    return pair


class GatedNoise(NoiseTransport):
    """Noise that ends at the handshake for whoever is not admitted: no muxer, no stream."""

    def __init__(self, pair: KeyPair, admits: Callable[[ID], bool]) -> None:
        super().__init__(pair, noise_privkey=create_x25519_key_pair().private_key)
        self._admits = admits

    async def secure_inbound(self, conn):  # type: ignore[no-untyped-def]
        """Return the secured connection of an admitted peer; see the library."""
        return await self._gate(await super().secure_inbound(conn))

    async def secure_outbound(self, conn, peer_id):  # type: ignore[no-untyped-def]
        """Return the secured connection to an admitted peer; see the library."""
        return await self._gate(await super().secure_outbound(conn, peer_id))

    async def _gate(self, session: ISecureConn) -> ISecureConn:
        remote = session.get_remote_peer()
        if not self._admits(remote):
            await session.close()
            raise HandshakeFailure(f"{remote} is not a known peer")
        return quicken(session)


class GatedResources(ResourceManager):
    """The second gate (after the muxer), and the limits on connections and streams.

    The library treats an exception here as consent, so nothing may be raised.
    """

    def __init__(self, book: PeerBook, admits: Callable[[ID], bool], clock_ms: Callable[[], int]):
        super().__init__(
            limits=ResourceLimits(max_connections=MAX_CONNECTIONS),
            enable_metrics=False,
            enable_rate_limiting=False,
            enable_circuit_breaker=False,  # it closes the node to everybody for a minute
            enable_graceful_degradation=False,
            connection_limits=ConnectionLimits(
                max_established_inbound=MAX_CONNECTIONS,
                max_established_outbound=MAX_CONNECTIONS,
                max_established_per_peer=MAX_CONNECTIONS_PER_PEER,
                max_established_total=MAX_CONNECTIONS,
            ),
        )
        self._book, self._admits, self._clock_ms = book, admits, clock_ms

    def open_connection(self, peer_id=None, endpoint_ip=None, direction="inbound"):  # type: ignore[no-untyped-def]
        """Refuse strangers; `peer_id` is None before the handshake, which decides."""
        if peer_id is not None and not self._admits(peer_id):
            return None
        return super().open_connection(peer_id, endpoint_ip=endpoint_ip, direction=direction)

    def acquire_stream(self, peer_id: str, direction: Direction) -> bool:
        """Refuse streams beyond the peer's limits; those we open are our own affair."""
        if direction is not Direction.INBOUND:
            return True
        peer = self._book.get(_public_key_of_text(peer_id) or b"")
        return peer is not None and peer.open_stream(self._clock_ms())

    def release_stream(self, peer_id: str, direction: Direction) -> None:
        """Give back what `acquire_stream` took."""
        if direction is Direction.INBOUND:
            peer = self._book.get(_public_key_of_text(peer_id) or b"")
            if peer is not None and peer.streams > 0:
                peer.streams -= 1
