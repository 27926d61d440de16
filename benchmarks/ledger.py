"""What the ledger carries: four real validators on this machine, signed transfers, real disks.

    PYTHONPATH=. python benchmarks/ledger.py [--rates 100,500,1000,2000] [--seconds 8]

Beside it, measured in the same run: what the machine itself allows (a signature check, a synced
write, a TCP round trip), the replay of the chain just made by one node alone, and etcd, a
replicated store of three nodes, where Debian's etcd-server is installed. Figures on a busy machine
are those of a busy machine; CPU time per transaction is the steady one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
from etcd import measure_etcd
from load import account
from msgspec.structs import replace
from training import machine

from mlchain import codec, crypto
from mlchain.cli.localnet import LocalNet
from mlchain.consensus.inbox import identify_block
from mlchain.errors import ConfigError
from mlchain.ledger.commit import verify_commit
from mlchain.ledger.genesis import Allocation, Genesis, dump_genesis, load_genesis
from mlchain.ledger.kv import LevelKeyValue
from mlchain.ledger.store import Store
from mlchain.node.chain import Chain
from mlchain.node.signatures import verify_ahead
from mlchain.node.sync import WINDOW
from mlchain.vm.initial import write_genesis

NODES = 4
ACCOUNTS = 400
BALANCE = 10**12
IDLE_S = 5.0
DRAIN_S = 10.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Network:
    """Four validators, each a process, with funded accounts."""

    def __init__(self, folder: Path) -> None:
        self._net = LocalNet.create(folder, NODES, 0, None, {})
        genesis = load_genesis(self._net.genesis)
        rich = tuple(Allocation(account(i).public, BALANCE) for i in range(ACCOUNTS))
        self.genesis = replace(genesis, allocations=genesis.allocations + rich)
        self._net.genesis.write_text(dump_genesis(self.genesis))
        self.folder, self.file, self.plans = folder, self._net.genesis, self._net.nodes
        self.ports = [node.http_port for node in self.plans]
        self.database = folder / self._net.nodes[0].name / "data"

    def start(self) -> None:
        self._net.start(is_tied=True)
        self._net.wait_ready(120, lambda text: None)

    def cpu_s(self) -> float:
        """Return the CPU seconds all nodes have used so far, their threads included."""
        pids = [self._net.pid(node) for node in self._net.nodes]
        return sum(cpu_seconds(pid) for pid in pids if pid)

    def stop(self) -> None:
        self._net.stop()

    def open(self) -> Store:
        """Return the first node's store, once its process has let go of it."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return open_store(self.database, self.genesis)
            except ConfigError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def open_store(path: Path, genesis: Genesis) -> Store:
    return Store.create_or_open(
        LevelKeyValue(path), genesis, lambda state: write_genesis(state, genesis)
    )


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


class Load:
    """The load generator, a process that answers one line for each step."""

    def __init__(self, network: Network) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("load.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say({"chain": network.genesis.chain_id, "ports": network.ports, "accounts": ACCOUNTS})

    def step(self, rate: int, seconds: float) -> dict[str, float]:
        """Offer transfers and return what became of them."""
        return dict(self._say({"rate": rate, "seconds": seconds, "drain_s": DRAIN_S}))

    def latencies(self) -> dict[str, float]:
        """Return how long those of the last step took."""
        return dict(self._say({}))

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def _say(self, message: dict[str, Any]) -> Any:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit("the load generator ended")
        return json.loads(answer)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


# ---- what the machine allows ----------------------------------------------------------------


def best_of(call: Callable[[], float], times: int = 5) -> float:
    """Return the least of some measurements: others on the machine only ever add."""
    return min(call() for _ in range(times))


def verify_us() -> float:
    """Return CPU microseconds of one Ed25519 check."""
    key, message, count = crypto.SecretKey(bytes(32)), bytes(150), 400
    signature = key.sign(message)

    def once() -> float:
        start = time.process_time()
        for _ in range(count):
            crypto.verify(key.public, message, signature)
        return (time.process_time() - start) / count * 1e6

    return best_of(once)


def synced_batch_ms(folder: Path) -> float:
    """Return the median milliseconds of a synced LevelDB batch, as large as a block of 200."""
    kv = LevelKeyValue(folder / "synced")
    times = []
    for i in range(30):
        rows = {crypto.digest("k", bytes([i]), j.to_bytes(4, "big")): bytes(60) for j in range(600)}
        start = time.perf_counter()
        kv.write(rows)
        times.append((time.perf_counter() - start) * 1e3)
    kv.close()
    return statistics.median(times)


async def round_trip_us() -> float:
    """Return the median microseconds of 200 bytes there and back over loopback TCP in trio."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    times = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        stream = await trio.open_tcp_stream(*listeners[0].socket.getsockname()[:2])
        for _ in range(1000):
            start = time.perf_counter()
            await stream.send_all(bytes(200))
            await stream.receive_some(200)
            times.append((time.perf_counter() - start) * 1e6)
        nursery.cancel_scope.cancel()
    return statistics.median(times)


# ---- replay ---------------------------------------------------------------------------------


def replay(network: Network, folder: Path) -> tuple[float, float, float]:
    """Return (blocks/s, transactions/s, CPU us per transaction) of one node alone from genesis.

    Every certificate and every signature is checked and every block is written and synced, as by a
    node that catches up.
    """
    source = network.open()
    rows = [(codec.encode(source.block(h)), source.commit(h)) for h in range(1, source.height + 1)]
    chain = Chain(open_store(folder / "replay", network.genesis), None, lambda ref, commit: True)
    start, cpu, transactions = time.perf_counter(), time.process_time(), 0

    async def catch_up() -> None:
        nonlocal transactions
        prepared = 0
        for place, (data, commit) in enumerate(rows):
            if place == prepared:
                window = [block for block, _ in rows[place : place + WINDOW]]
                prepared += await verify_ahead(chain.mempool, window)
            height, identity, voters = commit.height, identify_block(data), chain.validators
            chain_id = network.genesis.chain_id
            verify_commit(commit, chain_id, voters, height, identity, chain.is_signed)
            transactions += len(chain.commit(identity, data, commit).receipts)

    trio.run(catch_up)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert chain.store.head_id == source.head_id, "replay ends in the same block"
    return len(rows) / wall, transactions / wall, cpu / transactions * 1e6


# ---- the table ------------------------------------------------------------------------------


def row(name: str, *columns: object) -> None:
    print(f"{name:44}", *(f"{c:>13}" for c in columns), flush=True)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rates", default="100,500,1000,2000", help="offered per second")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each step")
    options = parser.parse_args()
    rates = [int(text) for text in options.rates.split(",")]
    print(f"{machine()}, load average {os.getloadavg()[0]:.1f}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="mlchain-bench-")))
        network = Network(folder / "net")
        stack.callback(network.stop)
        network.start()
        load = Load(network)
        stack.callback(load.stop)
        before = network.cpu_s()
        time.sleep(IDLE_S)
        idle = (network.cpu_s() - before) / IDLE_S / NODES
        single = load.step(2, min(options.seconds, 6.0)) | load.latencies()
        print()
        row("offered, transfers/s", "finalised/s", "p50 ms", "p99 ms", "ms a block", "CPU us/tx")
        spent: list[float] = []
        for rate in rates:
            before = network.cpu_s()
            found = load.step(rate, options.seconds)
            spent.append((network.cpu_s() - before) / found["included"] * 1e6)
            found |= load.latencies()
            row(
                f"{rate:,}" + ("" if found["included"] == found["sent"] else " (not all)"),
                f"{found['per_s']:,.0f}", f"{found['p50_ms']:.0f}", f"{found['p99_ms']:.0f}",
                f"{found['interval_ms']:.0f}", f"{spent[-1]:.0f}",
            )  # fmt: skip
        load.stop()
        network.stop()
        blocks, transactions, replay_us = replay(network, folder)
        check, batch = verify_us(), synced_batch_ms(folder)
        trip = trio.run(round_trip_us)
        print()
        row("", "measured", "beside", "ratio")
        row("CPU us/tx over 4 nodes / 4 signature checks", f"{spent[-1]:.0f}", f"{4 * check:.0f}",
            f"{spent[-1] / 4 / check:.1f}x")  # fmt: skip
        row("replay, CPU us/tx / 1 signature check", f"{replay_us:.0f}", f"{check:.0f}",
            f"{replay_us / check:.1f}x")  # fmt: skip
        row("replay by one node, transactions/s", f"{transactions:,.0f}", f"{1e6 / check:,.0f}",
            f"{transactions * check / 1e6:.2f}x")  # fmt: skip
        row("replay by one node, blocks/s", f"{blocks:,.0f}", f"{1e3 / batch:,.0f}",
            f"{blocks * batch / 1e3:.2f}x")  # fmt: skip
        row("lone transaction, p50 ms / synced batch", f"{single['p50_ms']:.1f}", f"{batch:.2f}",
            f"{single['p50_ms'] / batch:.0f}x")  # fmt: skip
        row("  the same / TCP round trip", f"{single['p50_ms']:.1f}", f"{trip / 1e3:.2f}",
            f"{single['p50_ms'] * 1e3 / trip:.0f}x")  # fmt: skip
        row("idle node, share of a core", f"{idle:.1%}")
        print()
        measure_etcd(folder / "etcd", row)


if __name__ == "__main__":
    main()
