"""A network of real node processes for tests: made, started, killed and looked at one by one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from msgspec.structs import replace

from mlchain.cli import localgenesis
from mlchain.cli.localgenesis import LOCAL_PARAMS
from mlchain.cli.localnet import LocalNet
from mlchain.client.client import Client
from mlchain.client.keystore import load_key
from mlchain.crypto import SecretKey, digest
from mlchain.errors import MlchainError
from mlchain.ledger.genesis import Allocation, Genesis, dump_genesis, load_genesis
from mlchain.node.membership import Keys

PATIENCE_S = 120.0
"""How long a test waits for what must happen; says nothing about how fast it is."""
POLL_S = 0.1
SENDER_BALANCE = 10**12

_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class NeverCameTrue(AssertionError):
    """What a test waited for did not happen."""


def until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> float:
    """Wait for `condition`; return the seconds it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > patience_s:
            raise NeverCameTrue(f"waited {patience_s:g} s for {what}")
        time.sleep(POLL_S)
    return time.monotonic() - started


def sender_key(number: int) -> SecretKey:
    return SecretKey(digest("mlchain/test-sender", bytes([number])))


class Network:
    """Validators and workers in `folder`; nothing runs until it is started."""

    def __init__(
        self, folder: Path, validators: int, workers: int, senders: int = 4, **params: int
    ) -> None:
        params = {"ticket_heights": 1 << 14, **params}  # short chains: nodes start sooner
        with patch.object(localgenesis, "LOCAL_PARAMS", replace(LOCAL_PARAMS, **params)):
            self.net = LocalNet.create(folder, validators, workers, None, {})
        self.folder = folder
        self.plans = {plan.name: plan for plan in self.net.nodes}
        self.genesis = self._fund(senders)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: dict[str, Client] = {}

    def _fund(self, senders: int) -> Genesis:
        genesis = load_genesis(self.net.genesis)
        funded = [Allocation(sender_key(i).public, SENDER_BALANCE) for i in range(senders)]
        genesis = replace(genesis, allocations=(*genesis.allocations, *funded))
        self.net.genesis.write_text(dump_genesis(genesis))
        return genesis

    # ---- processes ----------------------------------------------------------------------------

    @property
    def validators(self) -> list[str]:
        return [name for name, plan in self.plans.items() if plan.role == "validator"]

    @property
    def alive(self) -> list[str]:
        return [name for name, process in [*self.processes.items()] if process.poll() is None]

    def home(self, name: str) -> Path:
        return self.folder / name

    def log(self, name: str) -> str:
        return (self.home(name) / "node.log").read_text(errors="replace")

    def start(self, *names: str) -> None:
        """Start nodes (all, if none is named). They cannot outlive this process."""
        for name in names or self.plans:
            self.processes[name] = start_node(
                self.net.command(self.plans[name], True), self.home(name) / "node.log"
            )

    def kill(self, name: str) -> None:
        """End a process without any warning, as a power failure does."""
        process = self.processes.pop(name)
        process.kill()
        process.communicate()

    def stop(self) -> None:
        """End all processes that still run: politely, then not."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        self.processes.clear()
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def wait_ready(self, *names: str) -> float:
        """Wait until nodes answer; a process that ended instead is an error that shows its log."""
        return until(lambda: all(self._answers(n) for n in names or self.plans), "nodes to answer")

    def _answers(self, name: str) -> bool:
        process = self.processes[name]
        if process.poll() is not None:
            raise AssertionError(f"{name} ended with {process.returncode}:\n{self.log(name)}")
        try:
            return "state_sync" not in self.client(name).status()
        except MlchainError:
            return False

    # ---- questions ----------------------------------------------------------------------------

    def client(self, name: str) -> Client:
        """A client of one node, kept. Not for use by several threads."""
        if name not in self._clients:
            self._clients[name] = Client(self.plans[name].url, timeout_s=10, poll_s=POLL_S)
        return self._clients[name]

    def height(self, name: str) -> int:
        return int(self.client(name).status()["height"])

    def top(self, *names: str) -> int:
        return max(self.height(name) for name in names or self.alive)

    def wait_height(self, name: str, height: int, patience_s: float = PATIENCE_S) -> float:
        return until(lambda: self.height(name) >= height, f"{name} at height {height}", patience_s)

    def state_root(self, name: str, height: int) -> str:
        return str(self.client(name).block(height)["header"]["state_root"])

    def keys(self, name: str) -> Keys:
        """The secret keys of a node, for a test that plays it."""
        folder = self.home(name) / "keys"
        peer, validator, worker = (
            load_key(folder / f"{role}.json", None) if (folder / f"{role}.json").exists() else None
            for role in ("peer", "validator", "worker")
        )
        assert peer is not None
        return Keys(peer, validator, worker)

    def resident_bytes(self, name: str) -> int:
        """Memory of a node's own process."""
        text = Path(f"/proc/{self.processes[name].pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def start_node(
    command: list[str], log: Path, more: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a node with its output in `log`; it ends when we do."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT, **(more or {})},
            start_new_session=True,
        )


@contextmanager
def running(
    folder: Path, validators: int = 4, workers: int = 1, **params: int
) -> Iterator[Network]:
    """A network whose nodes all answer; every process is gone afterwards."""
    network = Network(folder, validators, workers, **params)
    try:
        network.start()
        network.wait_ready()
        yield network
    finally:
        network.stop()
