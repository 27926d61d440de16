"""Whole nodes report, by themselves, a validator that shows its secrets before their time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from node.harness import BOND, PARAMS, Cluster, key, make_genesis, run_cluster

from mlchain.consensus.messages import encode_message
from mlchain.crypto import digest
from mlchain.ledger.commit import Vote, VoteKind, sign_bytes
from mlchain.node.informer import Informer
from mlchain.p2p.transport import Channel
from mlchain.vm.families.members import VALIDATORS

LEAK = "validator-3"
AHEAD = 40


def leak(cluster: Cluster, height: int) -> None:
    """Sign a precommit for a height that is far away: its extension shows what was secret."""
    node, own = cluster.nodes[LEAK], key(LEAK)
    assert node.duties is not None
    block_id, extension = digest("test-block"), node.duties.extension(height)
    message = sign_bytes(
        cluster.genesis.chain_id, VoteKind.PRECOMMIT, height, 0, block_id, -1, extension
    )
    signature = own.sign(message)
    vote = Vote(VoteKind.PRECOMMIT, height, 0, block_id, own.public, extension, signature)
    for peer in node.agreement.validator_peers:
        node.transport.send(peer, Channel.CONSENSUS, encode_message(vote))


def run(folder: Path, blocks: int) -> Cluster:
    """Leak at the third block, and go on until somebody is punished, or so many blocks more."""

    async def main() -> Cluster:
        made = make_genesis(4, 0)
        made = replace(made, params=replace(PARAMS, heartbeat_ms=100))
        async with run_cluster(folder, 4, 0, genesis=made) as cluster:
            chain = cluster.nodes["validator-0"].chain
            with trio.fail_after(120):
                while chain.height < 3:
                    await trio.sleep(0.05)
                leak(cluster, chain.height + AHEAD)
                end = chain.height + blocks
                while not cluster.faults() and chain.height < end:
                    await trio.sleep(0.05)
            return cluster

    return trio.run(main)


def test_who_shows_an_element_early_is_reported_slashed_and_removed_without_any_operator(
    tmp_path: Path,
) -> None:
    cluster = run(tmp_path, AHEAD)
    (fault,) = cluster.faults()
    assert (fault.offender, fault.kind) == (key(LEAK).public, "early-reveal")
    state = cluster.nodes["validator-0"].chain.state()
    record = VALIDATORS.get(state, key(LEAK).public)
    assert record is not None and record.bond == BOND - PARAMS.slash_lazy and record.jailed_height
    (finder,) = fault.finders
    assert finder in cluster.nodes["validator-0"].chain.validators, "it had no money to pay with"


def test_control_if_nobody_looks_nobody_is_slashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Informer, "look", lambda self, frame: None)
    assert run(tmp_path, 12).faults() == []


class Recorder:
    """Stands for an outbox."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def send_announced(self, payload: object) -> None:
        self.sent.append(payload)


def test_a_node_that_was_behind_reports_nothing_of_what_is_due_when_it_has_caught_up(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        made = make_genesis(4, 0)
        made = replace(made, params=replace(PARAMS, heartbeat_ms=100))
        async with run_cluster(tmp_path, 4, 0, genesis=made) as cluster:
            judge, node, outbox = cluster.nodes["validator-0"], cluster.nodes[LEAK], Recorder()
            informer = Informer(key("validator-0").public, judge.chain, outbox)  # type: ignore[arg-type]
            assert node.duties is not None
            with trio.fail_after(120):
                height = judge.chain.height + 10
                extension, own = node.duties.extension(height), key(LEAK).public
                block_id, kind = digest("test-block"), VoteKind.PRECOMMIT
                vote = Vote(kind, height, 0, block_id, own, extension, bytes(64))
                informer.look(encode_message(vote))
                await informer.press(judge.chain.state())
                assert outbox.sent, "as far as it knows"
                outbox.sent.clear()
                while judge.chain.height < height:
                    await trio.sleep(0.05)
                await informer.press(judge.chain.state())
                assert not outbox.sent and not informer._reports

    trio.run(main)
