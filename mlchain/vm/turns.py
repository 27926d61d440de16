"""How often each validator proposes: a floor for all, the rest by verified work, capped, and late.

Votes keep weight 1, whatever anybody has computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from mlchain.vm.context import BlockContext
from mlchain.vm.credits import get_work
from mlchain.vm.families.members import TURNS, Turns, bond_holder, get_validator_set
from mlchain.vm.params import epoch_of

FLOOR = 3
BONUS = 7
"""Of FLOOR + BONUS turns a validator, so many are everybody's, and so many are shared by work."""
CAP = 3
"""Nobody gets more than one in so many of the turns that are shared by work."""
LAG = 2
"""Epochs from the work to the turns it earns."""


def set_turns(block: BlockContext) -> None:
    """At the end of an epoch: fix the turns of the next one.

    Whoever goes on under another key takes along what its old one has earned.
    """
    keys = get_validator_set(block.state).keys
    epoch = epoch_of(block.params, block.height + 1)
    work = dict.fromkeys(keys, 0)
    for key, units in get_work(block.state, epoch - LAG).items() if epoch >= LAG else ():
        if (holder := bond_holder(block.state, key)) in work:
            work[holder] += units
    turns = share_turns([work[key] for key in keys])
    of = tuple(zip(keys, turns, strict=True))
    TURNS.put(block.state, Turns(block.height + 1, of))


def share_turns(units: Sequence[int]) -> tuple[int, ...]:
    """Return turns by units of work: the least whole numbers in the right proportion.

    What the cap takes, and what rounding leaves, goes turn by turn to whoever has fewest. The cap
    also keeps a schedule possible in which nobody proposes twice within f + 1 blocks.
    """
    count, total = len(units), sum(units)
    faults, shared = (count - 1) // 3, BONUS * count
    most = min(shared // CAP, (FLOOR + BONUS) * count // (faults + 1) - FLOOR)
    most = max(most, BONUS)  # of one or two validators each has its equal part
    extra = [min(most, shared * own // total) if total else BONUS for own in units]
    for _ in range(shared - sum(extra)):
        least = min((i for i in range(count) if extra[i] < most), key=lambda i: (extra[i], i))
        extra[least] += 1
    turns = [FLOOR + more for more in extra]
    return tuple(turn // gcd(*turns) for turn in turns)
