"""A file between real nodes while one is killed and one lies, beside a libp2p stream and TCP.

    PYTHONPATH=. python benchmarks/data.py [--size 1000] [--folder /tmp/data] [--believe]

Four validator processes on loopback, their chain running. Three hold a file of random bytes, the
fourth is told by its operator to pin it, once with all well, then a second file: when a third of it
has come, one holder is killed (-9), and another flips one bit in every eighth block that it serves.
The file must arrive whole, and the liar be named; status 1 if not. `--believe` switches the check
of the fetching node off: the control, in which the file arrives spoilt.

The stream is one of the same library between two processes, the socket plain TCP; both carry the
same bytes and keep nothing, while a node hashes, stores and syncs each block.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import trio
from libp2p.custom_types import TProtocol
from msgspec.structs import replace
from training import machine

from mlchain.cli import localgenesis, main
from mlchain.cli.localgenesis import LOCAL_PARAMS
from mlchain.cli.localnet import LocalNet
from mlchain.client.client import Client
from mlchain.client.files import fetch_file
from mlchain.client.keystore import load_key
from mlchain.crypto import SecretKey
from mlchain.errors import MlchainError
from mlchain.ledger.content import ContentStore
from mlchain.ledger.kv import LevelKeyValue
from mlchain.ledger.unixfs import cid_text
from mlchain.node.exchange import Exchange
from mlchain.p2p.libp2p import LibP2PTransport
from mlchain.p2p.libp2p_gate import peer_id
from mlchain.p2p.libp2p_host import claim_port
from mlchain.p2p.transport import PeerAddress

HOST = "127.0.0.1"
LIES_EVERY = 8
PIECE = 1 << 18
RAW = TProtocol("/mlchain-benchmark/raw/1")
SEEDS = (bytes([1]) * 32, bytes([2]) * 32)
PATIENCE_S = 1_800.0
FETCHER, HONEST, KILLED, LIAR = range(4)


# ---- nodes that are not as they should be: this file is their program -------------------------


def lie() -> None:
    """Serve every eighth block with one bit flipped."""
    honest = Exchange._answer_block
    served = 0

    async def answer(self: Exchange, peer: bytes, question: bytes) -> bytes:
        nonlocal served
        served += 1
        block = await honest(self, peer, question)
        return block if served % LIES_EVERY else block[:-1] + bytes([block[-1] ^ 1])

    Exchange._answer_block = answer  # type: ignore[method-assign]


def believe() -> None:
    """Store whatever a peer sends."""

    def put_block(self: ContentStore, cid: bytes, block: bytes) -> None:
        self._write({b"i" + cid: len(block).to_bytes(4, "big"), b"b" + cid: block})

    ContentStore.put_block = put_block  # type: ignore[method-assign]


PROGRAMS = {"--lie": lie, "--believing": believe}


# ---- the network ------------------------------------------------------------------------------


class Processes:
    """Four nodes; what each of them has used."""

    def __init__(self, folder: Path, odd: dict[int, str]) -> None:
        with patch.object(localgenesis, "LOCAL_PARAMS", replace(LOCAL_PARAMS, ticket_heights=4096)):
            self.net = LocalNet.create(folder, 4, 0, None, {})
        self.odd = odd
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def home(self, number: int) -> Path:
        return self.net.folder / self.net.nodes[number].name

    def store(self, number: int, file: Path) -> bytes:
        """Put a file into a node that does not run."""
        kv = LevelKeyValue(self.home(number) / "content")
        try:
            with file.open("rb") as stream:
                return ContentStore(kv).put(stream)
        finally:
            kv.close()

    def start(self) -> None:
        for number, plan in enumerate(self.net.nodes):
            command = self.net.command(plan, True)
            if number in self.odd:
                command[1:3] = [__file__, self.odd[number]]
            with (self.home(number) / "node.log").open("ab") as log:
                self.running[number] = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log,
                    env={**os.environ, "PYTHONPATH": os.getcwd(), "OPENBLAS_NUM_THREADS": "1"},
                )  # fmt: skip
        end = time.monotonic() + 300
        while not all(self._is_ready(number) for number in self.running):
            if time.monotonic() > end:
                raise SystemExit(f"the nodes do not start: {self.net.folder}")
            time.sleep(0.3)

    def _is_ready(self, number: int) -> bool:
        try:
            with Client(self.net.nodes[number].url) as client:
                return all(peer["connected"] for peer in client.status()["peers"])
        except MlchainError:
            return False

    def kill(self, number: int) -> None:
        process = self.running.pop(number)
        process.kill()
        process.communicate()

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def client(self, number: int) -> Client:
        """The operator's."""
        return Client(f"unix:{self.home(number) / 'admin.sock'}", timeout_s=PATIENCE_S)

    def cpu_s(self) -> float:
        ticks = 0
        for process in self.running.values():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, number: int, what: str) -> float:
        text = Path(f"/proc/{self.running[number].pid}/status").read_text()
        return int(text.split(f"{what}:")[1].split()[0]) / 1e3


def pin(network: Processes, cid: bytes, size: int, is_bad: bool) -> tuple[float, float, int]:
    """Fetch a file; return seconds, CPU seconds a GB of those that live on, and new blocks."""
    failure: list[MlchainError] = []

    def fetch() -> None:
        try:
            with network.client(FETCHER) as client:
                client.pin_data(cid_text(cid))
        except MlchainError as error:
            failure.append(error)

    with network.client(FETCHER) as client:
        used, height = client.data_files()["used"], client.status()["height"]
        cpu, start = network.cpu_s(), time.monotonic()
        thread = threading.Thread(target=fetch)
        thread.start()
        while is_bad and thread.is_alive() and client.data_files()["used"] - used < size / 3:
            time.sleep(0.05)
        if is_bad:
            cpu -= _own_cpu(network.running[KILLED].pid)
            network.kill(KILLED)
        thread.join()
        seconds, blocks = time.monotonic() - start, client.status()["height"] - height
    if failure:
        raise failure[0]
    return seconds, (network.cpu_s() - cpu) / size * 1e9, blocks


def _own_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- what stands beside it --------------------------------------------------------------------


def transport(number: int, ports: list[int]) -> LibP2PTransport:
    keys = [SecretKey(seed).public for seed in SEEDS]
    book = {key: PeerAddress(HOST, port) for key, port in zip(keys, ports, strict=True)}
    return LibP2PTransport(SEEDS[number], HOST, ports[number], book)


async def serve_stream(ports: list[int], size: int) -> None:
    """The other process: sends `size` bytes on a stream to who opens one."""
    own = transport(1, ports)
    piece = bytes(PIECE)

    async def send(stream) -> None:  # type: ignore[no-untyped-def]
        for _ in range(0, size, PIECE):
            await stream.write(piece)
        await stream.close()

    async with own.run():
        assert own._libp2p is not None
        own._libp2p.set_stream_handler(RAW, send)
        await trio.sleep_forever()


async def read_stream(ports: list[int], size: int) -> float:
    """Return the seconds that `size` bytes take on one stream."""
    own = transport(0, ports)
    other = SecretKey(SEEDS[1]).public
    async with own.run():
        assert own._libp2p is not None
        while not own._libp2p.get_network().get_connections(peer_id(other)):
            await trio.sleep(0.05)
        await trio.sleep(0.5)
        stream = await own._libp2p.new_stream(peer_id(other), [RAW])
        start, done = time.monotonic(), 0
        while done < size:
            done += len(await stream.read(PIECE))
        return time.monotonic() - start


def measure_stream(size: int) -> float:
    ports = [claim_port(HOST, 0), claim_port(HOST, 0)]
    words = [*map(str, ports), str(size)]
    with child("--stream", *words):
        return trio.run(read_stream, ports, size)


def measure_tcp(size: int) -> float:
    with (
        socket.create_server((HOST, 0)) as listener,
        child("--tcp", str(listener.getsockname()[1]), str(size)),
    ):
        connection, _ = listener.accept()
        with connection:
            start, done = time.monotonic(), 0
            while done < size:
                done += len(connection.recv(PIECE))
            return time.monotonic() - start


def send_tcp(port: int, size: int) -> None:
    piece = bytes(PIECE)
    with socket.create_connection((HOST, port)) as connection:
        for _ in range(0, size, PIECE):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


@contextmanager
def child(*words: str) -> Iterator[None]:
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, __file__, *words], env=env)
    try:
        yield
    finally:
        process.kill()
        process.wait()


# ---- all of it --------------------------------------------------------------------------------


def make_file(path: Path, megabytes: int, seed: int) -> None:
    rng = random.Random(seed)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(rng.randbytes(10**6))


def is_same(left: Path, right: Path) -> bool:
    with left.open("rb") as one, right.open("rb") as two:
        while (piece := one.read(PIECE)) == two.read(PIECE):
            if not piece:
                return True
    return False


def run(folder: Path, megabytes: int, is_believing: bool) -> bool:
    size = megabytes * 10**6 // PIECE * PIECE
    whole = megabytes * 10**6
    files = [folder / "well", folder / "bad"]
    odd = {LIAR: "--lie"} | ({FETCHER: "--believing"} if is_believing else {})
    network = Processes(folder / "net", odd)
    cids = []
    for seed, file in enumerate(files):
        make_file(file, megabytes, seed)
        # the first file comes from those who do not lie
        holders = (HONEST, KILLED) if file is files[0] else (HONEST, KILLED, LIAR)
        cids.append({network.store(number, file) for number in holders}.pop())
    print(f"{'':42}{'s':>8}{'MB/s':>8}{'CPU s/GB':>10}{'blocks':>8}")

    def row(name: str, seconds: float, size: int, cpu: str = "", blocks: str = "") -> None:
        print(f"{name:42}{seconds:>8.1f}{size / seconds / 1e6:>8.1f}{cpu:>10}{blocks:>8}")

    row("plain TCP, one socket", measure_tcp(size), size)
    row("libp2p, one stream", measure_stream(size), size)
    try:
        network.start()
        before = network.memory_mb(FETCHER, "VmRSS")
        for file, cid in zip(files, cids, strict=True):
            is_bad = file is files[1]
            name = (
                "nodes, 3 hold it: one killed, one lies" if is_bad else "nodes, 2 hold it, all well"
            )
            seconds, cpu, blocks = pin(network, cid, whole, is_bad)
            row(name, seconds, whole, f"{cpu:.1f}", str(blocks))
        peak = network.memory_mb(FETCHER, "VmHWM")
        print(f"memory of the node that fetched: {before:.0f} MB before, {peak:.0f} MB at most")
        return judge(network, files[1], cids[1], folder / "back", whole, row)
    finally:
        network.stop()


def judge(network, file, cid, back, size, row) -> bool:  # type: ignore[no-untyped-def]
    """Say whether the file is whole and the liar named; time its way out over HTTP."""
    start = time.monotonic()
    try:
        with Client(network.net.nodes[FETCHER].url) as client:
            fetch_file(client, cid_text(cid), back)
    except MlchainError as error:
        print(f"the file is NOT whole: {error.message}")
        return False
    row("mlchain data get, over HTTP, compared", time.monotonic() - start, size)
    is_whole = is_same(file, back)
    liar = load_key(network.home(LIAR) / "keys" / "peer.json", None).public.hex()[:12]
    log = (network.home(FETCHER) / "node.log").read_text(errors="replace")
    named = [line for line in log.splitlines() if "wrong-block" in line]
    is_named = bool(named) and all(liar in line for line in named)
    print(f"the file is {'whole' if is_whole else 'NOT whole'}; the liar {liar} was ", end="")
    print(f"found {len(named)} times" if is_named else "NOT found")
    return is_whole and is_named


def start() -> int:
    """Measure, or be one of the processes of that."""
    if sys.argv[1:2] and sys.argv[1] in PROGRAMS:
        PROGRAMS[sys.argv.pop(1)]()
        main()
    if sys.argv[1:2] == ["--tcp"]:
        send_tcp(int(sys.argv[2]), int(sys.argv[3]))
        return 0
    if sys.argv[1:2] == ["--stream"]:
        trio.run(serve_stream, [int(word) for word in sys.argv[2:4]], int(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000, help="MB of each of the two files")
    parser.add_argument("--folder", type=Path, help="for everything; six times the size")
    parser.add_argument("--believe", action="store_true", help="the control")
    arguments = parser.parse_args()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="mlchain-data-", dir=arguments.folder))
    try:
        return 0 if run(folder, arguments.size, arguments.believe) else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(start())
