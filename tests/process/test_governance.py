"""Four processes take in a fifth, keys change, one leaves; the chain goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from process.process_network import Network, sender_key, until

from mlchain.cli.localgenesis import BOND
from mlchain.cli.localnet import NodePlan, _ports
from mlchain.cli.node import next_key
from mlchain.client.client import Client
from mlchain.client.keystore import create_key, read_key_info
from mlchain.crypto import SecretKey
from mlchain.errors import MlchainError
from mlchain.vm.families.accounts import Transfer

EPOCH = 16


def mlchain(*arguments: object) -> dict:
    """Run a command as a person does; its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "mlchain", *map(str, arguments), "--json"],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def key_file(network: Network, name: str) -> Path:
    return network.home(name) / "keys" / "validator.json"


def voting(network: Network, at: str) -> list[str]:
    """Names of the validators, as one node says."""
    members = network.client(at).governance()["members"]
    return [m["name"] for m in members if m["role"] == "validator" and not m["left"]]


def wait_for_height(network: Network, name: str, height: int) -> None:
    """A node whose role changes is away for a moment."""

    def is_there() -> bool:
        try:
            return network.height(name) >= height
        except MlchainError:
            return False

    until(is_there, f"{name} at height {height}")


def known_peers(client: Client) -> set[str]:
    """The network keys of all members."""
    return {member["peer"] for member in client.governance()["members"] if not member["left"]}


def links(network: Network, at: str, to: str) -> list[bool]:
    """Whether each peer key by which one node knows another is connected."""
    peers = network.client(at).status()["peers"]
    return [peer["connected"] for peer in peers if peer["name"] == to]


@pytest.mark.slow
def test_a_validator_joins_keys_change_without_a_restart_and_one_leaves(tmp_path):
    network = Network(tmp_path, 4, 0, epoch_blocks=EPOCH, heartbeat_ms=200, block_interval_ms=50)
    try:
        first, second, third, fourth = network.validators
        # The second one will get another network key, which waits beside the first from the start.
        next_peer = next_key(network.home(second) / "keys" / "peer.json")
        create_key(next_peer, SecretKey(bytes([6]) * 32), None)
        network.start()
        network.wait_ready()
        url = network.plans[first].url

        # Its keys, its money, its node: nobody talks to the node yet.
        home = network.home("echo") / "keys"
        home.mkdir(parents=True)
        create_key(home / "validator.json", SecretKey(bytes([7]) * 32), None)
        create_key(home / "peer.json", SecretKey(bytes([8]) * 32), None)
        ((http, p2p),) = _ports(1, None)
        network.plans["echo"] = NodePlan("echo", "validator", http, p2p)
        network.start("echo")
        client = network.client(first)
        key = read_key_info(home / "validator.json").public
        client.wait(client.send(Transfer(key, BOND + 10**9), sender_key(0)), 60)

        # It is let in by three of four.
        proof = tmp_path / "echo.ready"
        mlchain(
            "gov", "ready", "echo", "--key", home / "validator.json", "--peer-key",
            home / "peer.json", "--listen", f"127.0.0.1:{p2p}", "--bond", BOND, "--out", proof,
            "--url", url,
        )  # fmt: skip
        mlchain("gov", "propose", "add", proof, "--key", key_file(network, first), "--url", url)
        (proposal,) = client.governance()["open"]
        for name in (second, third):
            mlchain(
                "gov", "approve", proposal["number"], "--key", key_file(network, name),
                "--url", url,
            )  # fmt: skip
        until(lambda: "echo" in voting(network, first), "the newcomer to be a validator")
        wait_for_height(network, "echo", network.height(first))
        until(lambda: "role-changed" in network.log("echo"), "it to notice")

        # It changes its key: the new one waits in its home and takes over without a restart.
        waiting = next_key(home / "validator.json")
        create_key(waiting, SecretKey(bytes([9]) * 32), None)
        network.kill("echo")  # it looks for keys when it starts
        network.start("echo")
        network.wait_ready("echo")
        proof = tmp_path / "echo-2.ready"
        mlchain(
            "gov", "ready", "echo", "--key", waiting, "--peer-key", home / "peer.json",
            "--listen", f"127.0.0.1:{p2p}", "--out", proof, "--url", url,
        )  # fmt: skip
        mlchain("gov", "rotate", "echo", proof, "--key", home / "validator.json", "--url", url)
        new = read_key_info(waiting).public.hex()

        # So does the network key of another one, which runs since the beginning.
        proof = tmp_path / "second.ready"
        mlchain(
            "gov", "ready", second, "--key", key_file(network, second), "--peer-key", next_peer,
            "--listen", f"127.0.0.1:{network.plans[second].peer_port}", "--out", proof,
            "--url", url,
        )  # fmt: skip
        mlchain("gov", "rotate", second, proof, "--key", key_file(network, second), "--url", url)
        until(
            lambda: new in [row["key"] for row in client.validators() if row["bond"]],
            "the new key to hold the bond",
        )
        peer = read_key_info(next_peer).public.hex()
        until(lambda: peer in known_peers(client), "the new network key to be the registered one")
        until(lambda: "role-changed" in network.log(second), "its node to notice")
        for name in (first, third, fourth):
            # for an epoch both keys are known, and only the new one is in use
            until(lambda at=name: links(network, at, second) == [True], f"{name} to know one key")
        assert network.processes[second].poll() is None, "it is the same process"

        # One leaves, one falls silent: of the four that are left three must vote, so the new keys
        # of the newcomer and of the second one are needed.
        mlchain("gov", "leave", "--key", key_file(network, fourth), "--url", url)
        until(lambda: fourth not in voting(network, first), "it to be gone")
        network.kill(fourth)
        network.kill(third)
        height = network.height(first) + 5
        for name in (first, second, "echo"):
            wait_for_height(network, name, height)
        roots = {network.state_root(name, height) for name in (first, second, "echo")}
        assert len(roots) == 1
    finally:
        network.stop()
