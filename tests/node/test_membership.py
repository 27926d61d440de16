"""A running network takes members in, changes keys and lets go, and goes on."""

from __future__ import annotations

from pathlib import Path

import trio
from msgspec.structs import replace
from node.harness import (
    BOND,
    CHAIN_ID,
    PARAMS,
    Cluster,
    key,
    make_genesis,
    run_cluster,
    until,
    voters,
)

from mlchain import codec
from mlchain.consensus.work.tickets import PURPOSES, make_chain
from mlchain.crypto import SecretKey
from mlchain.ledger.genesis import Genesis, Member
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.node.catchup import stored_state
from mlchain.node.machine import Storage
from mlchain.node.membership import Keys
from mlchain.node.node import Node
from mlchain.p2p.memory import MemoryTransport
from mlchain.vm.context import Payload
from mlchain.vm.families.accounts import Transfer, get_account
from mlchain.vm.families.changes import (
    AddMember,
    ReplaceKeys,
    SetParam,
    change_digest,
    ready_bytes,
)
from mlchain.vm.families.governance import PROPOSALS, Approve, ChangeKeys, Leave, Propose

EPOCH = 12
UNTIL = 10**6


def quick_genesis() -> Genesis:
    genesis = make_genesis(4, 0)
    return replace(
        genesis, params=replace(PARAMS, epoch_blocks=EPOCH, heartbeat_ms=50, unbonding_blocks=3_000)
    )


def make_member(name: str, key_name: str, bond: int, port: int) -> Member:
    tips = [make_chain(key(key_name), p, CHAIN_ID, PARAMS.ticket_heights).tip for p in PURPOSES]
    peer = key(name + "/peer").public
    return Member(name, "validator", key(key_name).public, peer, "127.0.0.1", port, bond, *tips)


def ready(member: Member, key_name: str) -> bytes:
    return key(key_name).sign(ready_bytes(CHAIN_ID, member, UNTIL))


async def send(cluster: Cluster, sender: SecretKey, payload: Payload) -> None:
    node = cluster.nodes["validator-0"]
    nonce = node.chain.mempool.next_nonce(sender.public)
    body = TransactionBody(
        CHAIN_ID, sender.public, nonce, 50_000_000, 0 if payload.ROLE else 1, payload.KIND,
        codec.encode(payload),
    )  # fmt: skip
    await node.submit_transaction(codec.encode(sign_transaction(body, sender)))


def open_node(cluster: Cluster, folder: Path, home: Storage | None, keys: Keys) -> Node:
    """A node with `keys`; with the `home` of another that has stopped, it goes on from there."""
    if home is None:
        for part in ("wal", "spool"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        home = Storage(MemoryKeyValue(), MemoryKeyValue(), folder / "wal", folder / "spool")
    hub = cluster.nodes["validator-0"].transport.hub
    peer = keys.at(stored_state(home.chain)).peer.public
    transport = MemoryTransport(hub, peer, {})
    return Node(cluster.genesis, keys, home, transport)


async def run_until_outdated(node: Node) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await node.membership.outdated.wait()
        nursery.cancel_scope.cancel()
    node.agreement.close()


async def pay(cluster: Cluster, account: bytes, amount: int) -> None:
    chain = cluster.nodes["validator-0"].chain
    before = get_account(chain.state(), account).balance
    await send(cluster, cluster.alice, Transfer(account, amount))
    await until(lambda: get_account(chain.state(), account).balance > before)


async def approve_by_all(cluster: Cluster, change) -> None:
    await send(cluster, key("validator-0"), Propose(change))
    node = cluster.nodes["validator-0"]
    await until(lambda: any(True for _ in PROPOSALS.items(node.chain.state())))
    (((number,), _),) = PROPOSALS.items(node.chain.state())
    for i in (1, 2):
        await send(cluster, key(f"validator-{i}"), Approve(number, change_digest(change)))


def test_a_fifth_validator_joins_and_votes_another_changes_its_key_and_one_leaves(tmp_path):
    async def main() -> None:
        genesis = quick_genesis()
        money = replace(genesis.allocations[0], account=key("validator-3").public, amount=10**9)
        genesis = replace(genesis, allocations=(*genesis.allocations, money))
        async with run_cluster(tmp_path, genesis=genesis) as cluster:
            first = cluster.nodes["validator-0"]

            # The newcomer's node starts before it is a member: nobody talks to it, and it waits.
            await pay(cluster, key("newcomer").public, BOND)
            member = make_member("newcomer", "newcomer", BOND, 99)
            keys = Keys(key("newcomer/peer"), key("newcomer"), None)
            node = open_node(cluster, tmp_path / "newcomer", None, keys)
            assert node.keys.validator is None, "no member, no vote"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_until_outdated, node)
                await approve_by_all(cluster, AddMember(member, UNTIL, ready(member, "newcomer")))
                await until(lambda: key("newcomer").public in first.chain.validators)
                await until(node.membership.outdated.is_set)
            node = open_node(cluster, tmp_path / "newcomer", node._storage, keys)
            assert node.keys.validator is not None
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                await until(lambda: key("newcomer").public in voters(first))

                # It takes another key, which has waited beside the first one.
                new = make_member("newcomer", "newcomer-2", 0, 99)
                change = ReplaceKeys(key("newcomer").public, new, UNTIL, ready(new, "newcomer-2"))
                await pay(cluster, key("newcomer").public, 10**9)
                await send(cluster, key("newcomer"), ChangeKeys(change))
                await until(lambda: key("newcomer-2").public in first.chain.validators)
                await until(lambda: node.chain.height >= first.chain.height - 1)
                nursery.cancel_scope.cancel()
            node.agreement.close()
            keys = replace_next(keys, key("newcomer-2"))
            node = open_node(cluster, tmp_path / "newcomer", node._storage, keys)
            assert node.keys.validator.public == key("newcomer-2").public
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                await until(lambda: key("newcomer-2").public in voters(first))

                # Another one leaves, and is cut off.
                await send(cluster, key("validator-3"), Leave())
                await until(lambda: key("validator-3").public not in first.chain.validators)
                gone = key("validator-3/peer").public
                assert gone not in {status.peer for status in first.transport.peers()}
                height = first.chain.height
                await until(lambda: first.chain.height > height + 3)
                await until(lambda: node.chain.height > height + 3)
                at = height + 3
                assert node.chain.store.header(at) == first.chain.store.header(at)
                nursery.cancel_scope.cancel()
            node.agreement.close()

    trio.run(main)


def replace_next(keys: Keys, new: SecretKey) -> Keys:
    return Keys(keys.peer, keys.validator, None, next_validator=new)


def test_a_running_node_takes_up_timing_and_another_peer_key(tmp_path):
    async def main() -> None:
        genesis = quick_genesis()
        own = key("validator-3")
        money = replace(genesis.allocations[0], account=own.public, amount=10**9)
        genesis = replace(genesis, allocations=(*genesis.allocations, money))
        old, new = key("validator-3/peer"), key("another peer key")
        keys = Keys(old, own, None, next_peer=new)
        async with run_cluster(tmp_path, genesis=genesis, absent=("validator-3",)) as cluster:
            first = cluster.nodes["validator-0"]
            node = open_node(cluster, tmp_path / "validator-3", None, keys)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_until_outdated, node)
                await until(lambda: first.chain.height and own.public in voters(first))
                change = SetParam("vote_timeout_ms", 777)
                await approve_by_all(cluster, change)
                present = next(m for m in genesis.members if m.key == own.public)
                moved = replace(present, peer=new.public, bond=0)
                signed = own.sign(ready_bytes(CHAIN_ID, moved, UNTIL))
                await send(cluster, own, ChangeKeys(ReplaceKeys(own.public, moved, UNTIL, signed)))
                await until(node.membership.outdated.is_set)

            height = node.chain.height
            await until(lambda: first.chain.height > height + 1)
            known = {status.peer for status in first.transport.peers()}
            assert {old.public, new.public} <= known, "who lacks that block may still fetch it"
            for other in cluster.nodes.values():
                assert other.chain.params.vote_timeout_ms == 777
                assert other.agreement._driver.timeouts.vote_ms == 777

            again = open_node(cluster, tmp_path / "validator-3", node._storage, keys)
            assert again.transport.public_key == again.keys.peer.public == new.public
            async with trio.open_nursery() as nursery:
                await nursery.start(again.run)
                height = first.chain.height
                await until(lambda: first.chain.height > height and own.public in voters(first))
                await until(lambda: old.public not in {s.peer for s in first.transport.peers()})
                nursery.cancel_scope.cancel()
            again.agreement.close()

    trio.run(main)
