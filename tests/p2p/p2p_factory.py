"""Networks, keys and hostile hosts for the tests of p2p."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from mlchain.crypto import SecretKey
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import PeerAddress, Role, Transport

HERE = Path(__file__).parent
PATIENCE_S = 20
"""How long a test waits for what must happen; says nothing about how fast it is."""


def seed(number: int) -> bytes:
    return bytes([number]) * 32


def key(number: int) -> bytes:
    return SecretKey(seed(number)).public


def play(scenario: Callable, *args: object) -> None:
    """Run an async scenario to its end, or fail."""

    async def bounded() -> None:
        with trio.fail_after(2 * PATIENCE_S):
            await scenario(*args)

    trio.run(bounded)


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for `condition`."""
    with trio.move_on_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.01)
        return
    raise AssertionError(f"never came true: {what or condition}")


async def is_reset(stream) -> bool:
    """Whether the other side ends `stream`."""
    with trio.move_on_after(5):
        try:
            while await stream.read(1000):
                pass
        except Exception:
            return True
    return False


def free_port() -> int:
    from mlchain.p2p.libp2p_host import claim_port

    return claim_port("127.0.0.1", 0)


def addresses(count: int, ports: bool = True) -> dict[bytes, PeerAddress]:
    """Addresses of peers 1..count, the first three validators, then worker and observer."""
    roles = [Role.VALIDATOR] * 3 + [Role.WORKER] + [Role.OBSERVER] * count
    return {
        key(n): PeerAddress("127.0.0.1", free_port() if ports else 1, roles[n - 1], f"n{n}")
        for n in range(1, count + 1)
    }


def make(kind: str, count: int) -> list[Transport]:
    """Transports of peers 1..count who know each other."""
    book = addresses(count, ports=kind == "libp2p")
    if kind == "memory":
        hub = Hub()
        return [MemoryTransport(hub, k, book, book[k].role) for k in book]
    return [libp2p(n, book) for n in range(1, count + 1)]


def libp2p(number: int, book: dict[bytes, PeerAddress], **options: object) -> Transport:
    from mlchain.p2p.libp2p import LibP2PTransport

    mine = book[key(number)]
    return LibP2PTransport(seed(number), mine.host, mine.port, book, mine.role, **options)


def is_linked(one: Transport, other: bytes) -> bool:
    return any(p.connected for p in one.peers() if p.peer == other)


def collect(transport: Transport) -> list:
    """The (peer, channel, frame) that `transport` hands out from now on."""
    got = []
    transport.on_frame = lambda peer, channel, frame: got.append((peer, channel, frame))
    return got


def collect_gossip(transport: Transport, topic: str, is_valid: Callable | None = None) -> list:
    """The (author, data) under `topic` that `transport` hands out from now on."""
    got = []
    transport.subscribe(topic, lambda author, data: got.append((author, data)), is_valid)
    return got


@asynccontextmanager
async def running(*transports: Transport) -> AsyncIterator[None]:
    """Run `transports` until all that know each other are linked; stop them together."""
    stop = trio.Event()

    async def run(transport: Transport, task_status: trio.TaskStatus) -> None:
        async with transport.run():
            task_status.started()
            await stop.wait()

    async with trio.open_nursery() as nursery:
        try:
            for transport in transports:
                await nursery.start(run, transport)
            keys = {t.public_key for t in transports}
            for transport in transports:
                for peer in transport.peers():
                    if peer.peer in keys:
                        await until(lambda t=transport, p=peer.peer: is_linked(t, p), "linked")
            yield
        finally:
            stop.set()


@asynccontextmanager
async def stock_host(number: int, **options: object) -> AsyncIterator:
    """A host as the library makes it, with the key of peer `number`; an attacker, or a control."""
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair

    from mlchain.p2p.libp2p_host import close_host, quiet_library, to_multiaddr

    quiet_library()
    host = new_host(key_pair=create_new_key_pair(seed(number)), **options)
    async with host.run(listen_addrs=[to_multiaddr("127.0.0.1", free_port())]):
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await close_host(host)


async def dial(host, number: int, port: int) -> None:
    """Let a stock host connect to peer `number`."""
    from libp2p.peer.peerinfo import PeerInfo

    from mlchain.p2p.libp2p_gate import peer_id
    from mlchain.p2p.libp2p_host import to_multiaddr

    host.get_network().unblock_peer(peer_id(key(number)))
    await host.connect(PeerInfo(peer_id(key(number)), [to_multiaddr("127.0.0.1", port)]))


@contextmanager
def child(script: str, *args: object) -> Iterator[subprocess.Popen]:
    """A script of this folder in its own process, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
