"""The peer of `ledger.py`: etcd, three nodes, synced, through its HTTP gateway.

It tolerates crashes only, checks no signature and executes nothing, so it bounds from above what
replication with a synced disk can do on the machine. Skipped where it is not installed.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

NODES = 3
CLIENTS = 8
SECONDS = 4.0
READY_S = 20.0
HOST = "127.0.0.1"


def measure_etcd(folder: Path, row: Callable[..., None]) -> None:
    """Print puts per second of a cluster, or that there is none."""
    program = shutil.which("etcd")
    if program is None:
        row("etcd: not installed (Debian: etcd-server)")
        return
    from ledger import cpu_seconds

    with ExitStack() as stack:
        pids, ports = start(program, folder, stack)
        before = sum(map(cpu_seconds, pids))
        times = sorted(put_for(ports, SECONDS))
        spent = sum(map(cpu_seconds, pids)) - before
    row(f"etcd, {NODES} nodes, {CLIENTS} clients", "puts/s", "p50 ms", "p99 ms", "CPU us/put")
    row(
        "  150 B values, synced, no signatures", f"{len(times) / SECONDS:,.0f}",
        f"{times[len(times) // 2] * 1e3:.1f}", f"{times[len(times) * 99 // 100] * 1e3:.1f}",
        f"{spent / len(times) * 1e6:.0f}",
    )  # fmt: skip


def start(program: str, folder: Path, stack: ExitStack) -> tuple[list[int], list[int]]:
    """Start a cluster and wait until it takes a write; return pids and client ports."""
    ports = _free_ports(2 * NODES)
    clients, peers = ports[:NODES], ports[NODES:]
    cluster = ",".join(f"n{i}=http://{HOST}:{port}" for i, port in enumerate(peers))
    pids = []
    for i in range(NODES):
        client, peer = f"http://{HOST}:{clients[i]}", f"http://{HOST}:{peers[i]}"
        process = subprocess.Popen(
            [
                program, "--name", f"n{i}", "--data-dir", str(folder / f"n{i}"),
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", cluster, "--logger", "zap", "--log-level", "error",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.kill)
        pids.append(process.pid)
    deadline = time.monotonic() + READY_S
    while True:
        try:
            put(http.client.HTTPConnection(HOST, clients[0], timeout=5), 0)
            return pids, clients
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def put(connection: http.client.HTTPConnection, number: int) -> None:
    """Write one key of 150 bytes."""
    key, value = (base64.b64encode(data).decode() for data in (b"k%d" % number, bytes(150)))
    connection.request("POST", "/v3/kv/put", json.dumps({"key": key, "value": value}))
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"etcd answered {answer.status}")


def put_for(ports: list[int], seconds: float) -> list[float]:
    """Return the seconds of every put that clients made one after another."""
    times: list[float] = []

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(HOST, ports[number % len(ports)], timeout=5)
        end, count = time.monotonic() + seconds, number
        while (begun := time.monotonic()) < end:
            put(connection, count)
            times.append(time.monotonic() - begun)
            count += CLIENTS

    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports
