"""Whole nodes over many boundaries of generations of hash chains, in invented time."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace

from mlchain.sim.scenario import Scenario
from mlchain.sim.work import cast
from mlchain.sim.work.world import World
from mlchain.vm.families.jobs import JOBS, SEGMENTS, JobState, SegmentState
from mlchain.vm.families.renewal import find_chains, generations

LENGTH, EPOCH = 14, 4
UNTIL = 100
"""By then the custody keys of the first segments are due, and were looked at."""


class LongWorld(World):
    """Begins shortly before chains end, and goes on for some blocks when the jobs have ended."""

    async def _submit_all(self) -> None:
        await trio.sleep(8)  # invented seconds, a block each
        await super()._submit_all()

    def _is_over(self) -> bool:
        return super()._is_over() and min(self._heights()) >= UNTIL


@pytest.fixture
def short_chains(monkeypatch):
    """Chains that end after a few blocks, so that keys are due generations later."""
    params = replace(cast.PARAMS, ticket_heights=LENGTH, epoch_blocks=EPOCH, heartbeat_ms=1_000)
    monkeypatch.setattr(cast, "PARAMS", params)
    for made in (cast.ticket_chain, cast.make_genesis):
        made.cache_clear()
    yield
    for made in (cast.ticket_chain, cast.make_genesis):
        made.cache_clear()


def run(seed: int, calm: bool = True) -> LongWorld:
    world = LongWorld(Scenario(seed, 4, "none", world="work", calm=calm, orders=2))
    outcome = world.run()
    assert not outcome.violation, outcome.violation
    return world


def test_slices_audits_and_the_beacon_go_on_over_the_boundaries(short_chains, monkeypatch):
    seen = []
    real = LongWorld._check_end

    def look(world: LongWorld) -> None:
        real(world)
        node = world.honest("validator")[0].node
        state, key = node.chain.state(), node.keys.validator.public
        hard = [s for _, s in SEGMENTS.items(state) if s.state == SegmentState.HARD]
        gens = {find_chains(state, key, s.commit_height, LENGTH)[0] for s in hard}
        audited = [p.node.auditor.custodian.audited for p in world.honest("validator")]
        rows = list(generations(state, key))
        seen.append((gens, audited, rows, [job.state for _, job in JOBS.items(state)]))

    monkeypatch.setattr(LongWorld, "_check_end", look)
    run(1)
    ((gens, audited, rows, states),) = seen
    assert states and set(states) <= {JobState.SETTLED, JobState.TRAPPED}
    assert len(gens) > 1, "segments on both sides of a boundary"
    assert sum(audited) > 0, "keys of ended generations were shown and audited"
    assert [chains.start for _, chains in rows][:6] == [LENGTH * i for i in range(6)]
    assert all(chains.beacon.height == chains.start + LENGTH for _, chains in rows[:5])
    assert all(chains.custody.height == chains.start + LENGTH for _, chains in rows[:2])


@pytest.mark.slow
def test_in_bad_weather_too(short_chains):
    run(2, calm=False)
