"""Real processes over libp2p: a validator joins by snapshot among liars, is killed, and votes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2s
from pathlib import Path
from shutil import rmtree

import httpx
import pytest
from ledgers import Ledgers
from msgspec.structs import replace
from process_network import Network, until

from mlchain import codec
from mlchain.errors import NotFound, Unreachable
from mlchain.ledger.merkle import CHUNKS
from mlchain.ledger.snapshot import Chunk, StateRow
from mlchain.node.snapshots import Index

EVERY = 40
"""Blocks between snapshots; the chain makes one every 100 ms."""


def snapshots_of(network: Network, name: str) -> list[Path]:
    return sorted(network.home(name).glob("snapshots/*/index"))


def common_heights(network: Network, names: list[str]) -> set[int]:
    """Blocks of which all of them have a snapshot."""
    return set.intersection(
        *({int(index.parent.name) for index in snapshots_of(network, name)} for name in names)
    )


def keep_one(network: Network, names: list[str]) -> None:
    """Leave the newest snapshot that all have, so that the joiner asks all of them for it."""
    height = max(common_heights(network, names))
    for name in names:
        for folder in (network.home(name) / "snapshots").iterdir():
            if folder.name != str(height):
                rmtree(folder)


def forge(folder: Path) -> None:
    """Replace a snapshot by one in which all balances are others; its index fits."""
    hashes = []
    for index in range(CHUNKS):
        file = folder / f"{index:02x}"
        chunk = codec.decode(Chunk, file.read_bytes())
        rows = tuple(StateRow(row.key, row.value[:-1] + b"\x7f") for row in chunk.rows)
        data = codec.encode(replace(chunk, rows=rows))
        file.write_bytes(data)
        hashes.append(blake2s(data).digest())
    codec_index = codec.encode(Index(int(folder.name), tuple(hashes)))
    (folder / "index").write_bytes(codec_index)


def says_how_far_it_is(network: Network, joiner: str, liar: str) -> None:
    """The joiner, whose peers are silent, answers whoever asks."""
    url = network.plans[joiner].url
    until(lambda: httpx.get(f"{url}/healthz").status_code == 200, "it to answer")
    answer = httpx.get(f"{url}/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "fetching_state")
    with pytest.raises(Unreachable, match=r"still fetching the state: \d+ of 256 chunks"):
        network.client(joiner).block(1)
    sync = network.client(joiner).status()["state_sync"]
    assert sync["phase"] == "fetching" and sync["height"] >= EVERY
    assert 20 < sync["chunks"] < CHUNKS
    assert [peer["name"] for peer in sync["peers"] if peer["refused"]] == [liar]


@contextmanager
def paused(network: Network, *names: str) -> Iterator[None]:
    """Processes that get no time."""
    for name in names:
        network.processes[name].send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            network.processes[name].send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_validator_joins_by_snapshot_although_a_peer_lies_and_it_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCHAIN_SNAPSHOT_EVERY", str(EVERY))
    network = Network(tmp_path, 4, 0, heartbeat_ms=100, block_interval_ms=100)
    first = network.validators[:3]
    joiner, liar = network.validators[3], first[0]
    try:
        network.start(*first)
        network.wait_ready(*first)
        until(lambda: common_heights(network, first), "a snapshot that all have")
        monkeypatch.setenv("MLCHAIN_SNAPSHOT_EVERY", "0")  # no newer ones
        for name in first:
            network.kill(name)
        keep_one(network, first)
        forge(snapshots_of(network, liar)[0].parent)
        network.start(*first)
        network.wait_ready(*first)

        monkeypatch.setenv("MLCHAIN_SYNC", "snapshot")
        network.start(joiner)
        parts = network.home(joiner) / "snapshots"
        until(lambda: len(list(parts.glob("*/??"))) > 20, "some chunks")
        with paused(network, *first):
            says_how_far_it_is(network, joiner, liar)
            network.kill(joiner)  # in the middle
        network.start(joiner)
        network.wait_ready(joiner)
        assert "snapshot-installed" in network.log(joiner)

        height = network.height(joiner)
        assert height >= EVERY
        with pytest.raises(NotFound, match="pruned below height"):
            network.client(joiner).block(5)
        network.kill(liar)  # now nothing is decided without the joiner's vote
        goal = network.top(first[1]) + 10
        network.wait_height(joiner, goal)
        signers = network.client(joiner).block(goal - 1)["signed_by"]
        assert joiner in signers
        assert network.state_root(joiner, goal - 1) == network.state_root(first[1], goal - 1)
    finally:
        network.stop()
    homes = [network.home(name) for name in network.validators]
    assert Ledgers(network.genesis, homes).complaints == []
