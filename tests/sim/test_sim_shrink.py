"""Shrinking gives a smaller run that breaks the same promise."""

from __future__ import annotations

from mlchain.sim.run import run
from mlchain.sim.scenario import Scenario
from mlchain.sim.shrink import shrink


def test_a_failing_run_becomes_smaller_and_fails_alike():
    big = Scenario(3, nodes=7, mutant="small-quorum")
    small = shrink(big)
    assert (small.nodes, small.heights) == (4, 1)
    one, other = run(big), run(small)
    assert one.violation.split(":")[0] == other.violation.split(":")[0]
    assert other.events < one.events


def test_a_run_that_keeps_its_promises_is_left_alone():
    assert shrink(Scenario(3)) == Scenario(3)
