"""Keys and genesis of a local network: fresh, unprotected, for this machine only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlchain.cli.signing import new_secret
from mlchain.client.keystore import create_key
from mlchain.client.userfile import write_file
from mlchain.consensus.work.tickets import PURPOSES, make_chain
from mlchain.ledger.genesis import (
    Allocation,
    Genesis,
    Member,
    Params,
    check_genesis,
    dump_genesis,
)
from mlchain.vm.registry import registry_digest

if TYPE_CHECKING:
    from mlchain.cli.localnet import NodePlan
    from mlchain.crypto import SecretKey

LOOPBACK = "127.0.0.1"
ACCOUNTS = ("alice", "bob")
"""Funded accounts whose keys lie in DIR/keys."""
ACCOUNT_BALANCE = 1_000_000_000_000
MEMBER_BALANCE = 10_000_000_000
"""Members pay gas for their commits and claims."""
BOND = 1_000_000_000

LOCAL_PARAMS = Params(
    propose_timeout_ms=2_000,
    vote_timeout_ms=1_000,
    timeout_step_ms=500,
    block_interval_ms=80,
    heartbeat_ms=10_000,
    max_block_gas=2_000_000_000,
    attest_window=600,
    segment_timeout_ms=60_000,
    dispute_window=300,
    slash_worker=500_000_000,
    slash_validator=500_000_000,
    slash_unavailable=50_000_000,
    fee_admission=50_000_000,
    ticket_heights=1 << 18,
    epoch_blocks=500,
    max_verify_gas=120_000_000_000,
    unbonding_blocks=10_000,
    audit_permille=50,
    custody_window=2_000,
    slash_lazy=500_000_000,
)
"""Quick blocks and generous windows: many processes share few cores here."""


def write_network(
    folder: Path,
    chain_id: str,
    nodes: Sequence[NodePlan],
    accounts: Mapping[str, SecretKey] | None = None,
    params: Params | None = None,
) -> Genesis:
    """Make every node's keys and the genesis that joins them, write both, return the genesis.

    Without `accounts` the funded ones get fresh keys, which are written as well.
    """
    params = params or LOCAL_PARAMS
    length = params.ticket_heights
    members = [_make_member(folder, chain_id, node, length) for node in nodes]
    allocations = [Allocation(member.key, MEMBER_BALANCE) for member in members]
    if accounts is None:
        accounts = {name: new_secret() for name in ACCOUNTS}
        for name, key in accounts.items():
            create_key(folder / "keys" / f"{name}.json", key, None, force=True)
    allocations += [Allocation(key.public, ACCOUNT_BALANCE) for key in accounts.values()]
    genesis = Genesis(
        chain_id=chain_id,
        time_ms=int(time.time() * 1000),
        registry=registry_digest(),
        params=params,
        members=tuple(members),
        allocations=tuple(allocations),
    )
    check_genesis(genesis)
    write_file(folder / "genesis.json", dump_genesis(genesis))
    return genesis


def _make_member(folder: Path, chain_id: str, node: NodePlan, length: int) -> Member:
    key, peer = new_secret(), new_secret()
    keys = folder / node.name / "keys"
    create_key(keys / f"{node.role}.json", key, None, force=True)
    create_key(keys / "peer.json", peer, None, force=True)
    tips = [bytes(32)] * len(PURPOSES)
    if node.role == "validator":
        tips = [make_chain(key, purpose, chain_id, length).tip for purpose in PURPOSES]
    return Member(
        name=node.name,
        role=node.role,
        key=key.public,
        peer=peer.public,
        host=LOOPBACK,
        port=node.peer_port,
        bond=BOND,
        ticket_tip=tips[0],
        beacon_tip=tips[1],
        custody_tip=tips[2],
    )
