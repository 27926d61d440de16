"""What the network costs: links, requests and bulk transfer, beside a bare TCP stream.

    python benchmarks/network.py [--seconds 2]

Two processes on loopback. The bare stream carries the same bytes through trio alone, so the
difference is the price of Noise, Yamux and framing. CPU is of both processes together. The limits
on what a peer may send are lifted: without that, they are what a fast machine would measure.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import trio

from mlchain.crypto import SecretKey
from mlchain.p2p import peers
from mlchain.p2p.libp2p import LibP2PTransport
from mlchain.p2p.libp2p_host import claim_port
from mlchain.p2p.transport import MAX_RESPONSE_BYTES, Channel, PeerAddress

SEEDS = (bytes([1]) * 32, bytes([2]) * 32)
KEYS = tuple(SecretKey(seed).public for seed in SEEDS)
FRAME_SIZES = (200, 20_000)
BULK_BYTES = 32 << 20
HOST = "127.0.0.1"


peers.FRAMES_PER_S = peers.BYTES_PER_S = 10**9


def transport(number: int, ports: list[int]) -> LibP2PTransport:
    book = {k: PeerAddress(HOST, p) for k, p in zip(KEYS, ports, strict=True)}
    return LibP2PTransport(SEEDS[number], HOST, ports[number], book)


async def serve(ports: list[int], raw_port: int) -> None:
    """The other process: counts what comes, answers what is asked."""
    peer = transport(1, ports)
    counts = {"frames": 0, "raw": 0}

    def count(sender: bytes, channel: int, frame: bytes) -> None:
        counts["frames"] += 1

    async def answer(sender: bytes, question: bytes) -> bytes:
        if question == b"bulk":
            return bytes(BULK_BYTES)
        if question == b"counts":
            return f"{counts['frames']} {counts['raw']} {time.process_time()}".encode()
        return question

    async def raw(stream: trio.SocketStream) -> None:
        kind = await stream.receive_some(1)
        if kind == b"?":
            while data := await stream.receive_some(65536):
                await stream.send_all(data)
        elif kind == b">":
            async for data in stream:
                counts["raw"] += len(data)
        elif kind == b"<":
            await stream.send_all(bytes(BULK_BYTES))
        await stream.aclose()

    peer.on_frame = count
    peer.serve("bench", answer)
    async with peer.run(), trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_tcp, raw, raw_port)
        print("up", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def remote(node: LibP2PTransport) -> tuple[int, int, float]:
    frames, raw, cpu = (await node.request(KEYS[1], "bench", b"counts", 100, 10)).split()
    return int(frames), int(raw), float(cpu)


async def link(node: LibP2PTransport, size: int, seconds: float) -> tuple[float, float]:
    """Return (frames per second, CPU in µs per frame) with the queue always full."""
    frame = bytes(size)
    before, _, cpu = await remote(node)
    cpu += time.process_time()
    sent, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        while node.send(KEYS[1], Channel.TRANSACTIONS, frame):
            sent += 1
        await trio.sleep(0.001)
    while (now := await remote(node))[0] - before < sent:
        await trio.sleep(0.01)
    elapsed = time.perf_counter() - started
    return sent / elapsed, (now[2] + time.process_time() - cpu) * 1e6 / sent


async def lone(node: LibP2PTransport, size: int, seconds: float) -> float:
    """Return CPU in µs of a frame that nothing comes before or after, beyond what waiting costs."""
    frame, pause, spent = bytes(size), 0.004, []
    for is_sent in (False, True):
        _, _, cpu = await remote(node)
        cpu += time.process_time()
        for _ in range(count := int(seconds / pause)):
            if is_sent:
                node.send(KEYS[1], Channel.TRANSACTIONS, frame)
            await trio.sleep(pause)
        spent.append(((await remote(node))[2] + time.process_time() - cpu) * 1e6 / count)
    return spent[1] - spent[0]


async def raw_link(
    node: LibP2PTransport, port: int, size: int, seconds: float
) -> tuple[float, float]:
    """The same over a bare stream, written in batches as large as the link's."""
    batch = 56 * 1024 // size
    data = bytes(size * batch)
    _, before, cpu = await remote(node)
    cpu += time.process_time()
    sent, started = 0, time.perf_counter()
    stream = await trio.open_tcp_stream(HOST, port)
    await stream.send_all(b">")
    while time.perf_counter() - started < seconds:
        await stream.send_all(data)
        sent += batch
    while (now := await remote(node))[1] - before < sent * size:
        await trio.sleep(0.01)
    elapsed = time.perf_counter() - started
    await stream.aclose()
    return sent / elapsed, (now[2] + time.process_time() - cpu) * 1e6 / sent


async def latency(ask: Callable[[bytes], Awaitable[object]], count: int) -> tuple[float, float]:
    """Return p50 and p99 in ms of asking 200 bytes, one after the other."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await ask(bytes(200))
        times.append((time.perf_counter() - started) * 1000)
    times.sort()
    return times[count // 2], times[count * 99 // 100]


async def bulk(fetch: Callable[[], Awaitable[int]], times: int = 5) -> float:
    """Return MB/s, the median of some transfers."""
    rates = []
    for _ in range(times):
        started = time.perf_counter()
        size = await fetch()
        rates.append(size / 1e6 / (time.perf_counter() - started))
    return sorted(rates)[times // 2]


async def measure(ports: list[int], raw_port: int, seconds: float) -> None:
    node = transport(0, ports)
    async with node.run():
        while not node.peers()[0].connected:
            await trio.sleep(0.01)
        row("", "libp2p", "bare TCP")
        for size in FRAME_SIZES:
            ours, bare = (
                await link(node, size, seconds),
                await raw_link(node, raw_port, size, seconds),
            )
            row(f"link, {size} B frames: frames/s", f"{ours[0]:,.0f}", f"{bare[0]:,.0f}")
            row(f"link, {size} B frames: CPU µs/frame", f"{ours[1]:.1f}", f"{bare[1]:.1f}")
        row("lone frame, 200 B: CPU µs", f"{await lone(node, 200, seconds):.0f}", "")
        stream = await trio.open_tcp_stream(HOST, raw_port)
        await stream.send_all(b"?")

        async def ask_bare(question: bytes) -> None:
            await stream.send_all(question)
            got = 0
            while got < len(question):
                got += len(await stream.receive_some(65536))

        async def ask(question: bytes) -> None:
            await node.request(KEYS[1], "bench", question, 1000, 10)

        async def fetch() -> int:
            return len(await node.request(KEYS[1], "bench", b"bulk", MAX_RESPONSE_BYTES, 60))

        async def fetch_bare() -> int:
            bare = await trio.open_tcp_stream(HOST, raw_port)
            await bare.send_all(b"<")
            size = 0
            async for data in bare:
                size += len(data)
            return size

        ours_ms, bare_ms = await latency(ask, 500), await latency(ask_bare, 500)
        row("request, 200 B: p50 ms", f"{ours_ms[0]:.2f}", f"{bare_ms[0]:.2f}")
        row("request, 200 B: p99 ms", f"{ours_ms[1]:.2f}", f"{bare_ms[1]:.2f}")
        row(
            f"answer of {BULK_BYTES >> 20} MiB: MB/s",
            f"{await bulk(fetch):,.0f}",
            f"{await bulk(fetch_bare):,.0f}",
        )


def row(name: str, *columns: str) -> None:
    print(f"{name:36}", *(f"{c:>12}" for c in columns), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each link run")
    parser.add_argument("--serve", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve, options.serve[:2], options.serve[2])
        return
    ports = [claim_port(HOST, 0) for _ in range(3)]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    command = [sys.executable, __file__, "--serve", *map(str, ports)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            trio.run(measure, ports[:2], ports[2], options.seconds)
        finally:
            child.kill()


if __name__ == "__main__":
    main()
