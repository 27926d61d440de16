"""Attack 22: f proposers leave out a claim until the segment it accuses may become HARD.

An honest one must propose in between. With turns by work that takes two things: nobody proposes
twice within f + 1 blocks, and where the schedule changes, the age counts from there.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import PARAMS, World, make_genesis

from mlchain.errors import InvalidBlock
from mlchain.ledger.validators import make_schedule
from mlchain.vm import lifecycle
from mlchain.vm.turns import share_turns

RICH = 10**15
HOSTILE = (0, 1)
"""f = 2 of seven, and all work is theirs."""
TURNS = share_turns([RICH, RICH, 0, 0, 0, 0, 0])


def longest_run(slots: tuple[int, ...]) -> int:
    """Return the most blocks in a row that the hostile ones propose."""
    marks = "".join("x" if who in HOSTILE else " " for who in (*slots, *slots))
    return max(len(run) for run in marks.split())


def plain_round_robin(turns: tuple[int, ...]) -> tuple[int, ...]:
    """The same smooth weighted round-robin, without the rule of f + 1 slots."""
    credit, slots = [0] * len(turns), []
    for _ in range(sum(turns)):
        credit = [have + gain for have, gain in zip(credit, turns, strict=True)]
        chosen = max(range(len(turns)), key=lambda index: (credit[index], -index))
        credit[chosen] -= sum(turns)
        slots.append(chosen)
    return tuple(slots)


def test_f_rich_members_never_fill_the_blocks_of_a_claim():
    assert longest_run(make_schedule(TURNS)) <= len(HOSTILE)


@pytest.mark.parametrize("turns", [TURNS, (50, 50, 1, 1, 1, 1, 1)], ids=["capped", "uncapped"])
def test_control_without_spacing_weights_let_them(turns):
    assert longest_run(plain_round_robin(turns)) > len(HOSTILE)


def committed_when_the_schedule_changes() -> tuple[World, bytes]:
    """A segment whose whole age but one block lies before a removal, with all attestations."""
    world = World(genesis=make_genesis(4, params=replace(PARAMS, epoch_blocks=1000)))
    job = world.running()
    world.commit(job)
    world.attest(job)
    outgoing = world.validators[3]
    world.block(evidence=(world.double_vote(outgoing),))
    return world, job


def test_where_the_schedule_changes_the_age_counts_anew():
    world, job = committed_when_the_schedule_changes()
    with pytest.raises(InvalidBlock, match="too young"):
        world.compose(finalise=(world.ref(job),))
    world.block()
    world.block(finalise=(world.ref(job),))


def test_control_counted_across_the_change_it_is_hard_before_anybody_honest_need_have_proposed(
    monkeypatch,
):
    monkeypatch.setattr(lifecycle, "same_schedule_since", lambda state: 1)
    world, job = committed_when_the_schedule_changes()
    world.block(finalise=(world.ref(job),))
