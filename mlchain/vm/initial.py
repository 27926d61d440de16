"""The state of block 0."""

from __future__ import annotations

from mlchain.consensus.light import Trusted
from mlchain.ledger.block import FIRST_VERSION
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.state import State
from mlchain.ledger.store import Store
from mlchain.vm.families.accounts import ACCOUNTS, BURNED, credit
from mlchain.vm.families.jobs import JOBS
from mlchain.vm.families.members import VALIDATORS, VOTERS, WORKERS, Voters, enrol
from mlchain.vm.families.predictions import PREDICTIONS
from mlchain.vm.params import PARAMS
from mlchain.vm.protocol import PROTOCOL, Protocol


def write_genesis(state: State, genesis: Genesis) -> None:
    """Write members, bonds and first balances into an empty state."""
    for allocation in genesis.allocations:
        credit(state, allocation.account, allocation.amount)
    for member in genesis.members:
        enrol(state, member, 0)
    VOTERS.put(state, Voters(genesis.validators().validators))
    PARAMS.put(state, genesis.params)
    PROTOCOL.put(state, Protocol(FIRST_VERSION, genesis.registry, 0))


def trust_genesis(genesis: Genesis) -> Trusted:
    """Return trust in block 0, which follows from the genesis file."""
    store = Store.create_or_open(
        MemoryKeyValue(), genesis, lambda state: write_genesis(state, genesis)
    )
    voters = genesis.validators().validators
    return Trusted(0, store.head_id, store.head.time_ms, voters)


def compute_supply(state: State) -> int:
    """Return all micro-credits: balances, bonds, escrow and what was burned. It never changes."""
    burned = BURNED.get(state)
    return (
        sum(account.balance for _, account in ACCOUNTS.items(state))
        + sum(record.bond for _, record in VALIDATORS.items(state))
        + sum(record.bond for _, record in WORKERS.items(state))
        + sum(job.escrow for _, job in JOBS.items(state))
        + sum(prediction.escrow for _, prediction in PREDICTIONS.items(state))
        + (burned.amount if burned else 0)
    )
