"""What pays its finder and can wait is announced by a hash first.

Whoever builds the next block sees what is in it first, and could send the same as its own. So a
report, or a claim that nothing waits for, is announced by a hash that names its sender, and shown
when that is old enough: who copies it then has to wait while an honest proposer takes the first.
What is shown must hold something that nobody guesses, an element or a salt.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.codec import Hash, Record
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import State, Table
from mlchain.ledger.validators import ValidatorSet
from mlchain.vm.context import BlockContext, Context, Payload
from mlchain.vm.cover import finality_depth
from mlchain.vm.families.members import same_schedule_since

ANNOUNCE_GAS = 20_000
ANNOUNCED_BLOCKS = 1_000
"""Blocks after which an announcement is forgotten."""


class Announced(Record, frozen=True):
    """What somebody announced in one block."""

    finding: Hash


ANNOUNCED = Table(b"announced/", Announced, int, bytes)
"""By height and sender: one a block, so that free ones fill nothing."""


class Announce(Payload, frozen=True):
    """Say that one has found something; `finding` is its `announcement`."""

    KIND: ClassVar[int] = 29
    FREE: ClassVar[bool] = True
    finding: Hash

    def execute(self, ctx: Context) -> None:
        """Note when it was said."""
        ctx.charge(ANNOUNCE_GAS)
        if ANNOUNCED.get(ctx.state, ctx.block.height, ctx.sender) is not None:
            raise InvalidTransaction("one announcement a block", "send it again")
        ANNOUNCED.put(ctx.state, Announced(self.finding), ctx.block.height, ctx.sender)


def announcement(sender: bytes, payload: Any) -> bytes:
    """Return what announces a payload that has a field `announced`."""
    said = codec.encode(replace(payload, announced=0))
    return crypto.digest("mlchain/announced", codec.encode((sender, payload.KIND)), said)


def find_announcement(state: State, sender: bytes, payload: Any) -> int | None:
    """Return the height of the block in which `sender` announced a payload, None if in none."""
    wanted = Announced(announcement(sender, payload))
    return next(
        (
            height
            for (height, key), said in ANNOUNCED.items(state)
            if key == sender and said == wanted
        ),
        None,
    )


def take_announced(ctx: Context, payload: Any) -> None:
    """Use up the announcement of a payload, by its sender in block `payload.announced`.

    Raises:
        InvalidTransaction: there is none, or it is too young.
    """
    height = payload.announced
    said = ANNOUNCED.get(ctx.state, height, ctx.sender)
    if said is None or said.finding != announcement(ctx.sender, payload):
        raise InvalidTransaction(
            f"this was not announced by its sender in block {height}", "announce it first"
        )
    first = ripe_height(ctx.state, ctx.block.validators, height)
    if ctx.block.height < first:
        raise InvalidTransaction(f"this can be shown from height {first} on")
    ANNOUNCED.delete(ctx.state, height, ctx.sender)


def ripe_height(state: State, validators: ValidatorSet, announced: int) -> int:
    """Return from which height on this may be shown: an honest proposer came in between.

    Counted anew where the schedule of proposers changed, as for FINALISE.
    """
    since = max(announced, same_schedule_since(state) - 1)
    return since + finality_depth(validators)


def forget_announcements(block: BlockContext) -> None:
    """Forget announcements that nothing followed."""
    for (height, sender), _ in ANNOUNCED.items(block.state):
        if height + ANNOUNCED_BLOCKS >= block.height:
            break
        ANNOUNCED.delete(block.state, height, sender)
