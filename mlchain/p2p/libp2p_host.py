"""A py-libp2p 0.8.1 host fit for a validator: strangers stay out, errors stay in.

Subclasses of the library's own parts, no patching, so stock hosts can live in the same process (the
tests' controls do). What each part repairs is told in docs/p2p.md and tested in tests/p2p.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable

os.environ.setdefault("PY_YAMUX_RELEASE_ON_READ", "0")  # else one window update for every read

import multiaddr  # type: ignore[import-untyped]
import trio
from libp2p.abc import INetStream
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import identify_handler_for
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.transport.manager import TransportManager
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader

from mlchain.errors import ConfigError
from mlchain.p2p.libp2p_gate import (
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_PEER,
    GatedNoise,
    GatedResources,
    public_key,
)
from mlchain.p2p.libp2p_mux import BoundedMuxing, BoundedYamux
from mlchain.p2p.peers import PeerBook

log = logging.getLogger("mlchain.p2p")

MAX_HANDSHAKES = 256
MAX_HANDSHAKES_PER_IP = 32
DIAL_TIMEOUT_S = 5.0
"""After a partition the system's own attempts come ever further apart; a new dial comes at once."""
HANDSHAKE_TIMEOUT_S = 20.0
"""A connection that has not proved a known key by then is closed. Long, for where all are slow,
giving up and beginning anew makes them slower still."""

PING_INTERVAL_S = 3.0
PING_TIMEOUT_S = 5.0
"""A connection that does not answer is closed, so that a dead peer is noticed and dialled again."""


def to_multiaddr(host: str, port: int) -> multiaddr.Multiaddr:
    """Return the libp2p address of a TCP port on an IP address or DNS name."""
    try:
        kind = f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        kind = "dns"
    return multiaddr.Multiaddr(f"/{kind}/{host}/tcp/{port}")


def claim_port(host: str, port: int) -> int:
    """Return the port to listen on, a free one for 0.

    The library sets SO_REUSEPORT and so would share a taken port without a word.

    Raises:
        ConfigError: taken, or not an address of this machine.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError as error:
        raise ConfigError(f"cannot listen on {host!r}: not an IP address") from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror}",
                "another node may be running; choose another port",
            ) from error
        chosen: int = probe.getsockname()[1]
        return chosen


class BoundedTCP(TCP):
    """TCP whose dials end, which the library leaves to the system: two minutes."""

    async def dial(self, maddr):  # type: ignore[no-untyped-def]
        """Connect; raises trio.TooSlowError after `DIAL_TIMEOUT_S`. See the library."""
        with trio.fail_after(DIAL_TIMEOUT_S):
            return await super().dial(maddr)


class IdleConnector(AutoConnector):
    """Dials nobody: links do, at once and for ever. The library's waits up to a minute."""

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        """Start nothing."""

    async def maybe_connect(self) -> None:
        """Dial nobody."""


class GatedSwarm(Swarm):
    """A swarm whose slots for inbound connections are taken by handshakes, not by history.

    The library's limiter holds a slot for every connection that ever came in: after 250 the node is
    deaf. Here a slot is held until the handshake has told who it is; from then on the limits per
    known peer hold. Handshakes are limited per address, so that one stranger cannot take all slots.
    """

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.auto_connector = IdleConnector(self)
        self.handshakes: Counter[str] = Counter()

    async def _handle_inbound_connection(self, read_write_closer, maddr):  # type: ignore[no-untyped-def]
        address = read_write_closer.get_remote_address()
        ip = address[0] if address is not None else ""
        raw = RawConnection(read_write_closer, False)
        try:
            if (
                self.handshakes[ip] >= MAX_HANDSHAKES_PER_IP
                or self.handshakes.total() >= MAX_HANDSHAKES
            ):
                return
            self.handshakes[ip] += 1
            try:
                muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
            finally:
                self.handshakes[ip] -= 1
                self.handshakes += Counter()  # forget addresses with no handshake under way
            await muxed.event_closed.wait()  # type: ignore[attr-defined]
        except Exception as error:
            log.debug("inbound connection from %s refused: %r", ip, error)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await raw.close()


class GuardedHost(BasicHost):
    """A host that outlives its stream handlers and tells strangers nothing.

    In the library an exception in any stream handler cancels the whole swarm: one malformed gossip
    frame ends the process. Identify is answered, but never asked: what a peer claims about its
    addresses is not to be dialled.
    """

    handler_errors = 0
    streams_handled = 0

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        try:
            self.streams_handled += 1
            await super()._swarm_stream_handler(net_stream)
        except Exception as error:
            self.handler_errors += 1
            level = logging.DEBUG if isinstance(error, StreamError) else logging.WARNING
            log.log(level, "stream of %s failed: %r", net_stream.muxed_conn.peer_id, error)
            await reset(net_stream)

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        """Ask nobody who they are: Noise has told."""

    async def _push_identify_to_all_peers(self) -> None:
        """Tell nobody about our addresses: the genesis file has."""


async def reset(stream: INetStream) -> None:
    """Reset `stream` whatever its state, in at most a second, cancelled or not."""
    with trio.CancelScope(shield=True), trio.move_on_after(1):
        try:
            await stream.reset()
        except Exception as error:
            log.debug("reset failed: %r", error)


def build_host(pair: KeyPair, book: PeerBook, clock_ms: Callable[[], int]) -> GuardedHost:
    """Return a host with Noise, Yamux and TCP only, that talks to the peers of `book` only."""
    quiet_library()

    def admits(identity: ID) -> bool:
        return book.admits(public_key(identity), clock_ms())

    own = ID.from_pubkey(pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(own, pair)
    upgrader = TransportUpgrader({NOISE: GatedNoise(pair, admits)}, {})
    upgrader.muxer_multistream = BoundedMuxing({TProtocol(YAMUX): BoundedYamux})
    swarm = GatedSwarm(
        own,
        peerstore,
        upgrader,
        transports=[BoundedTCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=ConnectionConfig(
            max_connections=MAX_CONNECTIONS,
            high_watermark=MAX_CONNECTIONS,
            min_connections=0,
            low_watermark=0,
            max_connections_per_peer=MAX_CONNECTIONS_PER_PEER,
            inbound_upgrade_timeout=HANDSHAKE_TIMEOUT_S,
            outbound_upgrade_timeout=HANDSHAKE_TIMEOUT_S,
            enable_health_monitoring=True,
            abort_connection_on_ping_failure=True,
            health_initial_delay=1.0,
            health_warmup_window=1.0,
            health_check_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
        ),
        transport_manager=TransportManager(),
    )
    resources = GatedResources(book, admits, clock_ms)
    swarm.set_resource_manager(resources, enable_stream_semaphore=False)
    host = GuardedHost(network=swarm, disable_identify_address_discovery=True)
    host.multiselect = Multiselect(
        {
            PING: PingService(host).handle_ping,
            IDENTIFY: identify_handler_for(host, use_varint_format=True),
        }
    )
    return host


async def close_host(host: BasicHost) -> None:
    """Close all sockets, which leaving `host.run()` does not, and all at once."""
    async with trio.open_nursery() as nursery:
        for connection in host.get_network().get_connections():
            nursery.start_soon(connection.close)
    await host.close()


def quiet_library() -> None:
    """Keep what remote peers make the library say out of our logs; LIBP2P_DEBUG brings it back."""
    if "LIBP2P_DEBUG" not in os.environ:
        library = logging.getLogger("libp2p")
        library.setLevel(logging.CRITICAL)
        library.addHandler(logging.NullHandler())
