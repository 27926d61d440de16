"""What Prometheus reads at /metrics. No address, key or content id is a label: those grow.

Counters count since the process started. Gauges are taken when somebody asks. docs/http.md lists
what each means.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import trio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric

from mlchain import __version__
from mlchain.errors import NotFound
from mlchain.ledger.block import Block
from mlchain.node.auditor import Auditor
from mlchain.node.chain import Chain, Committed
from mlchain.node.query import Query
from mlchain.p2p.transport import Transport
from mlchain.vm.protocol import get_protocol

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

disable_created_metrics()  # a second series for each counter, that nobody reads

BLOCK_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
SLICE_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
SLICE_RESULTS = ("equal", "differ", "skipped")
PARTS = ("data", "content", "wal", "spool", "snapshots")
"""Folders of a node whose size is told."""


class MetricsSource(Protocol):
    """What is measured. `Node` fits."""

    query: Query
    chain: Chain
    transport: Transport
    auditor: Auditor | None
    home: Path

    def subscribe_blocks(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Any]]:
        """Give a channel of the blocks that become final from now on."""
        ...


class Metrics:
    """One node's metrics. `watch` must run for those that follow the blocks."""

    def __init__(self, node: MetricsSource) -> None:
        self._node = node
        self.registry = CollectorRegistry(auto_describe=True)
        self._make_counters()
        self._last_ms = node.chain.store.head.time_ms
        self._final = self._seen = 0
        self._jobs: tuple[int, dict[str, int]] = (-1, {})
        self._sizes: dict[str, int] = {}
        self.registry.register(self)
        if node.auditor is not None:
            node.auditor.examiner.on_slice = self.note_slice

    def _make_counters(self) -> None:
        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(f"mlchain_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"mlchain_{name}", text, buckets=buckets, registry=self.registry)

        self._interval = histogram(
            "block_interval_seconds", "Between the times of two blocks.", BLOCK_S
        )
        self._finality = histogram(
            "finality_seconds", "From a block's time until it was final here.", BLOCK_S
        )
        self._slice_s = histogram(
            "slice_seconds", "Re-running one chunk of this validator's slices.", SLICE_S
        )
        self._slices = counter(
            "slices", "Chunks of this validator's slices, by what came of them.", ("result",)
        )
        for result in SLICE_RESULTS:
            self._slices.labels(result)
        self._disputes = counter("disputes", "Claims that a chunk is wrong or not served.")
        self._missed = counter("missed_blocks", "Blocks whose certificate lacks this node's vote.")
        self._rounds = counter("consensus_rounds", "Rounds that agreement needed, 1 for a block.")
        self.streams = Gauge(
            "mlchain_sse_clients", "Open streams of events.", registry=self.registry
        )

    async def watch(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the blocks until cancelled."""
        while True:
            async with self._node.subscribe_blocks() as blocks:
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                async for committed in blocks:
                    self._note_block(committed)
            self._last_ms = self._node.chain.store.head.time_ms  # cut off: we were too slow

    def note_slice(self, result: str, seconds: float) -> None:
        """Count a chunk of a slice."""
        self._slices.labels(result).inc()
        if result != "skipped":
            self._slice_s.observe(seconds)

    async def text(self) -> bytes:
        """Return everything in Prometheus' text format. Sizes are read in a thread."""
        self._sizes = await trio.to_thread.run_sync(folder_sizes, self._node.home)
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges, as they are now."""
        node, chain = self._node, self._node.chain
        yield _gauge("height", "The last final block.", node.query.height)
        connected = sum(peer.connected for peer in node.transport.peers())
        yield _gauge("peers", "Connected peers.", connected)
        yield _gauge("mempool_transactions", "Transactions that wait.", len(chain.mempool))
        yield _gauge("mempool_bytes", "Bytes of those.", chain.mempool.bytes)
        ratio = self._seen / self._final if self._final else 0.0
        yield _gauge(
            "coverage_ratio", "Share of the chunks that became final which anybody re-ran.", ratio
        )
        yield _family("jobs", "Jobs on the chain.", "state", self._count_jobs())
        yield _family("store_bytes", "Bytes of this node's files.", "part", self._sizes)
        runtime = get_protocol(chain.state()).registry.hex()[:16]
        build = GaugeMetricFamily("mlchain_build_info", "Always 1.", labels=("version", "runtime"))
        build.add_metric((__version__, runtime), 1)
        yield build

    def _count_jobs(self) -> dict[str, int]:
        """Count once a block at most: all jobs are read for it."""
        height = self._node.query.height
        if self._jobs[0] != height:
            self._jobs = height, self._node.query.count_jobs()
        return self._jobs[1]

    def _note_block(self, committed: Committed) -> None:
        block, query = committed.block, self._node.query
        height, time_ms = block.header.height, block.header.time_ms
        self._interval.observe(max(0, time_ms - self._last_ms) / 1000)
        self._last_ms = time_ms
        if not query.status()["syncing"]:
            self._finality.observe(max(0.0, time.time() - time_ms / 1000))
        self._note_coverage(block)
        try:
            claims = [row for row in query.job_events(height) if row["what"] == "disputed"]
            self._disputes.inc(len(claims))
            self._missed.inc(query.missed(height))
            self._rounds.inc(self._node.chain.store.commit(height).round + 1)
        except NotFound:
            return  # pruned while we waited

    def _note_coverage(self, block: Block) -> None:
        for ref in block.body.finalise:
            seen, chunks = self._node.query.seen(ref)
            self._seen += len(seen)
            self._final += chunks


def folder_sizes(home: Path) -> dict[str, int]:
    """Return the bytes of the files in each part of a node's home; a missing part has none."""
    return {part: _size(home / part) for part in PARTS}


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue  # gone since it was listed
    return total


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"mlchain_{name}", text, value=value)


def _family(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"mlchain_{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
