"""Networks as PyTorch exports them give its outputs, and a row alone gives the bits it gives in
company. The files and what they should say are made by networks/make.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlchain.ml_runtime import Oracle
from mlchain.ml_runtime.importers.onnx import from_onnx
from mlchain.ml_runtime.model import Model, is_row_by_row

pytest.importorskip("onnx")

HERE = Path(__file__).parent / "networks"
NAMES = sorted(path.stem for path in HERE.glob("*.onnx"))


def load(name: str) -> tuple[Model, np.ndarray, np.ndarray]:
    """Return the model, its rows and the outputs of PyTorch."""
    expected = np.load(HERE / "expected.npz")
    model = from_onnx((HERE / f"{name}.onnx").read_bytes())
    x, y = (expected[f"{name}.{part}"] for part in "xy")
    return model, x.reshape(len(x), -1), y.reshape(len(y), -1)


def test_there_are_networks():
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_those_of_the_library_up_to_its_rounding(name):
    model, x, y = load(name)
    scores = model.scores(x)
    assert np.abs(scores - y).max() < 1e-6
    assert np.array_equal(scores.argmax(1), y.argmax(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_alone_gives_the_bits_it_gives_in_company(name):
    model, x, _ = load(name)
    assert is_row_by_row(model.check())
    together = model.scores(x)
    for row, score in zip(x[:6], together, strict=False):
        assert np.array_equal(model.scores(row[None])[0], score)
    assert np.array_equal(model.scores(x[::-1]), together[::-1])


@pytest.mark.parametrize("name", ["pools", "decoder"])
def test_the_oracle_predicts_the_same(name):
    model, x, _ = load(name)
    assert np.array_equal(model.scores(x[:1], Oracle()), model.scores(x[:1]))


def test_a_model_file_gives_the_same_as_the_import():
    model, x, _ = load("cnn")
    assert np.array_equal(Model.decode(model.encode()).scores(x), model.scores(x))


def test_two_exporters_write_one_network_and_get_one_program():
    old, x, _ = load("decoder")
    new, _, _ = load("decoder_new")
    assert len(old.predict.nodes) == len(new.predict.nodes)
    assert np.array_equal(old.scores(x), old.scores(x))
