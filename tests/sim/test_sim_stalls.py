"""Every stall has an explanation; the control is the same stall with nobody to blame."""

from __future__ import annotations

import pytest

from mlchain.ledger.validators import Validator, ValidatorSet
from mlchain.sim import cluster
from mlchain.sim.application import ToyKey
from mlchain.sim.cluster import TIMEOUTS
from mlchain.sim.network import Weather
from mlchain.sim.run import run
from mlchain.sim.scenario import Outcome, Scenario
from mlchain.sim.stalls import Stall, Stalls

FOUR = ValidatorSet(tuple(Validator(ToyKey(str(i)).public, 1) for i in range(4)))
STORM = Weather(2_000, 0, 0, 0, 3, 0, 0)
"""Nothing is lost in it; partitions and silence are told apart."""


def stalls(correct: tuple[int, ...] = (0, 1, 2), **weather: int) -> Stalls:
    changed = {name: getattr(STORM, name) for name in Weather.__slots__} | weather
    return Stalls(FOUR, correct, Weather(**changed), TIMEOUTS, patience_ms=2_500)


def stall(watch: Stalls, now_ms: int, round_: int = 0) -> Stall:
    found = watch.on_progress(0, 1, round_, now_ms)
    assert found is not None
    return found


def test_who_decides_soon_does_not_stall() -> None:
    watch = stalls()
    assert watch.on_progress(0, 1, 0, 400) is None
    assert watch.on_progress(0, 2, 0, 850) is None


def test_a_quorum_that_is_down_is_named_until_it_is_up() -> None:
    watch = stalls()
    watch.on_down(2, 100, 3_000)
    found = stall(watch, 3_200)
    assert (found.cause, found.who, found.until_ms) == ("down", (2,), 3_000)
    assert str(found) == "place 0 stood at height 1 for 3200 ms from 0 ms: down 2 until 3000 ms"


def test_who_is_behind_a_partition_is_named_and_who_is_silenced() -> None:
    watch = stalls()
    watch.on_move(0, [0, 1, 0, 0])
    assert (stall(watch, 2_100).cause, watch.found[0].who) == ("partition", (1,))
    watch = stalls()
    watch.on_mute(1, 10, 1_900)
    assert (stall(watch, 2_000).cause, watch.found[0].who) == ("silenced", (1,))


def test_a_storm_that_loses_messages_explains_until_the_calm_and_no_longer() -> None:
    assert stall(stalls(loss=30), 2_100).cause == "weather"
    assert stall(stalls(loss=30), 9_000).cause == ""
    assert stall(stalls(loss=0), 9_000).cause == ""


def test_liars_may_waste_their_rounds_and_no_more() -> None:
    watch = stalls()
    assert stall(watch, watch.most_ms(0)).cause == "liars"
    assert stall(stalls(), watch.most_ms(0) + 1).cause == ""
    late = stall(stalls(), watch.most_ms(0) + 1, round_=3)
    assert late.cause == "liars", "later rounds wait more"


def test_without_a_fault_and_a_liar_rounds_may_pass_but_not_for_ever() -> None:
    watch = stalls((0, 1, 2, 3))
    assert stall(watch, watch.most_ms(0)).cause == "rounds"
    assert stall(stalls((0, 1, 2, 3)), watch.most_ms(0) + 1).cause == ""
    outcome = run(Scenario(25314))
    assert (outcome.adversary, outcome.violation) == ("none", "") and "rounds" in outcome.stalls


def test_who_is_up_at_a_time_that_was_not_known_is_down_until_then() -> None:
    watch = stalls()
    watch.on_down(2, 100)
    assert watch.look(0, 1, 0, 9_000).cause == "down"
    watch.on_up(2, 3_000)
    assert stall(watch, 3_200).until_ms == 3_000


def test_who_rests_does_not_stall_and_its_rounds_are_remembered() -> None:
    watch = stalls()
    for place in watch.correct:
        assert watch.on_progress(place, 1, 0, 100, rest_ms=5_000) is None
    assert watch.look(0, 2, 4, 5_500) is None
    found = watch.on_progress(0, 2, 0, 5_100 + watch.most_ms(4))
    assert found is not None and (found.from_ms, found.cause) == (5_100, "liars")


def test_who_answers_nobody_explains_why_one_is_behind_and_not_why_all_stand() -> None:
    for is_behind, cause in ((True, "silenced"), (False, "")):
        watch = stalls()
        watch.on_dumb(4, 3_000, 9_000)
        if is_behind:
            watch.on_progress(1, 1, 0, 100)
        assert stall(watch, 9_100).cause == cause


def test_an_objection_explains_within_patience_and_no_longer() -> None:
    watch = stalls()
    watch.on_objection(1, 2_400)
    found = stall(watch, 2_400 + watch.most_ms(0))
    assert (found.cause, found.who, found.until_ms) == ("patience", (1,), 2_400)
    watch = stalls()
    watch.on_objection(1, 2_600)
    assert stall(watch, 2_400 + watch.most_ms(0)).cause == ""


def longest() -> Outcome:
    outcome = run(Scenario(52))
    assert outcome.stalls and not outcome.violation
    return outcome


def test_a_run_tells_what_its_stalls_came_of() -> None:
    assert set(longest().stalls) <= {"down", "partition", "silenced", "weather", "liars", "rounds"}


def test_control_who_does_not_know_of_the_faults_cannot_explain_the_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longest()

    class Blind(Stalls):
        def _fault(self, place: int, at_ms: int) -> tuple[str, tuple[int, ...]]:
            return "", ()

    monkeypatch.setattr(cluster, "Stalls", Blind)
    assert "no fault after 0 ms explains it" in run(Scenario(52)).violation


def test_a_bug_that_stops_the_chain_is_explained_by_no_fault() -> None:
    violation = run(Scenario(7, mutant="no-valid-value")).violation
    assert violation.startswith("liveness: place ") and violation.endswith("explains it")
