"""Model files: nothing in them is believed, and what they answer is what their labels say."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mlchain.errors import CodecError, ConfigError, NotFound, RejectedProgram
from mlchain.ml_runtime import Model, Predictor, load_model
from mlchain.ml_runtime.importers.writer import Writer
from mlchain.ml_runtime.model import MAGIC, is_row_by_row

ROWS = np.array([[2.0, -1.0], [-3.0, 0.5], [0.0, 0.0]])


def make(columns: int = 2, classes=("a", "b"), answer: str = "class") -> Model:
    w = Writer(2, 4)
    weights = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, 2.0]])[:, :columns]
    return w.model(w.linear(w.x, weights, 0.0), answer, classes)


def altered(model: Model, **fields: object) -> Model:
    return msgspec.structs.replace(model, **fields)


def test_the_first_largest_column_names_the_class():
    assert make().answers(ROWS).tolist() == ["a", "b", "a"]
    assert make(classes=()).answers(ROWS).tolist() == [0, 1, 0]
    assert make(3, (), "cluster").answers(ROWS).tolist() == [0, 1, 0]


def test_one_column_of_two_labels_is_the_second_above_0():
    assert make(1).answers(ROWS).tolist() == ["b", "a", "a"]


def test_values_of_one_column_are_a_vector_and_features_are_not():
    assert make(1, (), "value").answers(ROWS).tolist() == [2, -3, 0]
    assert make(1, (), "features").answers(ROWS).tolist() == [[2], [-3], [0]]


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": ("a",)},
        {"classes": ("a", "b", "c")},
        {"answer": "value"},
        {"answer": "cluster"},
        {"outputs": 1},
        {"exponents": (0, 0)},
        {"parameters": ()},
    ],
)
def test_parts_that_do_not_fit_together_are_refused(fields):
    with pytest.raises(RejectedProgram, match="model: "):
        altered(make(), **fields).check()


def test_weights_off_their_grid_are_refused():
    model = make()
    raw = np.frombuffer(model.parameters[0]).copy()
    raw[0] += 2.0**-40
    with pytest.raises(RejectedProgram, match=r"not in R\(26\)"):
        altered(model, parameters=(raw.tobytes(),)).scores(ROWS)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "m"
    for data in (b"", b"hello", MAGIC, make().encode() + b"\0", make().encode()[len(MAGIC) :]):
        path.write_bytes(data)
        with pytest.raises(CodecError, match="m: "):
            load_model(path)
    with pytest.raises(NotFound):
        load_model(tmp_path / "none")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    make().save(tmp_path / "m")
    monkeypatch.setattr("mlchain.ml_runtime.model.MAX_MODEL_BYTES", 20)
    with pytest.raises(ConfigError, match="more than 20 bytes"):
        load_model(tmp_path / "m")


def test_finite_numbers_whose_sum_is_not_are_not_mistaken_for_missing_ones():
    w = Writer(2, 4)
    model = w.model(w.emit("scale", w.x.register, factor=0.5), "features")
    assert np.isfinite(model.answers(np.full((8, 2), 1.7e308))).all()


def test_rows_that_are_not_independent_keep_their_batch():
    w = Writer(2, 4)
    rounded = w.emit("quantise", w.x.register, bits=8)
    model = w.model(w.emit("scale", rounded, factor=1.0), "features")
    assert not is_row_by_row(model.check())
    in_fours = model.scores(np.concatenate([ROWS, ROWS]))
    assert np.array_equal(in_fours[:3], model.scores(np.concatenate([ROWS, ROWS[:1]]))[:3])


def test_a_predictor_may_be_asked_again_for_any_number_of_rows():
    predictor, model = Predictor(make()), make()
    many = np.random.default_rng(0).normal(size=(3000, 2))
    expected = model.scores(many)
    for count in (1, 2, 3, 700, 1024, 1025, 3000, 5):
        assert np.array_equal(predictor.scores(many[:count]), expected[:count])
