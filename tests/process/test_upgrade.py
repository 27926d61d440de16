"""An upgrade by proposal: who has the next version goes on, who has not stops and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from process.process_network import Network, start_node, until
from process.test_governance import key_file, mlchain

TESTS = Path(__file__).parents[1]
EPOCH = 16
NEXT = [sys.executable, "-m", "process.next_version"]
PATHS = {"PYTHONPATH": os.pathsep.join((os.getcwd(), str(TESTS)))}


def start_next(network: Network, name: str) -> None:
    """Start a node of the next version in the home of one that does not run."""
    command = network.net.command(network.plans[name], True)
    assert command[:3] == [sys.executable, "-m", "mlchain"]
    log = network.home(name) / "node.log"
    network.processes[name] = start_node([*NEXT, *command[3:]], log, PATHS)


@pytest.mark.slow
def test_the_next_version_goes_on_and_the_old_one_stops_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCHAIN_SNAPSHOT_EVERY", "0")
    digest = subprocess.run(
        [*NEXT, "digest"], capture_output=True, text=True, check=True, env={**os.environ, **PATHS}
    ).stdout.strip()
    network = Network(tmp_path, 4, 0, epoch_blocks=EPOCH, heartbeat_ms=500, block_interval_ms=50)
    *new, old = network.validators
    try:
        for name in new:  # it follows the rules of today as well
            start_next(network, name)
        network.start(old)
        network.wait_ready(*new, old)
        url = network.plans[new[0]].url
        at = network.height(new[0]) + 6 * EPOCH  # room for the approvals, on a slow machine
        mlchain(
            "gov", "propose", "upgrade", 2, digest, at, "--key", key_file(network, new[0]),
            "--url", url,
        )  # fmt: skip
        (proposal,) = network.client(new[0]).governance()["open"]
        for name in new[1:]:
            mlchain(
                "gov", "approve", proposal["number"], "--key", key_file(network, name),
                "--url", url,
            )  # fmt: skip

        until(lambda: network.processes[old].poll() is not None, "the old version to stop", 300)
        assert network.processes[old].returncode == 2
        log = network.log(old)
        assert "upgrade-needed" in log, "it is told while there is time"
        assert "on the chain follows protocol version 2" in log
        goal = network.height(new[0]) + 5
        for name in new:
            network.wait_height(name, goal)
        header = network.client(new[0]).block(goal)["header"]
        assert header["protocol_version"] == 2 and goal > at
        assert network.client(new[0]).block(at - EPOCH)["header"]["protocol_version"] == 1

        network.processes.pop(old).communicate()
        start_next(network, old)  # it is replaced: nothing was lost
        network.wait_ready(old)
        network.wait_height(old, goal)
        until(
            lambda: old in network.client(new[0]).block(network.height(new[0]))["signed_by"],
            "it to vote again",
        )
    finally:
        network.stop()
