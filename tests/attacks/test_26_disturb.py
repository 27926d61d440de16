"""Row 26: equivocate, stall, lie about what one has seen, cut the network. Up to f validators do it
with all their skill, in bad weather; the controls are the same seeds without one rule of agreement.
"""

from __future__ import annotations

import pytest

from mlchain.sim.adversary import ADVERSARIES
from mlchain.sim.run import run
from mlchain.sim.scenario import Scenario

WITHOUT = {
    "no-lock": (31, "agreement"),
    "small-quorum": (0, "certificate"),
    "first-vote-only": (14, "liveness"),
    "own-gossip-only": (9, "liveness"),
}
"""A rule switched off: a seed that shows what it is for, and the promise that breaks."""


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_f_of_them_break_no_promise(adversary):
    for seed in range(3):
        outcome = run(Scenario(seed, adversary=adversary))
        assert not outcome.violation, f"seed {seed}: {outcome.violation}"


@pytest.mark.parametrize("adversary", [name for name, kind in ADVERSARIES.items() if kind.is_found])
def test_who_contradicts_itself_is_convicted(adversary):
    assert run(Scenario(1, adversary=adversary)).convicted == 1


@pytest.mark.parametrize("rule", WITHOUT)
def test_control_without_the_rule_the_promise_breaks(rule):
    seed, promise = WITHOUT[rule]
    assert run(Scenario(seed, mutant=rule)).violation.startswith(promise)
