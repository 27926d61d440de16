"""The state of block 0."""

from __future__ import annotations

from mlchain.consensus.work.tickets import Reveal
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.state import State
from mlchain.vm.families.accounts import ACCOUNTS, BURNED, credit
from mlchain.vm.families.jobs import JOBS
from mlchain.vm.families.members import (
    VALIDATORS,
    VOTERS,
    WORKERS,
    ValidatorRecord,
    Voters,
    WorkerRecord,
)
from mlchain.vm.params import PARAMS


def write_genesis(state: State, genesis: Genesis) -> None:
    """Write members, bonds and first balances into an empty state."""
    for allocation in genesis.allocations:
        credit(state, allocation.account, allocation.amount)
    for member in genesis.members:
        if member.role == "validator":
            tips = (member.ticket_tip, member.beacon_tip, member.custody_tip)
            tickets, beacon, custody = (Reveal(tip, 0) for tip in tips)
            record = ValidatorRecord(member.name, 1, member.bond, tickets, beacon, custody, 0)
            VALIDATORS.put(state, record, member.key)
        elif member.role == "worker":
            WORKERS.put(state, WorkerRecord(member.name, member.bond, 0), member.key)
    VOTERS.put(state, Voters(genesis.validators().validators))
    PARAMS.put(state, genesis.params)


def compute_supply(state: State) -> int:
    """Return all micro-credits: balances, bonds, escrow and what was burned. It never changes."""
    burned = BURNED.get(state)
    return (
        sum(account.balance for _, account in ACCOUNTS.items(state))
        + sum(record.bond for _, record in VALIDATORS.items(state))
        + sum(record.bond for _, record in WORKERS.items(state))
        + sum(job.escrow for _, job in JOBS.items(state))
        + (burned.amount if burned else 0)
    )
