"""The development chain: one validator and one worker in one process, published keys.

`python -m mlchain.cli.devgenesis > genesis/dev.json` writes the file; a test says when it is stale.
"""

from __future__ import annotations

import sys

from mlchain.client.keystore import dev_key
from mlchain.consensus.work.tickets import PURPOSES, make_chain
from mlchain.ledger.genesis import Allocation, Genesis, Member, Params, dump_genesis
from mlchain.vm.registry import registry_digest

CHAIN_ID = "dev-1"
TIME_MS = 1_767_225_600_000  # 2026-01-01, the same for everybody
BALANCE = 1_000_000_000_000
BOND = 1_000_000_000
PORT = 8644
PARAMS = Params(
    propose_timeout_ms=1_000,
    vote_timeout_ms=500,
    timeout_step_ms=250,
    block_interval_ms=20,
    heartbeat_ms=60_000,
    max_block_gas=500_000_000,
    attest_window=3_000,
    segment_timeout_ms=600_000,
    dispute_window=1_500,
    slash_worker=500_000_000,
    slash_validator=500_000_000,
    slash_unavailable=50_000_000,
    fee_admission=50_000_000,
    ticket_heights=1 << 20,
    epoch_blocks=1_000,
    max_verify_gas=120_000_000_000,
    unbonding_blocks=10_000,
    audit_permille=50,
    custody_window=10_000,
    slash_lazy=500_000_000,
)


def make_dev_genesis() -> Genesis:
    """Return the genesis of `dev-1`, the same on every machine with this version."""
    peer = dev_key("validator-peer").public
    members = []
    for role in ("validator", "worker"):
        key = dev_key(role)
        tips = [bytes(32)] * len(PURPOSES)
        if role == "validator":
            length = PARAMS.ticket_heights
            tips = [make_chain(key, purpose, CHAIN_ID, length).tip for purpose in PURPOSES]
        members.append(Member(role, role, key.public, peer, "127.0.0.1", PORT, BOND, *tips))
    allocations = tuple(Allocation(dev_key(n).public, BALANCE) for n in ("alice", "bob"))
    return Genesis(CHAIN_ID, TIME_MS, registry_digest(), PARAMS, tuple(members), allocations)


if __name__ == "__main__":
    sys.stdout.write(dump_genesis(make_dev_genesis()))
