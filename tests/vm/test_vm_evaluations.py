"""Evaluations on chain: what a quorum finds goes into the registry, and nothing else does."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.asking import MODEL, Scene
from vm.world import CONTENT, FEATURES, PARAMS, ROWS

from mlchain import codec
from mlchain.errors import CodecError
from mlchain.ml_runtime import Metrics
from mlchain.ml_runtime.metrics import decode_metrics
from mlchain.vm import answering
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.models import MODEL_FILES
from mlchain.vm.families.predictions import PredictionState

TESTED = 10
GOOD = Metrics("accuracy", 8, TESTED, 0)
RIGHT = codec.encode(GOOD)
NAN, INFINITE, NEGATIVE = 0x7FF8 << 48, 0x7FF0 << 48, -(0x4010 << 48)
BROKEN = {
    "garbage": b"garbage",
    "nothing": b"",
    "of other rows": codec.encode(replace(GOOD, total=TESTED + 1)),
    "of no rows": codec.encode(replace(GOOD, total=0)),
    "more right than rows": codec.encode(replace(GOOD, correct=TESTED + 1)),
    "both kinds": codec.encode(replace(GOOD, error=1)),
    "not a number": codec.encode(Metrics("mean squared error", 0, TESTED, NAN)),
    "infinite": codec.encode(Metrics("mean squared error", 0, TESTED, INFINITE)),
    "negative": codec.encode(Metrics("mean squared error", 0, TESTED, NEGATIVE)),
}


class Judged(Scene):
    """Beside the model a dataset is held by all."""

    def __init__(self) -> None:
        super().__init__()
        receipt = self.world.do("alice", RegisterData(CONTENT, 1_000, ROWS, FEATURES))
        assert receipt.code == "ok"
        self.world.hold()

    def evaluated(self) -> bytes:
        return self.asked(inline=b"", data=CONTENT, rows=TESTED, is_evaluation=True)

    def scores(self) -> list[Metrics]:
        file = MODEL_FILES.get(self.world.state(), MODEL)
        return [found.metrics for found in file.evaluations]


def test_the_score_that_a_quorum_found_stands_in_the_registry():
    scene = Judged()
    found = scene.answer(scene.evaluated(), scene.all_say(RIGHT))
    assert (found.state, found.value) == (PredictionState.ANSWERED, RIGHT)
    assert scene.scores() == [GOOD]


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
def test_what_is_no_score_is_no_answer_and_the_chain_goes_on(value):
    scene = Judged()
    request = scene.evaluated()
    found = scene.answer(request, scene.all_say(value))
    assert (found.state, found.told) == (PredictionState.CLOSED, ())
    scene.world.blocks(PARAMS.dispute_window)
    assert scene.scores() == []
    assert {f.kind for f in scene.world.faults()} == {"answer-withheld"}, (
        "bound, and showed nothing"
    )


def test_control_without_looking_at_it_a_score_that_is_none_halts_the_chain(monkeypatch):
    monkeypatch.setattr(answering, "decode_metrics", lambda data, rows: GOOD)
    scene = Judged()
    with pytest.raises(CodecError):
        scene.answer(scene.evaluated(), scene.all_say(b"garbage"))


def test_one_that_says_nonsense_changes_nothing_and_pays_for_showing_nothing():
    scene = Judged()
    request = scene.evaluated()
    found = scene.answer(request, scene.all_say(RIGHT, validator_0=b"garbage"))
    scene.world.block()
    found = scene.at(request)
    assert (found.state, found.value) == (PredictionState.ANSWERED, RIGHT)
    scene.world.blocks(PARAMS.dispute_window)
    assert [f.kind for f in scene.world.faults()] == ["answer-withheld"]


def test_a_score_for_the_registry_is_found_by_all_never_by_a_few_that_were_drawn():
    asked = {"inline": b"", "data": CONTENT, "rows": TESTED, "is_evaluation": True, "fee": 10**4}
    receipt = Judged().ask(tier="drawn:1", **asked)
    assert (receipt.code, "all compute it" in receipt.message) == ("invalid-transaction", True)


def test_a_score_is_read_back_only_if_it_is_a_number_of_these_rows():
    error = replace(GOOD, name="mean squared error", correct=0, error=0x3FF0 << 48)
    for metrics in (GOOD, error):
        assert decode_metrics(codec.encode(metrics), TESTED) == metrics
    for value in BROKEN.values():
        with pytest.raises(CodecError):
            decode_metrics(value, TESTED)
