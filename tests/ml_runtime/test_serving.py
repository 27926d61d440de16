"""Rows as text and answers as bytes: the same on every machine, or refused."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain.errors import CodecError
from mlchain.ml_runtime import Dataset, Model, serving
from mlchain.ml_runtime.importers.writer import Writer
from mlchain.ml_runtime.model import Predictor
from mlchain.ml_runtime.serving import (
    Outcome,
    answer_rows,
    decode_rows,
    describe_model,
    encode_rows,
    measure,
    rows_limit,
)


def make(answer: str = "class", classes: tuple[str, ...] = ("no", "yes")) -> Predictor:
    w = Writer(2, 8)
    scores = w.linear(w.x, np.array([[-1.0, 1.0], [-1.0, 1.0]]), 0.0)
    return Predictor(w.model(scores, answer, classes if answer == "class" else ()))


@pytest.mark.parametrize("text", [b"[1,2.5]", b"[[1,2.5]]", b" [ 1 , 2.5e0 ] "])
def test_a_row_is_a_list_of_numbers_alone_or_in_a_list(text):
    assert decode_rows(text, 2).tolist() == [[1.0, 2.5]]


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"[[]]", b"[1]", b"[1,2,3]", b"[[1,2],[3]]", b"[1,[2]]", b"{}", b"null",
        b"[1e999,2]", b"[NaN,1]", b'["1",2]', b"[true,1]", b"[1" + b"0" * 400 + b",2]", b"\xff",
        b"[" * 100_000, b"[1,2] x",
    ],
)  # fmt: skip
def test_everything_else_is_malformed_and_answered_so(text):
    with pytest.raises(CodecError):
        decode_rows(text, 2)
    assert answer_rows(make(), text, 1) == (Outcome.INVALID_ROWS, b"")


def test_rows_read_back_to_the_same_bits_and_fit_their_bound():
    rows = np.random.default_rng(0).normal(0, 1, (50, 2)) * 10.0 ** np.arange(-25, 25)[:, None]
    text = encode_rows(rows)
    assert decode_rows(text, 2).tobytes() == rows.tobytes()
    assert len(text) <= rows_limit(50, 2)


def test_an_answer_has_an_entry_for_each_row_and_the_number_of_rows_has_to_be_what_was_paid_for():
    outcome, data = answer_rows(make(), b"[[1,1],[-1,-1]]", 2)
    assert (outcome, json.loads(data)) == (Outcome.ANSWERED, ["yes", "no"])
    assert answer_rows(make(), b"[[1,1],[-1,-1]]", 1)[0] == Outcome.INVALID_ROWS
    outcome, data = answer_rows(make("value"), b"[0.1,0.2]", 1)
    assert json.loads(data) == make("value").answers([[0.1, 0.2]]).tolist()


def test_a_model_is_measured_on_the_last_rows_of_a_dataset_in_its_own_units():
    x = np.array([[1.0, 1.0], [-2.0, -2.0], [3.0, 1.0], [-1.0, -8.0]])
    dataset = Dataset.from_arrays(x, [0, 0, 1, 1], classes=2)
    metrics = measure(make(), dataset, 3)
    assert (metrics.correct, metrics.total) == (2, 3)


def test_one_row_of_a_model_that_needs_its_batch_costs_the_batch():
    model = make().model
    assert isinstance(model, Model)
    assert describe_model(model).gas == -(-model.check().gas // 8)


@pytest.mark.parametrize(
    "text", [b"[" + b"[]," * 300_000 + b"[]]", b"[" * 900_000, b"1," * 450_000]
)
def test_what_is_not_rows_by_its_commas_takes_no_memory(text):
    tracemalloc.start()
    with pytest.raises(CodecError):
        decode_rows(text, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_rows_take_little_more_memory_than_their_numbers(monkeypatch):
    monkeypatch.setattr(serving, "PIECE_BYTES", 1 << 12)
    text = b"[" + b",".join([b"[1,2,3,4]"] * 50_000) + b"]"
    tracemalloc.start()
    rows = decode_rows(text, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.shape == (50_000, 4) and (rows == [1, 2, 3, 4]).all()
    assert peak < 1.5 * rows.nbytes, "as objects they take four times that"


@given(
    st.lists(
        st.sampled_from([b"[", b"]", b"[1,2]", b",", b"1", b" ", b"-0", b"{}", b'","']), max_size=9
    ),
    st.integers(1, 5),
)
def test_a_text_read_in_pieces_is_the_text_read_at_once(tokens, size):
    text = b"[" + b"".join(tokens) + b"]"
    read = []
    for piece in (size, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(serving, "PIECE_BYTES", piece)
            try:
                read.append(decode_rows(text, 2).tolist())
            except CodecError:
                read.append(None)
    try:
        whole = json.loads(text)
        whole = whole if whole and isinstance(whole[0], list) else [whole]
        good = all(len(row) == 2 and all(type(n) is int for n in row) for row in whole)
    except (ValueError, TypeError):
        good = False
    assert read[0] == read[1] == ([list(map(float, row)) for row in whole] if good else None)
