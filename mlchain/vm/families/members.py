"""Members: who they are, their bonds and hash chains, faults and slashing.

How they come, go and change is `families/governance.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated, Any

from msgspec import Meta
from msgspec.structs import replace

from mlchain.codec import Hash, Name, PublicKey, Record, Uint
from mlchain.consensus.work.rewards import split_slash
from mlchain.consensus.work.tickets import Reveal
from mlchain.ledger.genesis import Member, Port, Role
from mlchain.ledger.state import State, Table
from mlchain.ledger.validators import MAX_VALIDATORS, Validator, ValidatorSet
from mlchain.vm.context import BlockContext
from mlchain.vm.families.accounts import burn, credit


class MemberRecord(Record, frozen=True):
    """Who a key belongs to, and where its node listens.

    `since` is the height of the block after which it is a member, `left` of the block after which
    it is none any more, 0 while it is: a fault takes the role only. `successor` is the key that
    took its place, or empty: bond and liability went there. A key is a member once, never again.
    """

    name: Name
    role: Role
    peer: PublicKey
    host: Name
    port: Port
    since: Uint
    left: Uint
    successor: Annotated[bytes, Meta(max_length=32)]


class ValidatorRecord(Record, frozen=True):
    """A validator: its bond, and the public ends of the three hash chains that it came with.

    `start`: the height of their tips. Those that follow are in `families/renewal.py`.
    `jailed_height` is 0, or the height of the block in which a fault removed it from the set;
    `left_height` the same, for whatever reason it is out of the set.
    """

    name: Name
    weight: Uint
    bond: Uint
    start: Uint
    tickets: Reveal
    beacon: Reveal
    custody: Reveal
    jailed_height: Uint
    left_height: Uint


class WorkerRecord(Record, frozen=True):
    """A worker and its bond; `jailed_height` and `left_height` as for a validator.

    `admitted_height`: of the block in which it last admitted a wrong chunk, or 0.
    """

    name: Name
    bond: Uint
    jailed_height: Uint
    left_height: Uint
    admitted_height: Uint


class Fault(Record, frozen=True):
    """A punished misdeed, kept for auditors. `job` is zero where no job is concerned."""

    offender: PublicKey
    kind: Name
    job: Hash
    segment: Uint
    chunk: Uint
    slashed: Uint
    finders: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_VALIDATORS)]
    """They shared half of what was slashed."""
    height: Uint


class Registered(Record, frozen=True):
    """Who registered the tip of a hash chain. Kept for ever: no chain serves twice."""

    key: PublicKey


class Voters(Record, frozen=True):
    """Who voted on the last block; its commit, in the next block, is checked against them."""

    validators: Annotated[tuple[Validator, ...], Meta(max_length=MAX_VALIDATORS)]


MEMBERS = Table(b"member/", MemberRecord, bytes)
VALIDATORS = Table(b"validator/", ValidatorRecord, bytes)
WORKERS = Table(b"worker/", WorkerRecord, bytes)
TIPS = Table(b"tip/", Registered, bytes)
FAULTS = Table(b"fault/", Fault, int, int)
"""By height, and by number within the block."""

VOTERS = Table(b"voters/", Voters)

NO_JOB = bytes(32)
MAX_FAULTS = 2**20
"""More than one block can record: a fault for each place at work and validator."""


class LastWork(Record, frozen=True):
    """When a member last did something that it may have to answer for."""

    height: Uint


LAST_ATTESTED = Table(b"last-attested/", LastWork, bytes)
"""By validator: the greatest height from which a segment that it attested could be."""
LAST_HARD = Table(b"last-hard/", LastWork, bytes)
"""By worker: when a segment of its last became HARD."""


class Turns(Record, frozen=True):
    """How often each validator proposes in a round of the schedule, in key order.

    `since` is the height of the first block proposed so.
    """

    since: Uint
    of: Annotated[tuple[tuple[PublicKey, Uint], ...], Meta(max_length=MAX_VALIDATORS)]


TURNS = Table(b"turns/", Turns)
"""As the last epoch boundary fixed them; without a row they are equal."""
SCHEDULE = Table(b"schedule/", Turns)
"""As they are, with those removed in between left out."""


def get_validator_set(state: State) -> ValidatorSet:
    """Return the validators that vote on the next block."""
    turns = TURNS.get(state)
    return ValidatorSet(
        tuple(
            Validator(key[0], record.weight)
            for key, record in VALIDATORS.items(state)
            if not record.left_height
        ),
        dict(turns.of) if turns else None,
    )


def validators_after(state: State, height: int) -> tuple[bytes, ...]:
    """Return the keys of those who may vote after the block at `height`, in key order."""
    keys = []
    for (key,), record in VALIDATORS.items(state):
        member = MEMBERS.get(state, key)
        if member is not None and member.since <= height and not 0 < record.left_height <= height:
            keys.append(key)
    return tuple(keys)


def bond_holder(state: State, key: bytes) -> bytes:
    """Return the key that answers for what `key` does: its own, or that of its last successor."""
    member = MEMBERS.get(state, key)
    while member is not None and member.successor:
        key = member.successor
        member = MEMBERS.get(state, key)
    return key


def enrol(state: State, member: Member, height: int, start: int = 0) -> None:
    """Make `member` one after the block at `height`; its bond has been paid.

    Its hash chains have their tips at height `start`.
    """
    record = MemberRecord(
        member.name, member.role, member.peer, member.host, member.port, height, 0, b""
    )
    MEMBERS.put(state, record, member.key)
    if member.role == "validator":
        tips = (member.ticket_tip, member.beacon_tip, member.custody_tip)
        for tip in tips:
            TIPS.put(state, Registered(member.key), tip)
        tickets, beacon, custody = (Reveal(tip, start) for tip in tips)
        validator = ValidatorRecord(
            member.name, 1, member.bond, start, tickets, beacon, custody, 0, 0
        )
        VALIDATORS.put(state, validator, member.key)
    elif member.role == "worker":
        WORKERS.put(state, WorkerRecord(member.name, member.bond, 0, 0, 0), member.key)


def retire(state: State, key: bytes, height: int, successor: bytes = b"") -> None:
    """Let a member leave after the block at `height`; its bond stays where it is."""
    member = MEMBERS.get(state, key)
    assert member is not None, "only members leave"
    if not member.left:
        MEMBERS.put(state, replace(member, left=height, successor=successor), key)
    if validator := VALIDATORS.get(state, key):
        left = validator.left_height or height
        VALIDATORS.put(state, replace(validator, left_height=left), key)
    if worker := WORKERS.get(state, key):
        left = worker.left_height or height
        WORKERS.put(state, replace(worker, left_height=left), key)


def remember_voters(block: BlockContext) -> None:
    """Keep the set that votes on this block, for whoever checks its commit."""
    voters = Voters(block.validators.validators)
    if VOTERS.get(block.state) != voters:
        VOTERS.put(block.state, voters)
    of = tuple(zip(block.validators.keys, block.validators.turns, strict=True))
    known = SCHEDULE.get(block.state)
    if known is None or known.of != of:
        SCHEDULE.put(block.state, Turns(block.height, of))


def same_schedule_since(state: State) -> int:
    """Return the height of the first block whose proposer the present schedule named."""
    schedule = SCHEDULE.get(state)
    return schedule.since if schedule else 1


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


def replace_worker(state: State, key: bytes, **changes: Any) -> None:
    """Store `key`'s record with some fields changed."""
    record = WORKERS.get(state, key)
    assert record is not None, "only members are changed"
    WORKERS.put(state, replace(record, **changes), key)


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

    Without an amount it is `slash_validator`. Whoever took its place answers for it, and the bond
    of one that has left, or was punished, is still there: the first fault, perhaps one that a
    friend found, does not end its liability for others. It leaves the set when `is_removed`, or
    when its bond cannot bear another slash; the last validator stays, because a chain without
    validators cannot even record the fault.
    """
    holder = bond_holder(block.state, key)
    record = VALIDATORS.get(block.state, holder)
    if record is None or (record.jailed_height and not record.bond):
        return
    amount = min(record.bond, block.params.slash_validator if amount is None else amount)
    finders = (finder,) if finder and finder not in (key, holder) else ()
    _pay_slash(block.state, amount, finders)
    left = record.bond - amount
    is_out = is_removed or left < block.params.slash_validator
    if is_out and get_validator_set(block.state).keys == (holder,):
        is_out = False
    replace_validator(block.state, holder, bond=left)
    if is_out:
        jailed, out = record.jailed_height or block.height, record.left_height or block.height
        replace_validator(block.state, holder, jailed_height=jailed, left_height=out)
    _record_fault(block, Fault(key, kind, job, segment, chunk, amount, finders, block.height))


def slash_worker(
    block: BlockContext,
    key: bytes,
    kind: str,
    amount: int,
    finders: tuple[bytes, ...],
    job: bytes,
    segment: int,
    chunk: int,
    is_jailed: bool,
) -> None:
    """Take `amount` (at most the bond) from a worker; `finders` share half (none: burn all)."""
    holder = bond_holder(block.state, key)
    record = WORKERS.get(block.state, holder)
    assert record is not None, "segments are assigned to members"
    amount = min(record.bond, amount)
    _pay_slash(block.state, amount, finders)
    record = replace(record, bond=record.bond - amount)
    if is_jailed:
        jailed, out = record.jailed_height or block.height, record.left_height or block.height
        record = replace(record, jailed_height=jailed, left_height=out)
    WORKERS.put(block.state, record, holder)
    _record_fault(block, Fault(key, kind, job, segment, chunk, amount, finders, block.height))


def _pay_slash(state: State, amount: int, finders: tuple[bytes, ...]) -> None:
    share = split_slash(amount)[0] // len(finders) if finders else 0
    for finder in finders:
        credit(state, finder, share)
    burn(state, amount - share * len(finders))


def _record_fault(block: BlockContext, fault: Fault) -> None:
    def is_free(number: int) -> bool:
        return FAULTS.get(block.state, block.height, number) is None

    number = bisect_left(range(MAX_FAULTS), True, key=is_free)  # they stand without gaps
    FAULTS.put(block.state, fault, block.height, number)
