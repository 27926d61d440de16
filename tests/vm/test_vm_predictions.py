"""Predictions on chain: who computes, who is paid, who pays, and what does not help to cheat."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from vm.asking import ASK, MODEL, RIGHT, WRONG, Scene
from vm.world import BOND, CONTENT, PARAMS, World

from mlchain.consensus.work.answers import (
    Answer,
    Commitment,
    answer_digest,
    commitment_hash,
)
from mlchain.crypto import digest
from mlchain.ledger.transaction import transaction_id
from mlchain.ledger.unixfs import cid_of
from mlchain.ml_runtime.serving import Outcome
from mlchain.vm import answering, predicting
from mlchain.vm.families import predictions
from mlchain.vm.families.models import RegisterModel
from mlchain.vm.families.predictions import (
    ENDED,
    OPEN,
    ROWS,
    PredictionState,
)

LIAR = "validator-0"


def test_all_that_answered_alike_share_fee_and_tip_and_the_answer_is_recorded():
    scene = Scene()
    request = scene.asked()
    assert scene.at(request).state == PredictionState.OPEN
    assert ROWS.get(scene.world.state(), request).data == b"[1,2,3,4]"
    found = scene.answer(request, scene.all_say(RIGHT))
    assert (found.state, found.outcome) == (PredictionState.ANSWERED, Outcome.ANSWERED)
    assert (found.content, found.value, found.escrow) == (cid_of(RIGHT), RIGHT, 0)
    assert found.data == cid_of(b"[1,2,3,4]")
    assert [scene.world.balance(name) for name in scene.world.validators] == [35] * 4
    assert list(OPEN.items(scene.world.state())) == []
    assert [key for key, _ in ENDED.items(scene.world.state())] == [(found.height, request)]
    assert ROWS.get(scene.world.state(), request) is None


def test_a_liar_is_slashed_and_unpaid_while_the_answer_stays_right():
    scene = Scene()
    request = scene.asked()
    found = scene.answer(request, scene.all_say(RIGHT, validator_0=WRONG))
    assert found.value == RIGHT
    assert scene.world.balance(LIAR) == 0
    assert scene.world.bond(LIAR) == BOND - PARAMS.slash_lazy
    (fault,) = scene.world.faults()
    assert (fault.kind, fault.job) == ("wrong-answer", request)
    assert [scene.world.balance(f"validator-{i}") for i in (1, 2, 3)] == [140 // 3] * 3


def test_control_without_the_comparison_a_liar_is_paid_like_the_others(monkeypatch):
    monkeypatch.setattr(predicting, "is_right", lambda prediction, told: True)
    scene = Scene()
    scene.answer(scene.asked(), scene.all_say(RIGHT, validator_0=WRONG))
    assert scene.world.balance(LIAR) == 35 and scene.world.faults() == []


def test_more_than_f_liars_cannot_certify_an_answer_and_the_fee_comes_back():
    scene = Scene()
    before = scene.world.balance("alice")
    request = scene.asked()
    lies = scene.all_say(RIGHT, validator_0=WRONG, validator_1=WRONG)
    found = scene.answer(request, lies)
    assert (found.state, found.content, found.escrow) == (PredictionState.FAILED, b"", 0)
    receipt_gas = before - scene.world.balance("alice")
    assert receipt_gas == 0
    assert [scene.world.balance(name) for name in scene.world.validators] == [0] * 4


def test_control_where_a_plurality_suffices_liars_certify(monkeypatch):
    """As where five answer and the most frequent wins."""

    def most_frequent(block, prediction):
        counted = [(t.outcome, t.content) for t in prediction.told]
        return max(
            prediction.told, key=lambda t: counted.count((t.outcome, t.content)), default=None
        )

    monkeypatch.setattr(predicting, "_agreed", most_frequent)
    scene = Scene(5)
    lies = scene.all_say(WRONG, validator_0=RIGHT, validator_1=b"[3]", validator_2=b"[4]")
    assert scene.answer(scene.asked(), lies).value == WRONG


def test_whoever_was_not_bound_cannot_answer_once_answers_are_to_be_seen():
    """The copier: it waits for the others' answers and repeats one."""
    scene = Scene()
    request = scene.asked()
    honest = {name: RIGHT for name in scene.world.validators if name != LIAR}
    scene.bind(request, honest)
    scene.world.block()  # a quorum is bound: one block for the rest, then it is closed
    assert scene.at(request).state == PredictionState.CLOSED
    scene.tell(request, dict.fromkeys(honest, RIGHT))
    scene.bind(request, {LIAR: RIGHT})
    scene.tell(request, {LIAR: RIGHT})
    assert scene.at(request).state == PredictionState.ANSWERED
    assert scene.world.balance(LIAR) == 0


def test_anothers_commitment_is_of_no_use_for_it_names_its_maker():
    scene = Scene()
    request = scene.asked()
    made = {name: RIGHT for name in scene.world.validators if name != LIAR}
    victim = next(iter(made))
    stolen = commitment_hash(
        request, scene.world.key(victim).public, scene.salt(victim), answer_digest(0, cid_of(RIGHT))
    )
    scene.world.say(LIAR, "commitments", Commitment(request, stolen))
    scene.bind(request, made)
    copied = Answer(request, scene.salt(victim), 0, cid_of(RIGHT), RIGHT)
    scene.world.say(LIAR, "answers", copied)
    scene.tell(request, made)
    scene.world.blocks(PARAMS.dispute_window + 2)
    assert scene.world.balance(LIAR) == 0
    assert [fault.kind for fault in scene.world.faults()] == ["answer-withheld"]


def test_control_a_commitment_without_its_maker_is_copied_and_paid(monkeypatch):
    monkeypatch.setattr(
        answering,
        "commitment_hash",
        lambda request, validator, salt, answer: digest("nobody", request, salt, answer),
    )
    scene = Scene()
    request = scene.asked()
    victim = "validator-1"
    hashed = digest("nobody", request, scene.salt(victim), answer_digest(0, cid_of(RIGHT)))
    for name in scene.world.validators:
        scene.world.say(name, "commitments", Commitment(request, hashed))
    scene.world.blocks(2)
    for name in scene.world.validators:
        answer = Answer(request, scene.salt(victim), 0, cid_of(RIGHT), RIGHT)
        scene.world.say(name, "answers", answer)
    scene.world.blocks(2)
    assert scene.world.balance(LIAR) == 35


def test_an_answer_that_comes_late_is_judged_all_the_same_and_hiding_it_costs():
    scene = Scene()
    request = scene.asked()
    scene.bind(request, scene.all_say(RIGHT, validator_0=WRONG))
    scene.tell(request, {name: RIGHT for name in scene.world.validators if name != LIAR})
    scene.world.block()
    assert scene.at(request).state == PredictionState.ANSWERED
    scene.tell(request, {LIAR: WRONG})
    assert [fault.kind for fault in scene.world.faults()] == ["wrong-answer"]
    assert scene.world.balance(LIAR) == 0


def test_an_answer_stands_once_a_quorum_has_shown_it_and_who_shows_it_a_block_later_is_paid_too():
    scene, late = Scene(), "validator-3"
    request = scene.asked()
    scene.bind(request, scene.all_say(RIGHT))
    for name in scene.world.validators:
        if name != late:
            scene.world.say(
                name, "answers", Answer(request, scene.salt(name), 0, cid_of(RIGHT), RIGHT)
            )
    scene.world.block()
    scene.world.say(late, "answers", Answer(request, scene.salt(late), 0, cid_of(RIGHT), RIGHT))
    scene.world.block()
    found = scene.at(request)
    assert (found.state, found.escrow) == (PredictionState.ANSWERED, 140)
    scene.world.block()
    assert [scene.world.balance(name) for name in scene.world.validators] == [35] * 4
    assert scene.at(request).escrow == 0 and list(OPEN.items(scene.world.state())) == []


def test_silence_of_everybody_gives_the_fee_back():
    scene = Scene()
    request = scene.asked()
    paid = scene.world.balance("alice")
    scene.world.blocks(PARAMS.dispute_window)
    assert scene.at(request).state == PredictionState.FAILED
    assert scene.world.balance("alice") == paid + 140


ABSENT = b"\x01\x55\x12\x20" + digest("rows-that-nobody-has")


def test_rows_that_nobody_can_get_are_paid_for_and_hold_up_none_that_are_at_hand(monkeypatch):
    monkeypatch.setattr(predicting, "MAX_OPEN", 2)
    scene = Scene()
    before = scene.world.balance("alice")
    absent = [scene.asked(inline=b"", data=ABSENT, tip=1_000, fee=500) for _ in range(2)]
    assert scene.at(scene.asked(tip=0)).state == PredictionState.OPEN, "at once"
    scene.world.blocks(PARAMS.dispute_window)
    assert {scene.at(request).state for request in absent} == {PredictionState.FAILED}
    scene.world.blocks(PARAMS.dispute_window)
    assert before - scene.world.balance("alice") == 2 * 1_500


def test_control_in_one_line_such_requests_take_every_place(monkeypatch):
    monkeypatch.setattr(predicting, "MAX_OPEN", 2)
    for module in (predictions, predicting):
        monkeypatch.setattr(module, "find_lane", lambda *about: predictions.Lane.AT_HAND)
    scene = Scene()
    for _ in range(2):
        scene.asked(inline=b"", data=ABSENT, tip=1_000, fee=500)
    assert scene.at(scene.asked(tip=0)).state == PredictionState.QUEUED


def test_rows_that_a_third_could_get_were_there_and_the_fee_comes_back():
    scene = Scene()
    before = scene.world.balance("alice")
    request = scene.asked(inline=b"", data=ABSENT, fee=500)
    scene.bind(request, {"validator-1": RIGHT, "validator-2": RIGHT})
    scene.world.blocks(PARAMS.dispute_window)
    assert scene.at(request).state == PredictionState.FAILED
    assert scene.world.balance("alice") == before


def test_nobody_binds_itself_where_the_record_is_full(monkeypatch):
    monkeypatch.setattr(answering, "MAX_VALIDATORS", 3)
    scene = Scene()
    request = scene.asked()
    scene.bind(request, scene.all_say(RIGHT))
    assert len(scene.at(request).bound) == 3


def test_too_many_scores_are_refused_for_what_they_are(monkeypatch):
    monkeypatch.setattr(predictions, "MAX_SCORES", 1)
    assert "1 rows are 2 scores, at most 1" in Scene().ask().message


@pytest.mark.parametrize(
    "changes, code, words",
    [
        ({"model": CONTENT}, "unknown-model", "not registered"),
        ({"inline": b"[1,2,3]"}, "invalid-rows", "rows of 4 numbers"),
        ({"inline": b"[1,2,3,NaN]"}, "invalid-rows", "rows of 4 numbers"),
        ({"inline": b"[[1,2,3,4],[1,2,3,4]]"}, "invalid-rows", "2 rows, not 1"),
        ({"inline": b""}, "invalid-rows", "give rows"),
        ({"data": CONTENT}, "invalid-rows", "give rows"),
        ({"is_evaluation": True, "inline": b"", "data": CONTENT}, "invalid-rows", "dataset"),
        ({"fee": 3}, "invalid-transaction", "fee 3 is below"),
        ({"inline": b"", "data": CONTENT, "rows": 100_000, "fee": 1}, "invalid-transaction", "fee"),
    ],
)
def test_what_cannot_be_asked_has_its_code_on_chain(changes, code, words):
    receipt = Scene().ask(**changes)
    assert receipt.code == code
    assert words in receipt.message


def test_a_model_that_no_quorum_holds_is_unknown_still():
    world = World()
    world.do("alice", RegisterModel("m", MODEL, 99, 4, 2, "class", 5_000, b"", b"", b"", "MIT"))
    assert world.do("alice", ASK).code == "unknown-model"


def test_a_committee_answers_alone_when_it_agrees():
    scene = Scene()
    request = scene.asked(tier="drawn:2")
    assert scene.at(request).state == PredictionState.DRAWING
    scene.world.block()
    drawn = [scene.world.names[key] for key in scene.at(request).committee]
    assert len(drawn) == 2
    found = scene.answer(request, scene.all_say(RIGHT))  # the others are not listened to
    assert found.state == PredictionState.ANSWERED
    assert sorted(t.validator for t in found.told) == sorted(found.committee)
    assert {name for name in scene.world.validators if scene.world.balance(name)} == set(drawn)


def test_a_committee_that_disagrees_is_judged_by_all():
    scene = Scene()
    request = scene.asked(tier="drawn:2")
    scene.world.block()
    first, second = (scene.world.names[key] for key in scene.at(request).committee)
    scene.answer(request, {first: RIGHT, second: WRONG})
    assert scene.at(request).state == PredictionState.OPEN
    rest = {name: RIGHT for name in scene.world.validators if name not in (first, second)}
    found = scene.answer(request, rest)
    assert found.value == RIGHT
    assert [scene.world.balance(name) for name in (first, second, *rest)] == [140, 0, 0, 0]
    assert scene.world.faults() == [], "one found it alone; the others had seen two answers"


def test_whoever_lies_in_a_committee_is_slashed_if_more_than_f_found_it_out_alone():
    scene = Scene()
    request = scene.asked(tier="drawn:3", fee=1_000)
    scene.world.block()
    first, second, liar = (scene.world.names[key] for key in scene.at(request).committee)
    scene.answer(request, {first: RIGHT, second: RIGHT, liar: WRONG})
    (last,) = (name for name in scene.world.validators if name not in (first, second, liar))
    found = scene.answer(request, {last: RIGHT})
    assert found.value == RIGHT
    assert scene.world.bond(liar) == BOND - PARAMS.slash_lazy
    assert [fault.kind for fault in scene.world.faults()] == ["wrong-answer"]


def copied(scene: Scene) -> tuple[str, list[str]]:
    """Two were drawn and disagree; the others compute nothing and repeat the wrong answer."""
    request = scene.asked(tier="drawn:2")
    scene.world.block()
    honest, liar = (scene.world.names[key] for key in scene.at(request).committee)
    scene.answer(request, {honest: RIGHT, liar: WRONG})
    copiers = [name for name in scene.world.validators if name not in (honest, liar)]
    scene.answer(request, dict.fromkeys(copiers, WRONG))
    return honest, copiers


def test_whoever_repeats_an_answer_that_was_shown_is_not_paid_and_can_convict_nobody():
    scene = Scene()
    honest, copiers = copied(scene)
    assert [scene.world.balance(name) for name in copiers] == [0, 0]
    assert (scene.world.bond(honest), scene.world.faults()) == (BOND, [])


def test_control_where_what_was_seen_counts_copiers_are_paid_and_an_honest_one_is_slashed(
    monkeypatch,
):
    def told(*values: Any) -> predictions.Told:
        return predictions.Told(*values[:-1], True)

    monkeypatch.setattr(answering, "Told", told)
    scene = Scene()
    honest, copiers = copied(scene)
    assert all(scene.world.balance(name) > 0 for name in copiers)
    assert scene.world.bond(honest) == BOND - PARAMS.slash_lazy


def test_after_its_window_a_request_is_closed_for_good():
    scene = Scene()
    request = scene.asked()
    scene.bind(request, scene.all_say(RIGHT, validator_0=WRONG))
    scene.tell(request, {name: RIGHT for name in scene.world.validators if name != LIAR})
    scene.world.blocks(PARAMS.dispute_window + 1)
    assert scene.at(request).bound == () and list(OPEN.items(scene.world.state())) == []
    scene.tell(request, {LIAR: WRONG})
    assert [fault.kind for fault in scene.world.faults()] == ["answer-withheld"], "punished once"


def late_one(scene: Scene) -> tuple[bytes, str]:
    """A liar and three of five honest validators were bound; the last was a moment too slow."""
    request, slow = scene.asked(), "validator-4"
    said = scene.all_say(RIGHT, validator_0=WRONG)
    del said[slow]
    scene.bind(request, said)
    scene.world.block()
    assert scene.at(request).state == PredictionState.CLOSED
    scene.tell(request, said)
    return request, slow


def test_a_liar_among_the_first_cannot_hinder_an_honest_quorum_one_of_which_is_slow():
    scene = Scene(5)
    request, slow = late_one(scene)
    found = scene.answer(request, {slow: RIGHT})
    assert (found.state, found.value) == (PredictionState.ANSWERED, RIGHT)
    assert scene.world.balance(slow) == scene.world.balance(LIAR) == 0
    assert scene.world.balance("validator-1") == 140 // 3, "who found it before any was to be seen"
    assert [fault.kind for fault in scene.world.faults()] == ["wrong-answer"]


def test_control_without_a_second_round_such_a_request_fails(monkeypatch):
    monkeypatch.setattr(predicting, "_ask_the_rest", predicting._give_up)
    scene = Scene(5)
    request, _ = late_one(scene)
    assert scene.at(request).state == PredictionState.FAILED


def test_whoever_is_bound_again_and_again_and_says_nothing_pays_each_time():
    scene = Scene(5)
    request, slow = late_one(scene)
    for _ in range(2):
        scene.bind(request, {slow: RIGHT})
        scene.world.blocks(PARAMS.dispute_window + 1)
    assert [fault.kind for fault in scene.world.faults()] == ["answer-withheld"] * 2
    scene.world.blocks(PARAMS.dispute_window)
    assert scene.at(request).state == PredictionState.FAILED


def waits_for(scene: Scene, blocks: int) -> bool:
    """Whether a request without tip is served although richer ones come in every block."""
    poor = scene.asked(tip=0)
    for _ in range(blocks):
        scene.asked(tip=5_000)
        if scene.at(poor).state != PredictionState.QUEUED:
            return True
    return False


def busy(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One request at a time, each of which nobody answers: a place a window."""
    monkeypatch.setattr(predicting, "MAX_OPEN", 1)
    scene = Scene()
    scene.asked()
    return scene


def test_age_weighs_against_tips_so_that_nobody_starves(monkeypatch):
    assert waits_for(busy(monkeypatch), 40)


def test_control_without_age_whoever_pays_less_is_never_served(monkeypatch):
    monkeypatch.setattr(predictions, "AGE_CREDITS", 0)
    assert not waits_for(busy(monkeypatch), 40)


def test_a_higher_tip_is_served_first(monkeypatch):
    scene = busy(monkeypatch)
    poor, rich = (
        scene.world.transaction("alice", replace(ASK, tip=tip), ahead=place)
        for place, tip in enumerate((1, 900))
    )
    scene.world.block(poor, rich)
    scene.world.blocks(PARAMS.dispute_window)
    states = [scene.at(transaction_id(data)).state for data in (poor, rich)]
    assert states == [PredictionState.QUEUED, PredictionState.OPEN]
