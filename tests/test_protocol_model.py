"""The protocol's models hold, and each mutant of theirs fails, over every state there is."""

from __future__ import annotations

import pytest

from models.check import RUNS, Run, check, missing_tool, read

QUICK = ("agreement/NO_LOCK", "work", "work/SLOW", "work/NO_VETO")
"""A model takes some seconds to compile: these stand for the others in the fast tests."""

needs_spin = pytest.mark.skipif(bool(missing_tool()), reason=f"{missing_tool()} is not installed")


@needs_spin
@pytest.mark.parametrize(
    "run",
    [pytest.param(r, id=r.name, marks=[pytest.mark.slow][r.name in QUICK :]) for r in RUNS],
)
def test_every_state_of_the_model_was_looked_at_and_it_came_out_as_the_page_says(run: Run):
    found = check(run)
    assert found.verdict == run.expected
    assert found.states > 0


def test_a_search_that_was_cut_short_proves_nothing():
    whole = "State-vector 36 byte, depth reached 574, errors: 0\n 169789 states, stored\n"
    assert read(whole) == ("holds", 169789, 574, 0.0)
    for cut in ("Warning: Search not completed\n", "error: max search depth too small\n"):
        assert read(cut + whole).verdict == "incomplete"
    assert read("pan: reached -DMEMLIM bound\n").verdict == "incomplete"


def test_every_mutant_that_holds_has_a_run_in_which_it_fails():
    """A rule that nothing needs would be a rule too many."""
    for switch in {s for run in RUNS for s in run.switches if run.expected == "holds"}:
        if switch.startswith(("NO_", "FEW_")):
            assert any(switch in r.switches for r in RUNS if r.expected == "fails"), switch
