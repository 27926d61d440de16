"""A network of real node processes on this machine: one folder, one genesis, one process per node.

DIR/genesis.json        what all nodes share
DIR/net.json            names, roles and ports
DIR/keys/               keys of funded test accounts (alice, bob)
DIR/<node>/             key, database, log (node.log) and pid of one node
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlchain.cli import process
from mlchain.client.userfile import write_file
from mlchain.errors import ConfigError, MlchainError, Timeout, Unreachable

MAX_NODES = 32
LOOPBACK = "127.0.0.1"
PEER_PORT_OFFSET = 100
"""Peers listen this far above the HTTP ports, when ports are counted from a base."""
_POLL_S = 0.2
_LOG_LINES = 8


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node of the network. `adversary` is "", or how it misbehaves (for tests and demos)."""

    name: str
    role: str
    http_port: int
    peer_port: int
    adversary: str = ""

    @property
    def url(self) -> str:
        """Where its API answers."""
        return f"http://{LOOPBACK}:{self.http_port}"


class LocalNet:
    """The network in `folder`. Creating it starts nothing."""

    def __init__(self, folder: Path, nodes: Sequence[NodePlan]) -> None:
        self.folder = folder
        self.nodes = tuple(nodes)
        self._children: list[subprocess.Popen[bytes]] = []

    @classmethod
    def create(
        cls,
        folder: Path,
        validators: int,
        workers: int,
        base_port: int | None,
        cheats: Mapping[str, str],
    ) -> LocalNet:
        """Make keys, genesis and folders. `base_port` None takes free ports.

        Raises:
            ConfigError: too many nodes, or a cheat that names no node.
        """
        from mlchain.cli.localgenesis import write_network

        if validators + workers > MAX_NODES:
            raise ConfigError(
                f"{validators + workers} nodes, at most {MAX_NODES} run on one machine"
            )
        roles = [("validator", i) for i in range(1, validators + 1)]
        roles += [("worker", i) for i in range(1, workers + 1)]
        names = [f"{role}-{i}" for role, i in roles]
        for name in cheats:
            if name not in names:
                raise ConfigError(f"--cheat {name}: no such node", "nodes: " + ", ".join(names))
        ports = _ports(len(names), base_port)
        nodes = [
            NodePlan(name, role, http, peer, cheats.get(name, ""))
            for name, (role, _), (http, peer) in zip(names, roles, ports, strict=True)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        write_network(folder, f"test-{secrets.token_hex(3)}", nodes)
        write_file(folder / "net.json", json.dumps([asdict(n) for n in nodes], indent=2) + "\n")
        return cls(folder, nodes)

    @classmethod
    def open(cls, folder: Path) -> LocalNet | None:
        """Return the network that was made in `folder`, None if there is none.

        Raises:
            ConfigError: its description is damaged.
        """
        path = folder / "net.json"
        if not path.exists():
            return None
        try:
            return cls(folder, [NodePlan(**row) for row in json.loads(path.read_text())])
        except (OSError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: {error}", "mlchain testnet up --reset") from error

    @property
    def genesis(self) -> Path:
        """The genesis file."""
        return self.folder / "genesis.json"

    @property
    def url(self) -> str:
        """The API of the first node."""
        return self.nodes[0].url

    def pid_file(self, node: NodePlan) -> Path:
        """Where the pid of a running node stands."""
        return self.folder / node.name / "pid"

    def log_file(self, node: NodePlan) -> Path:
        """Where a node's output goes."""
        return self.folder / node.name / "node.log"

    def pid(self, node: NodePlan) -> int | None:
        """Return the pid of a node, None if it does not run."""
        return process.running_pid(self.pid_file(node))

    def start(self, is_tied: bool = False) -> list[NodePlan]:
        """Start the nodes that do not run and return them. Tied ones end with this process."""
        started = [node for node in self.nodes if self.pid(node) is None]
        for node in started:
            child = process.start(
                self.command(node, is_tied),
                self.pid_file(node),
                self.log_file(node),
                {"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                is_tied,
            )
            self._children.append(child)
        return started

    def command(self, node: NodePlan, is_tied: bool) -> list[str]:
        """Return the command line of a node; children are started through this interpreter."""
        home = self.folder / node.name
        command = [sys.executable, "-m", "mlchain", "node"]
        command += ["--genesis", str(self.genesis), "--home", str(home)]
        command += ["--http", f"{LOOPBACK}:{node.http_port}"]
        command += ["--listen", f"{LOOPBACK}:{node.peer_port}"]
        for key in ("validator", "worker", "peer"):  # named, so that no variable changes them
            command += [f"--{key}-key", str(home / "keys" / f"{key}.json")]
        if node.adversary:
            command += ["--adversary", node.adversary]
        return [*command, "--until-stdin-closes"] if is_tied else command

    def wait_ready(self, timeout_s: float, notify: Callable[[str], None]) -> None:
        """Return once every node answers and is connected to all others.

        Raises:
            Unreachable: a process ended; shows the end of its log.
            Timeout: says who is missing.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            waiting = self._missing()
            if not waiting:
                return
            if time.monotonic() >= deadline:
                raise Timeout(
                    f"waited {timeout_s:g} s for {waiting}", f"logs are in {self.folder}/*/node.log"
                )
            notify(f"waiting for {waiting}")
            time.sleep(_POLL_S)

    def _missing(self) -> str:
        """Return what is still missing, in words; "" if nothing is."""
        silent, apart = [], []
        for node, _, status in self.status():
            if status is None:
                silent.append(node.name)
            elif missing := [p["name"] for p in status["peers"] if not p["connected"]]:
                apart.append(f"{node.name} to reach {', '.join(missing)}")
        if silent:
            text = f"{len(silent)} of {len(self.nodes)} nodes to answer: {', '.join(silent)}"
        else:
            text = "; ".join(apart)
        return text

    def status(self) -> list[tuple[NodePlan, int | None, dict[str, Any] | None]]:
        """Return each node with its pid and its own status; None where there is none.

        Raises:
            Unreachable: a process that this object started has ended by itself.
        """
        from mlchain.client.client import Client

        rows: list[tuple[NodePlan, int | None, dict[str, Any] | None]] = []
        for node in self.nodes:
            pid, status = self.pid(node), None
            if pid is None and self._children:
                raise Unreachable(
                    f"{node.name} ended by itself:\n{self.log_tail(node)}",
                    f"the whole log is {self.log_file(node)}",
                )
            if pid is not None:
                try:
                    with Client(node.url, timeout_s=2) as client:
                        status = client.status()
                except MlchainError:
                    status = None
            rows.append((node, pid, status))
        return rows

    def log_tail(self, node: NodePlan) -> str:
        """Return the last lines of a node's log."""
        try:
            lines = self.log_file(node).read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join("  " + line for line in lines[-_LOG_LINES:]) or "  (it said nothing)"

    def stop(self, nodes: Sequence[NodePlan] | None = None) -> list[str]:
        """Stop all nodes, or those given, and return the names of those that ran."""
        stopped = process.stop([self.pid_file(node) for node in nodes or self.nodes])
        for child in [child for child in self._children if child.poll() is not None]:
            if child.stdin is not None:
                child.stdin.close()
            self._children.remove(child)
        return [file.parent.name for file in stopped]

    def remove(self) -> None:
        """Stop everything and delete the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _ports(count: int, base_port: int | None) -> list[tuple[int, int]]:
    """Return (HTTP, peer) ports: counted from a base, or free ones the system names."""
    if base_port is not None:
        return [(base_port + i, base_port + PEER_PORT_OFFSET + i) for i in range(count)]
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(2 * count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return list(zip(ports[::2], ports[1::2], strict=True))
