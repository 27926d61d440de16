"""A network of processes whose wires, clocks and disks are in our hands."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fault_shim
from cut import Wires
from process_network import Network, start_node

DISK_BYTES = 48 << 20
"""Of the small disk that one validator gets, where we may mount one."""
MUTANT_NODE = Path(__file__).with_name("mutant_node.py")


def free_port() -> int:
    """Return a port that no outgoing connection takes while its node is down."""
    while True:
        port = random.randrange(20_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


class SoakNetwork(Network):
    """`Network`, with every node behind a relay and over a shim; the last worker never runs."""

    def __init__(
        self, folder: Path, validators: int, workers: int, senders: int, mutant: str = ""
    ) -> None:
        super().__init__(folder, validators, workers + 1, senders)
        self.mutant = mutant
        self.stranger = list(self.plans)[-1]
        """A member whose keys the garbage comes from."""
        self._own_port = {name: free_port() for name in self.plans}
        dialled = {name: (self.plans[name].peer_port, self._own_port[name]) for name in self.honest}
        self.wires = Wires(dialled, self._pids)
        self.skipped: dict[str, str] = {}
        """Faults that cannot be made here, and why."""
        self.shims: dict[str, fault_shim.Shim] = {}
        if reason := fault_shim.missing():
            self.skipped |= dict.fromkeys(("clock", "slow-disk"), reason)
        else:
            for name in self.honest:
                path = folder / f"{name}.faults"
                self.shims[name] = fault_shim.Shim(path, self.home(name))
        self.small = self.validators[-1]
        """The validator with the small disk."""
        self._mounted: list[Path] = []

    @property
    def honest(self) -> list[str]:
        return [name for name in self.plans if name != self.stranger]

    def _pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in [*self.processes.items()]}

    def start(self, *names: str) -> None:
        for name in names or self.honest:
            command = self.net.command(self.plans[name], True)
            at = command.index("--listen") + 1
            command[at] = f"127.0.0.1:{self._own_port[name]}"
            if self.mutant:
                command[1:3] = [str(MUTANT_NODE), self.mutant]
            more = self.shims[name].environment() if name in self.shims else {}
            log = self.home(name) / "node.log"
            self.processes[name] = start_node(command, log, more)

    def wait_ready(self, *names: str) -> float:
        return super().wait_ready(*(names or self.honest))

    # ---- the small disk -----------------------------------------------------------------------

    def mount(self) -> None:
        """Give one validator a small disk of its own, or note why not."""
        try:
            for part in ("data", "wal"):
                folder = self.home(self.small) / part
                folder.mkdir(parents=True, exist_ok=True)
                command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "soak", str(folder)]
                subprocess.run(command, check=True, capture_output=True)
                self._mounted.append(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipped["full-disk"] = f"no small disk can be mounted ({error})"

    def fill(self, part: str) -> None:
        """Leave no byte on a small disk."""
        # Unbuffered: closing would try to write once more what did not fit.
        with (self.home(self.small) / part / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                return

    def free(self) -> None:
        for folder in self._mounted:
            (folder / "ballast").unlink(missing_ok=True)

    def unmount(self) -> None:
        """Keep what is on the small disks, and give them back."""
        for folder in self._mounted:
            kept = folder.with_name(folder.name + ".kept")
            shutil.copytree(folder, kept)
            subprocess.run(["umount", "-l", str(folder)], check=False)
            folder.rmdir()
            kept.rename(folder)
        self._mounted.clear()


@contextmanager
def soaking(
    folder: Path, validators: int, workers: int, senders: int, mutant: str = ""
) -> Iterator[SoakNetwork]:
    """A running network; everything of it is gone afterwards but its folder."""
    network = SoakNetwork(folder, validators, workers, senders, mutant)
    network.mount()
    try:
        with network.wires:
            network.start()
            network.wait_ready()
            yield network
            network.stop()
    finally:
        network.stop()
        network.unmount()


def in_own_mounts(argv: list[str]) -> list[str]:
    """Return a command that runs `argv` where a mount ends with it."""
    alone = shutil.which("unshare")
    if alone and not subprocess.run([alone, "-m", "true"], capture_output=True).returncode:
        return [alone, "-m", sys.executable, *argv]
    return []
