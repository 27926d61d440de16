"""Validators and workers: bonds, hash chains, faults and slashing.

Joining, leaving and key rotation by governance belong in this file as further kinds.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta
from msgspec.structs import replace

from mlchain.codec import Hash, Name, PublicKey, Record, Uint
from mlchain.consensus.work.rewards import split_slash
from mlchain.consensus.work.tickets import Reveal
from mlchain.ledger.state import State, Table
from mlchain.ledger.validators import MAX_VALIDATORS, Validator, ValidatorSet
from mlchain.vm.context import BlockContext
from mlchain.vm.families.accounts import burn, credit


class ValidatorRecord(Record, frozen=True):
    """A validator: its bond, and the public ends of its three hash chains.

    `jailed_height` is 0, or the height of the block that removed it from the set.
    """

    name: Name
    weight: Uint
    bond: Uint
    tickets: Reveal
    beacon: Reveal
    custody: Reveal
    jailed_height: Uint


class WorkerRecord(Record, frozen=True):
    """A worker and its bond."""

    name: Name
    bond: Uint
    jailed_height: Uint


class Fault(Record, frozen=True):
    """A punished misdeed, kept for auditors. `job` is zero where no job is concerned."""

    offender: PublicKey
    kind: Name
    job: Hash
    segment: Uint
    chunk: Uint
    slashed: Uint
    finder: Annotated[bytes, Meta(max_length=32)]
    height: Uint


class Voters(Record, frozen=True):
    """Who voted on the last block; its commit, in the next block, is checked against them."""

    validators: Annotated[tuple[Validator, ...], Meta(max_length=MAX_VALIDATORS)]


VALIDATORS = Table(b"validator/", ValidatorRecord, bytes)
WORKERS = Table(b"worker/", WorkerRecord, bytes)
FAULTS = Table(b"fault/", Fault, int, int)
"""By height, and by number within the block."""

VOTERS = Table(b"voters/", Voters)

NO_JOB = bytes(32)


def get_validator_set(state: State) -> ValidatorSet:
    """Return the validators that are not jailed."""
    return ValidatorSet(
        tuple(
            Validator(key[0], record.weight)
            for key, record in VALIDATORS.items(state)
            if not record.jailed_height
        )
    )


def remember_voters(block: BlockContext) -> None:
    """Keep the set that votes on this block, for whoever checks its commit."""
    voters = Voters(block.validators.validators)
    if VOTERS.get(block.state) != voters:
        VOTERS.put(block.state, voters)


def get_last_voters(state: State) -> ValidatorSet:
    """Return the set that voted on the block which led to `state`."""
    voters = VOTERS.get(state)
    assert voters is not None, "every block remembers its voters"
    return ValidatorSet(voters.validators)


def replace_validator(state: State, key: bytes, **changes: Any) -> None:
    """Store `key`'s record with some fields changed."""
    record = VALIDATORS.get(state, key)
    assert record is not None, "only members are changed"
    VALIDATORS.put(state, replace(record, **changes), key)


def slash_validator(
    block: BlockContext,
    key: bytes,
    kind: str,
    finder: bytes,
    job: bytes = NO_JOB,
    segment: int = 0,
    chunk: int = 0,
    is_removed: bool = True,
    amount: int | None = None,
) -> None:
    """Take `amount` from a validator's bond, half to `finder` (empty, or itself: burn all).

    Without an amount it is `slash_validator`.

    It leaves the set when `is_removed`, or when its bond cannot bear another slash; the last
    validator stays, because a chain without validators cannot even record the fault.
    """
    record = VALIDATORS.get(block.state, key)
    if record is None or record.jailed_height:
        return
    amount = min(record.bond, block.params.slash_validator if amount is None else amount)
    _pay_slash(block.state, amount, b"" if finder == key else finder)
    left = record.bond - amount
    is_out = is_removed or left < block.params.slash_validator
    if len(get_validator_set(block.state)) == 1:
        is_out = False
    replace_validator(block.state, key, bond=left, jailed_height=block.height if is_out else 0)
    _record_fault(block, Fault(key, kind, job, segment, chunk, amount, finder, block.height))


def slash_worker(
    block: BlockContext,
    key: bytes,
    kind: str,
    amount: int,
    finder: bytes,
    job: bytes,
    segment: int,
    chunk: int,
    is_jailed: bool,
) -> None:
    """Take `amount` (at most the bond) from a worker, half to `finder` (empty: burn all)."""
    record = WORKERS.get(block.state, key)
    assert record is not None, "segments are assigned to members"
    amount = min(record.bond, amount)
    _pay_slash(block.state, amount, finder)
    jailed = record.jailed_height or (block.height if is_jailed else 0)
    record = replace(record, bond=record.bond - amount, jailed_height=jailed)
    WORKERS.put(block.state, record, key)
    _record_fault(block, Fault(key, kind, job, segment, chunk, amount, finder, block.height))


def _pay_slash(state: State, amount: int, finder: bytes) -> None:
    reward, burned = split_slash(amount) if finder else (0, amount)
    if reward:
        credit(state, finder, reward)
    burn(state, burned)


def _record_fault(block: BlockContext, fault: Fault) -> None:
    number = sum(1 for _ in FAULTS.items(block.state, block.height))
    FAULTS.put(block.state, fault, block.height, number)
