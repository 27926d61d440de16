"""When a node wants the next block: the interval counts from the last one's beginning."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
import trio.testing

from mlchain.consensus.effects import CheckBlock, Decide
from mlchain.errors import StoreCorrupted
from mlchain.node.agreement import BREATH, Agreement

INTERVAL, HEARTBEAT = 100, 9_000


class Clock:
    now = 1_000

    def monotonic_ms(self) -> int:
        return self.now

    def wall_ms(self) -> int:
        return self.now


def make_agreement(effects: list) -> tuple[Agreement, Clock]:
    """An agreement whose driver asks for one block to be checked and then decided."""
    clock = Clock()
    chain = SimpleNamespace(
        height=0, validators=None, store=None, has_evidence=False,
        params=SimpleNamespace(block_interval_ms=INTERVAL, heartbeat_ms=HEARTBEAT),
        mempool=SimpleNamespace(ready=1),
        note_voters=lambda commit: None, check=lambda *a: (None, ""),
        commit=lambda *a: SimpleNamespace(validators=None), candidate_state=lambda block_id: None,
    )  # fmt: skip
    driver = SimpleNamespace(
        recover=lambda *a: None, is_recovering=False, start=lambda *a: None,
        last_commit=lambda: None,
        checked=lambda *a, **k: None, drain=lambda: [effects.pop(0)] if effects else [],
        receive=lambda *a: None, peers=SimpleNamespace(strikes=lambda peer: 0),
        round=-1, next_timer=lambda: None, demand=lambda now: None,
    )  # fmt: skip
    wal = SimpleNamespace(records=list, forget=lambda: None)
    agreement = Agreement(
        chain, driver, wal, None, clock, (), on_commit=lambda c: None,
        on_behind=lambda *a: None, has_duties=lambda: False,
    )  # fmt: skip
    agreement.start()
    return agreement, clock


@pytest.mark.parametrize("is_recovering", [True, False])
def test_the_log_is_kept_while_a_height_to_come_begins_from_it(is_recovering: bool):
    """Control: a height that began from the log and is decided needs it no more."""
    effects: list = []
    agreement, _ = make_agreement(effects)
    forgotten: list = []
    agreement._driver.is_recovering = is_recovering
    agreement._wal.forget = lambda: forgotten.append(1)
    effects.append(Decide(1, b"id", b"block", None))
    agreement.receive(b"peer", b"")
    assert bool(forgotten) is not is_recovering


def next_after(took: int) -> int:
    """Return when a node wants the next block, whose last one came at 5,000 and took so long."""
    effects: list = []
    agreement, clock = make_agreement(effects)
    clock.now = 5_000
    effects.append(CheckBlock(1, b"id", b"block"))
    agreement.receive(b"peer", b"")
    clock.now += took
    effects.append(Decide(1, b"id", b"block", None))
    agreement.receive(b"peer", b"")
    return agreement.next_block_ms()


@pytest.mark.parametrize("took", [30, 90, 400])
def test_the_next_block_comes_an_interval_after_the_last_began_or_a_breath_after_it_ended(took):
    assert next_after(took) == max(5_000 + INTERVAL, 5_000 + took + took // BREATH)


def test_after_an_outage_of_an_hour_nobody_rests_for_longer_than_a_heartbeat():
    hour = 3_600_000
    assert next_after(hour) == 5_000 + hour + HEARTBEAT


def test_a_block_that_was_fetched_took_no_time_here():
    effects: list = []
    agreement, clock = make_agreement(effects)
    clock.now = 5_000
    effects.append(Decide(1, b"id", b"block", None))
    agreement.receive(b"peer", b"")
    assert agreement.next_block_ms() == 5_000 + INTERVAL


def test_the_jobs_at_work_are_looked_at_once_a_block():
    effects: list = []
    agreement, clock = make_agreement(effects)
    agreement._chain.mempool.ready, looks = 0, []

    def state():
        looks.append(1)
        return SimpleNamespace(items=lambda prefix: iter(()), find=lambda key: None)

    agreement._chain.state = state
    begun = agreement.next_block_ms()
    assert begun == clock.now + 9_000
    for _ in range(5):
        agreement.next_block_ms()
    assert len(looks) == 1
    agreement._chain.height += 1
    agreement.next_block_ms()
    assert len(looks) == 2


def test_only_what_is_due_sooner_wakes_the_loop():
    agreement, clock = make_agreement([])
    agreement._chain.mempool.ready = 0
    agreement._pause = 0, 9_000  # what `_find_pause` says of the jobs at height 0

    async def scenario():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agreement.run)
            await trio.testing.wait_all_tasks_blocked()
            agreement.poke()
            assert not agreement._wake.is_set(), "nothing has changed"
            clock.now += INTERVAL
            agreement._chain.mempool.ready = 1
            agreement.poke()
            assert agreement._wake.is_set()

            def begin(now):
                agreement._driver.round = 0
                nursery.cancel_scope.cancel()

            agreement._driver.demand = begin

    trio.run(scenario)


def test_an_error_while_looking_when_the_next_block_is_due_ends_the_node():
    agreement, _ = make_agreement([])

    def fail():
        raise StoreCorrupted("the disk is gone")

    agreement._has_duties, agreement._chain.mempool.ready = fail, 0
    agreement.poke()
    with pytest.raises(StoreCorrupted):
        trio.run(agreement.run)
