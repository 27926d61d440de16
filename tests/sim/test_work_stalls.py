"""A spell without a block of whole nodes has an explanation; the control has nobody to blame."""

from __future__ import annotations

import pytest

from mlchain.sim.run import run
from mlchain.sim.scenario import Scenario
from mlchain.sim.stalls import Stalls
from mlchain.sim.work import waits

SCENARIO = Scenario(5001, world="work")
"""A liar, partitions and crashes."""


def test_a_run_of_whole_nodes_tells_what_its_stalls_came_of() -> None:
    outcome = run(SCENARIO)
    assert not outcome.violation
    assert "partition" in outcome.stalls and "" not in outcome.stalls


def test_control_who_does_not_know_of_the_faults_cannot_explain_the_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Blind(Stalls):
        def _fault(self, place: int, at_ms: int) -> tuple[str, tuple[int, ...]]:
            return "", ()

    monkeypatch.setattr(waits, "Stalls", Blind)
    violation = run(SCENARIO).violation
    assert violation.startswith("liveness: place ") and violation.endswith("explains it")
