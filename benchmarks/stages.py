"""Where a transfer's CPU time goes, stage by stage, over four validators and their API.

    PYTHONPATH=. python benchmarks/stages.py [--rates 100,800] [--seconds 6]

Four real nodes in one process, with libp2p between them, real disks and real HTTP; the client that
signs and sends is a process of its own and is counted by itself. A timer of CPU time (not of the
clock) interrupts the process and notes which stage it is in, so other work on the machine changes
little. One process is one core: what it carries says nothing, its CPU time does. From two rates
follow the cost of a block, however small, and the cost of one more transfer in it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import trio
from ledger import Load, Network, cpu_seconds, row, verify_us
from training import machine

from mlchain.cli.node import load_keys
from mlchain.node.config import load_config
from mlchain.node.main import open_node, set_up_logging
from mlchain.node.node import Node
from mlchain.web.api import HttpApi

SAMPLE_S = 0.004
WARM_UP = (50, 2.0)
STAGES = (
    ("signatures", ("nacl/bindings",)),
    ("disk: log and last signature", ("node/wal.py",)),
    ("disk: database", ("ledger/kv.py",)),
    ("state tree and lists", ("ledger/merkle.py",)),
    ("encoding", ("mlchain/codec.py",)),
    ("hashes", ("mlchain/crypto.py",)),
    ("mempool", ("node/mempool.py", "node/lane.py")),
    ("execution", ("mlchain/vm/", "mlchain/ledger/")),
    ("agreement", ("mlchain/consensus/", "node/agreement.py")),
    ("http", ("hypercorn", "/h11/", "starlette", "fastapi", "mlchain/web")),
    ("noise and sockets", ("libp2p/security", "/noise/", "libp2p/io")),
    ("yamux", ("yamux", "libp2p_host.py")),
    ("libp2p, the rest", ("libp2p", "mlchain/p2p")),
    ("threads", ("trio/_threads.py", "trio/_core/_thread_cache.py")),
    ("node, the rest", ("mlchain/node",)),
    ("scheduler", ("trio",)),
)
"""The innermost frame that matches gives the stage; a socket call counts for its caller's."""


class Sampler:
    """Counts in which stage the process is, each time it has used some CPU."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: dict[str, Counter[str]] = {}
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)

    def clear(self) -> None:
        """Begin anew."""
        self.counts.clear()
        self.lines.clear()

    def _sample(self, number: int, frame: FrameType | None) -> None:
        stage, line = _find_stage(frame)
        if stage == "scheduler" and (thread := _busy_thread()) is not None:
            stage, line = _find_stage(thread)
        self.counts[stage] += 1
        self.lines.setdefault(stage, Counter())[line] += 1


def _busy_thread() -> FrameType | None:
    """Return the frame of a thread that checks signatures, if there is one."""
    own = signal.getsignal(signal.SIGPROF)
    for frame in sys._current_frames().values():
        if own and "nacl" in frame.f_code.co_filename:
            return frame
    return None


def _find_stage(frame: FrameType | None) -> tuple[str, str]:
    found, line = "scheduler", ""
    while frame is not None:
        name = frame.f_code.co_filename
        for stage, parts in STAGES:
            if any(part in name for part in parts):
                short = name.rpartition("site-packages/")[2].rpartition("mlchain/mlchain/")[2]
                line = line or f"{short}:{frame.f_lineno} {frame.f_code.co_name}"
                if stage == "scheduler":
                    break
                return stage, f"{short}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return found, line


def open_nodes(network: Network) -> list[Node]:
    """Return the nodes of a network, opened in this process."""
    nodes = []
    for plan in network.plans:
        flags = {
            "genesis": str(network.file), "home": str(network.folder / plan.name),
            "p2p_listen": f"127.0.0.1:{plan.peer_port}",
        }  # fmt: skip
        for key in ("validator", "worker", "peer"):
            flags[f"{key}_key"] = str(network.folder / plan.name / "keys" / f"{key}.json")
        config = load_config(flags, {}, network.folder, network.folder)
        nodes.append(open_node(config, load_keys(config, network.genesis)))
    return nodes


async def measure(network: Network, rates: list[int], seconds: float) -> None:
    sampler = Sampler()
    nodes = open_nodes(network)
    load: Load | None = None
    try:
        async with trio.open_nursery() as nursery:
            for node, port in zip(nodes, network.ports, strict=True):
                await nursery.start(node.run)
                await nursery.start(HttpApi(port=port).serve_node, node)
            while not all(p.connected for node in nodes for p in node.transport.peers()):
                await trio.sleep(0.1)
            load = await trio.to_thread.run_sync(Load, network)
            await trio.to_thread.run_sync(load.step, *WARM_UP)
            points = [await step(load, nodes, sampler, rate, seconds) for rate in rates]
            if len(points) > 1:
                (t0, b0, c0), (t1, b1, c1) = points[0], points[-1]
                determinant = t0 * b1 - t1 * b0
                block, each = (t0 * c1 - t1 * c0) / determinant, (c0 * b1 - c1 * b0) / determinant
                print()
                row("a block, CPU ms over four nodes", f"{block * 1e3:.1f}")
                row("each transfer in it, CPU us over four nodes", f"{each * 1e6:.0f}")
            nursery.cancel_scope.cancel()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if load is not None:
            load.stop()
        for node in nodes:
            node.close()


async def step(
    load: Load, nodes: list[Node], sampler: Sampler, rate: int, seconds: float
) -> tuple[float, int, float]:
    """Offer one rate and print its table; return transfers, blocks and CPU seconds."""
    sampler.clear()
    client, start = cpu_seconds(load.pid), time.process_time()
    height = nodes[0].chain.height
    found = await trio.to_thread.run_sync(load.step, rate, seconds)
    spent, blocks = time.process_time() - start, nodes[0].chain.height - height
    included, check = found["included"], verify_us()
    print()
    row(f"{rate:,} transfers/s offered", "CPU us/tx", "share", "checks")
    total = sum(sampler.counts.values())
    for stage, count in sampler.counts.most_common():
        share = count / total
        us = share * spent / included * 1e6
        row(f"  {stage}", f"{us:.0f}", f"{share:.1%}", f"{us / check:.1f}")
        for line, times in sampler.lines[stage].most_common(VERBOSE):
            print(f"        {times / total:6.1%}  {line}")
    us = spent / included * 1e6
    row("  all four nodes", f"{us:.0f}", "", f"{us / check:.1f}")
    client_us = (cpu_seconds(load.pid) - client) / included * 1e6
    row("  the client", f"{client_us:.0f}", "", f"{client_us / check:.1f}")
    row("  blocks, transfers in each", f"{blocks}", f"{included / max(blocks, 1):.0f}")
    row("  one signature check, CPU us", f"{check:.0f}")
    sys.stdout.flush()
    return included, blocks, spent


VERBOSE = 0


def main() -> None:
    """Measure and print one table for each rate."""
    global VERBOSE
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rates", default="100,800", help="offered per second")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each step")
    parser.add_argument("--lines", type=int, default=0, help="lines of code shown for each stage")
    options = parser.parse_args()
    VERBOSE = options.lines
    set_up_logging("text")
    rates = [int(text) for text in options.rates.split(",")]
    print(f"{machine()}, load average {os.getloadavg()[0]:.1f}")
    with TemporaryDirectory(prefix="mlchain-bench-") as folder:
        network = Network(Path(folder) / "net")
        trio.run(measure, network, rates, options.seconds)


if __name__ == "__main__":
    main()
