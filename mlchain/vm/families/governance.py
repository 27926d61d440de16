"""Governance: validators propose and approve, members leave and change their keys.

Nothing here takes effect at once. `vm.epochs` counts the approvals and applies what has a quorum
when an epoch ends.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from mlchain.codec import Hash, Name, PublicKey, Record, Uint
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import State, Table
from mlchain.ledger.validators import MAX_VALIDATORS
from mlchain.vm.context import Context, Payload
from mlchain.vm.families.changes import AnyChange, RemoveMember, ReplaceKeys, change_digest
from mlchain.vm.params import epoch_of

PROPOSAL_GAS = 20_000
APPROVAL_GAS = 2_000
PROPOSAL_EPOCHS = 8
"""Epochs after its own in which a proposal may still be approved."""
MAX_OPEN = 64
MAX_OPEN_OF_ONE = 4


class Proposal(Record, frozen=True):
    """A change that waits. `author` proposed it, `approvals` are the keys that approved, in order.

    `is_own`: a member's own affair, which needs no approvals.
    """

    author: PublicKey
    change: AnyChange
    height: Uint
    last_epoch: Uint
    is_own: bool
    approvals: Annotated[tuple[PublicKey, ...], Meta(max_length=4 * MAX_VALIDATORS)]


class Decided(Record, frozen=True):
    """What became of a proposal: "effective", "expired" or "failed", after the block `height`."""

    proposal: Proposal
    outcome: Name
    reason: Annotated[str, Meta(max_length=512)]
    height: Uint


class Counter(Record, frozen=True):
    """How many proposals there have been."""

    count: Uint


PROPOSALS = Table(b"proposal/", Proposal, int)
"""Open ones, by number."""
DECIDED = Table(b"decided/", Decided, int)
COUNTER = Table(b"proposals/", Counter)


def leaving_key(change: AnyChange) -> bytes:
    """Return the key that is a member's no more after a change; empty if there is none."""
    if isinstance(change, RemoveMember):
        return change.key
    if isinstance(change, ReplaceKeys) and change.member.key != change.old:
        return change.old
    return b""


def leaving_keys(state: State) -> dict[bytes, None]:
    """Return the members that have asked to leave, or to go on under another key."""
    own = (proposal for _, proposal in PROPOSALS.items(state) if proposal.is_own)
    return {leaving_key(proposal.change): None for proposal in own}


def get_proposal(state: State, number: int) -> Proposal:
    """Return an open proposal.

    Raises:
        InvalidTransaction: there is none of that number, or it is decided.
    """
    proposal = PROPOSALS.get(state, number)
    if proposal is None:
        raise InvalidTransaction(f"no open proposal {number}", "mlchain gov list shows them")
    return proposal


class Propose(Payload, frozen=True):
    """A validator proposes a change, and approves it thereby."""

    KIND: ClassVar[int] = 40
    ROLE: ClassVar[str] = "validator"
    change: AnyChange

    def execute(self, ctx: Context) -> None:
        """Check that the change could be made today, and open the proposal."""
        _open(ctx, self.change, (ctx.sender,), is_own=False)


class Approve(Payload, frozen=True):
    """A validator approves a proposal; `digest` says which change it has seen."""

    KIND: ClassVar[int] = 41
    ROLE: ClassVar[str] = "validator"
    number: Uint
    digest: Hash

    def execute(self, ctx: Context) -> None:
        """Note the approval, once."""
        ctx.charge(APPROVAL_GAS)
        proposal = get_proposal(ctx.state, self.number)
        if proposal.is_own:
            raise InvalidTransaction(f"proposal {self.number} is its author's own affair")
        if change_digest(proposal.change) != self.digest:
            raise InvalidTransaction(f"proposal {self.number} is another one than was approved")
        if ctx.sender in proposal.approvals:
            raise InvalidTransaction(f"proposal {self.number} has this approval already")
        approvals = (*proposal.approvals, ctx.sender)
        PROPOSALS.put(ctx.state, replace(proposal, approvals=approvals), self.number)
        ctx.emit(f"proposal {self.number} approved")


class Leave(Payload, frozen=True):
    """A member leaves of its own accord."""

    KIND: ClassVar[int] = 42

    def execute(self, ctx: Context) -> None:
        """Have it leave when the epoch ends."""
        _open(ctx, RemoveMember(ctx.sender), (), is_own=True)


class ChangeKeys(Payload, frozen=True):
    """A member replaces its own keys, or says where it listens now. Sent by the old key."""

    KIND: ClassVar[int] = 43
    change: ReplaceKeys

    def execute(self, ctx: Context) -> None:
        """Have them replaced when the epoch ends."""
        if self.change.old != ctx.sender:
            raise InvalidTransaction("these are another's keys", "a quorum may replace a lost key")
        _open(ctx, self.change, (), is_own=True)


def _open(ctx: Context, change: AnyChange, approvals: tuple[bytes, ...], is_own: bool) -> None:
    ctx.charge(PROPOSAL_GAS)
    change.check(ctx.block)
    known = [proposal for _, proposal in PROPOSALS.items(ctx.state)]
    if sum(p.author == ctx.sender for p in known) >= MAX_OPEN_OF_ONE or len(known) >= MAX_OPEN:
        raise InvalidTransaction("too many proposals are open", "wait until some are decided")
    if any(p.change == change and p.is_own == is_own for p in known):
        raise InvalidTransaction("this is proposed already", "approve it, or wait")
    counter = COUNTER.get(ctx.state)
    number = counter.count + 1 if counter else 1
    COUNTER.put(ctx.state, Counter(number))
    last = epoch_of(ctx.block.params, ctx.block.height) + PROPOSAL_EPOCHS
    proposal = Proposal(ctx.sender, change, ctx.block.height, last, is_own, approvals)
    PROPOSALS.put(ctx.state, proposal, number)
    ctx.emit(f"proposal {number} opened")
