"""Back-pressure: how much verification commits at work ask of a validator, and how much they may.

A commit that does not fit any more fails, and is sent again when others are HARD or have fallen.
So no number of jobs, however cheap to post, can make validators owe more than `max_verify_gas`.
"""

from __future__ import annotations

from mlchain.codec import Record, Uint
from mlchain.consensus.work.assurance import parse_tier, slice_size
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import State, Table
from mlchain.vm.context import BlockContext


class Backlog(Record, frozen=True):
    """Gas of one validator's slices of all commits that are not HARD."""

    gas: Uint


BACKLOG = Table(b"backlog/", Backlog)


def slice_gas(tier: str, gas: int, chunks: int, count: int, validators: int) -> int:
    """Return the gas of one validator's slice of `count` chunks of a job of `chunks`."""
    if not count:
        return 0
    size = slice_size(parse_tier(tier), chunks, count, validators)
    return gas * size // chunks


def get_backlog(state: State) -> int:
    """Return the gas that is owed."""
    record = BACKLOG.get(state)
    return record.gas if record else 0


def is_full(block: BlockContext, gas: int) -> bool:
    """Tell whether a commit that asks for `gas` has to wait; alone it never has to."""
    owed = get_backlog(block.state)
    return owed > 0 and owed + gas > block.params.max_verify_gas


def owe(block: BlockContext, gas: int) -> None:
    """Add a commit's slices.

    Raises:
        InvalidTransaction: they do not fit. Left out of blocks instead, such a commit would hold up
            whatever its worker sends after it.
    """
    if is_full(block, gas):
        raise InvalidTransaction(
            f"{get_backlog(block.state)} gas of verification is owed already",
            "send the commit again when there is room",
        )
    BACKLOG.put(block.state, Backlog(get_backlog(block.state) + gas))


def settle(block: BlockContext, gas: int) -> None:
    """Take off the slices of a commit that is HARD or fell."""
    BACKLOG.put(block.state, Backlog(max(0, get_backlog(block.state) - gas)))
