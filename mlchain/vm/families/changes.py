"""What governance can change: one class a kind, each knows whether it fits and how to apply itself.

A change is checked when it is proposed and once more at the epoch boundary where it takes effect:
the chain has gone on in between.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.codec import Hash, Name, PublicKey, Record, Signature, Uint
from mlchain.errors import InvalidTransaction
from mlchain.ledger.genesis import Member
from mlchain.ledger.state import State
from mlchain.ledger.validators import MAX_VALIDATORS
from mlchain.vm.context import BlockContext
from mlchain.vm.families.accounts import debit, get_account
from mlchain.vm.families.members import (
    MEMBERS,
    TIPS,
    VALIDATORS,
    WORKERS,
    MemberRecord,
    enrol,
    get_validator_set,
    replace_validator,
    replace_worker,
    retire,
)
from mlchain.vm.families.operators import carry_over
from mlchain.vm.params import PARAMS, check_param
from mlchain.vm.protocol import Protocol, get_protocol, plan_upgrade

MAX_MEMBERS = 4 * MAX_VALIDATORS
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,62}[A-Za-z0-9])?")


class Change(Record, frozen=True):
    """Base of all kinds."""

    def check(self, block: BlockContext) -> None:
        """Return if the change could be made to `block.state` now.

        Raises:
            InvalidTransaction: says what does not fit.
        """
        raise AssertionError("a kind defines check")

    def apply(self, block: BlockContext) -> None:
        """Make it; `check` has just passed. It holds from the next block on."""
        raise AssertionError("a kind defines apply")

    def moved_weight(self, state: State) -> int:
        """Return the weight of validators that come, go, or vote with another key."""
        return 0


def ready_bytes(chain_id: str, member: Member, until: int) -> bytes:
    """Return what `member.key` signs to take its place, with these keys, tips and this bond.

    The consent ends after the block at height `until`.
    """
    return codec.encode(("mlchain/ready/1", chain_id, member, until))


class AddMember(Change, frozen=True, tag="add"):
    """A newcomer takes its place; its bond comes from the account of its own key."""

    member: Member
    until: Uint
    ready: Signature

    def check(self, block: BlockContext) -> None:
        """The newcomer signed, its names are free, and it can pay its bond."""
        _check_newcomer(block, self.member, self.until, self.ready, b"")
        role, bond = self.member.role, self.member.bond
        params = block.params
        least = {"validator": params.slash_validator, "worker": params.slash_worker}.get(role, 0)
        if bond < least:
            raise InvalidTransaction(f"bond {bond}: a {role} needs at least {least}")
        if role == "observer" and bond:
            raise InvalidTransaction("an observer has no bond", "give 0")
        if get_account(block.state, self.member.key).balance < bond:
            raise InvalidTransaction(
                f"the newcomer's account cannot pay its bond of {bond}", "transfer it first"
            )
        if role == "validator" and len(get_validator_set(block.state)) >= MAX_VALIDATORS:
            raise InvalidTransaction(f"there are {MAX_VALIDATORS} validators already")
        if sum(not m.left for _, m in MEMBERS.items(block.state)) >= MAX_MEMBERS:
            raise InvalidTransaction(f"there are {MAX_MEMBERS} members already")

    def apply(self, block: BlockContext) -> None:
        """Take the bond, and enrol."""
        debit(block.state, self.member.key, self.member.bond)
        enrol(block.state, self.member, block.height, first_start(block))

    def moved_weight(self, state: State) -> int:
        """One vote more."""
        return 1 if self.member.role == "validator" else 0


class RemoveMember(Change, frozen=True, tag="remove"):
    """A member leaves; its bond is held until nothing old can be brought against it any more."""

    key: PublicKey

    def check(self, block: BlockContext) -> None:
        """It is a member, and not the last validator."""
        _get_present(block.state, self.key)
        if get_validator_set(block.state).keys == (self.key,):
            raise InvalidTransaction("the last validator stays", "add another one first")

    def apply(self, block: BlockContext) -> None:
        """Let it go."""
        retire(block.state, self.key, block.height)

    def moved_weight(self, state: State) -> int:
        """Its vote."""
        return get_validator_set(state).weight(self.key)


class ReplaceKeys(Change, frozen=True, tag="replace"):
    """A member goes on under another key, or with another peer key or address.

    `member` is what it will be; with another `key`, that key takes over the bond, and answers for
    what the old one did. Name, role and bond stay.
    """

    old: PublicKey
    member: Member
    until: Uint
    ready: Signature

    def check(self, block: BlockContext) -> None:
        """The member is there, and the new key signed."""
        present = _get_present(block.state, self.old)
        if (self.member.name, self.member.role) != (present.name, present.role):
            raise InvalidTransaction(
                f"{present.name} is a {present.role}: name and role stay", "leave, and join anew"
            )
        record = VALIDATORS.get(block.state, self.old) or WORKERS.get(block.state, self.old)
        if record is not None and record.jailed_height:
            raise InvalidTransaction(f"{present.name} was punished and is out, whatever its key")
        if self.member.bond:
            raise InvalidTransaction("the bond moves by itself", "give 0")
        _check_newcomer(block, self.member, self.until, self.ready, self.old)

    def apply(self, block: BlockContext) -> None:
        """Enrol the new key with the old bond; or only write down where the member is now."""
        state, member = block.state, self.member
        if member.key == self.old:
            record = _get_present(state, self.old)
            MEMBERS.put(
                state,
                replace(record, peer=member.peer, host=member.host, port=member.port),
                member.key,
            )
            return
        bond = admitted = 0
        if validator := VALIDATORS.get(state, self.old):
            bond = validator.bond
            replace_validator(state, self.old, bond=0)
        elif worker := WORKERS.get(state, self.old):
            bond, admitted = worker.bond, worker.admitted_height
            replace_worker(state, self.old, bond=0)
        retire(state, self.old, block.height, successor=member.key)
        enrol(state, replace(member, bond=bond), block.height, first_start(block))
        if admitted:  # it is the same worker: it admits no sooner again
            replace_worker(state, member.key, admitted_height=admitted)
        carry_over(state, self.old, member.key)

    def moved_weight(self, state: State) -> int:
        """A vote in other hands, perhaps."""
        return get_validator_set(state).weight(self.old) if self.member.key != self.old else 0


class SetParam(Change, frozen=True, tag="param"):
    """A parameter gets another value."""

    name: Name
    value: Uint

    def check(self, block: BlockContext) -> None:
        """It may be changed, and to this."""
        check_param(block.params, self.name, self.value)

    def apply(self, block: BlockContext) -> None:
        """Write it down; blocks of the next epoch read it."""
        PARAMS.put(block.state, check_param(block.params, self.name, self.value))


class Upgrade(Change, frozen=True, tag="upgrade"):
    """Other rules: from the first epoch that begins at `height` or later.

    A node that lacks them says so from now on, and does not vote on the blocks that need them.
    """

    version: Annotated[int, Meta(ge=1, le=2**31)]
    registry: Hash
    height: Uint

    def check(self, block: BlockContext) -> None:
        """It goes forward, and gives time."""
        if self.version <= get_protocol(block.state).version:
            raise InvalidTransaction("the chain is at that version already, or further")
        if self.height <= block.height:
            raise InvalidTransaction(f"height {self.height} has passed", "choose a later one")

    def apply(self, block: BlockContext) -> None:
        """Announce it."""
        plan_upgrade(block.state, Protocol(self.version, self.registry, self.height))


AnyChange = AddMember | RemoveMember | ReplaceKeys | SetParam | Upgrade


def change_digest(change: AnyChange) -> bytes:
    """Return what an approval names, so that nobody approves what it has not seen."""
    return crypto.digest("mlchain/change", codec.encode(change))


def _get_present(state: State, key: bytes) -> MemberRecord:
    member = MEMBERS.get(state, key)
    if member is None or member.left:
        raise InvalidTransaction(f"{key.hex()[:16]} is not a member")
    return member


def _check_newcomer(
    block: BlockContext, member: Member, until: int, ready: bytes, old: bytes
) -> None:
    """Return if `member` consented, and collides with nobody but `old`, whom it replaces.

    Raises:
        InvalidTransaction: says what does not fit.
    """
    state = block.state
    if not crypto.is_signed(member.key, ready_bytes(block.chain_id, member, until), ready):
        raise InvalidTransaction("the new key did not sign that it is ready for this place")
    if block.height > until:
        raise InvalidTransaction(f"the new key was ready until height {until}", "sign it again")
    if member.key != old and MEMBERS.get(state, member.key) is not None:
        raise InvalidTransaction("this key is or was a member's", "make a new key")
    if not _HOST.fullmatch(member.host):
        raise InvalidTransaction(f"host {member.host!r} is no IP address or DNS name")
    tips = (member.ticket_tip, member.beacon_tip, member.custody_tip)
    if (member.role == "validator") != all(any(tip) for tip in tips):
        raise InvalidTransaction("validators register the tips of their hash chains, others none")
    if member.role == "validator" and member.key != old:
        check_tips(state, tips)
    for (key,), other in MEMBERS.items(state):
        if key == old or other.left:
            continue
        if other.name == member.name:
            raise InvalidTransaction(f"the name {member.name!r} is taken")
        there = (other.host, other.port) == (member.host, member.port)
        if other.peer == member.peer and not there:
            raise InvalidTransaction(f"{other.name} has this peer key at another address")


def first_start(block: BlockContext) -> int:
    """Return the height of the tips of one that joins after this block.

    It can attest what is still open, and shows nothing older: who chose chains that begin earlier
    would know by then what the others have shown.
    """
    return max(0, block.height - block.params.attest_window)


def check_tips(state: State, tips: tuple[bytes, ...]) -> None:
    """Return if each of `tips` is of a chain of its own.

    An element shown for one purpose, or by one member, would be known before it is due in another.

    Raises:
        InvalidTransaction: two are equal, or one is or was registered.
    """
    if len(set(tips)) < len(tips):
        raise InvalidTransaction("two tips of hash chains are equal", "each purpose has its own")
    for tip in tips:
        if taken := TIPS.get(state, tip):
            raise InvalidTransaction(
                f"the hash chain {tip.hex()[:16]} is {taken.key.hex()[:16]}'s", "make a new key"
            )
