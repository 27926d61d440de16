"""Models as ONNX files: onnxruntime says what we say, and what was written can be read again."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_factory import SEED
from sklearn import datasets
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlchain.errors import ConfigError
from mlchain.ml_runtime import Dataset, Model, Task, Trainer, make_plan
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.importers import from_onnx, from_sklearn, to_onnx
from mlchain.ml_runtime.tensor import finite

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

NETWORKS = Path(__file__).parent / "networks"
TRAINED: dict[str, dict[str, Any]] = {
    "linear": {},
    "softmax": {},
    "mlp": {"hidden": (12, 6), "activation": "tanh"},
    "cnn": {"channels": (4, 6), "hidden": (12,)},
    "transformer": {"vocabulary": 16, "width": 8, "heads": 2, "layers": 1},
    "vit": {"width": 8, "heads": 2, "layers": 1},
}
"""Models of this package, and their options."""
SETS: dict[str, Any] = {
    "forest": lambda: RandomForestClassifier(7, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=3, random_state=0),
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
}


@cache
def trained(name: str) -> tuple[Model, np.ndarray]:
    """Return a model after a few steps, and rows to ask it about."""
    x, y = datasets.load_digits(return_X_y=True)
    classes = 0 if name == "linear" else 10
    target = y[:300].astype(float)[:, None] if name == "linear" else y[:300]
    if name == "transformer":
        x = np.random.default_rng(1).integers(0, 9, (300, 6)).astype(float)
        target = x[:, 0].astype(int)
    data = Dataset.from_arrays(x[:300], target, classes=classes, tokens=name == "transformer")
    sizes = {"classes": 10} if classes else {"outputs": 1}
    plan = make_plan(name, features=x.shape[1], batch=16, **sizes, **TRAINED[name])
    trainer = Trainer(Task(plan.encode(), 12, 12, 240, 60), data, SEED)
    return trainer.model(trainer.run_chunk(0, trainer.initial_state())), x[:100]


def said(data: bytes, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of onnxruntime by name."""
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    kind = np.float64 if session.get_inputs()[0].type == "tensor(double)" else np.float32
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x.astype(kind)}), strict=True))


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_model_says_the_same_in_onnxruntime(name):
    model, x = trained(name)
    scores, found = model.scores(x), said(to_onnx(model), x)
    other = found["values" if name == "linear" else "scores"]
    assert np.abs(scores - other).max() < 2e-3 * max(np.abs(scores).max(), 1)
    if name != "linear":
        clear = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0] > 4e-3
        assert clear.mean() > 0.9
        assert np.array_equal(found["label"][clear], model.answers(x)[clear])


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("name", ["iris", "breast_cancer"])
def test_an_imported_model_says_the_same_in_onnxruntime(name, kind):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = x.astype(np.float32).astype(np.float64)
    model = from_sklearn(SETS[kind]().fit(x[::2], y[::2]))
    assert np.array_equal(said(to_onnx(model), x)["label"], model.answers(x))


@pytest.mark.parametrize("name", [n for n in TRAINED if n != "linear"])
def test_what_was_written_is_read_again_with_the_same_labels(name):
    model, x = trained(name)
    again = from_onnx(to_onnx(model))
    scores = model.scores(x)
    clear = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0] > 4e-3
    assert np.array_equal(again.answers(x)[clear], model.answers(x)[clear])


@pytest.mark.parametrize("name", sorted(p.stem for p in NETWORKS.glob("*.onnx")))
def test_a_network_goes_there_and_back(name):
    model = from_onnx((NETWORKS / f"{name}.onnx").read_bytes(), answer="class")
    x = np.load(NETWORKS / "expected.npz")[f"{name}.x"]
    x = x.reshape(len(x), -1).astype(np.float64)
    data = to_onnx(model)
    assert np.abs(said(data, x)["scores"] - model.scores(x)).max() < 1e-5
    assert np.array_equal(from_onnx(data).answers(x), model.answers(x))


@pytest.mark.parametrize("labels", [("no", "yes"), (3, 7)])
def test_labels_come_back(labels):
    x, y = datasets.load_breast_cancer(return_X_y=True)
    named = np.array(labels)[y]
    model = from_sklearn(make_pipeline(StandardScaler(), LogisticRegression()).fit(x, named))
    data = to_onnx(model, "double")
    assert np.array_equal(said(data, x)["label"], model.answers(x))
    again = from_onnx(data)
    assert again.classes == labels
    assert np.array_equal(again.answers(x), model.answers(x))


def test_rows_that_depend_on_each_other_are_not_exported():
    b = Builder()
    x = b.input(finite(4, 3))
    shared = b.emit("quantise", x, bits=16)
    program = b.program([b.emit("scale", shared, factor=1.0)])
    with pytest.raises(ConfigError, match="depends on others"):
        to_onnx(Model(program, (), (), 3, "value", ()))


def test_an_op_without_a_counterpart_is_named_with_those_that_have_one():
    b = Builder()
    x = b.input(finite(4, 3))
    program = b.program([b.emit("spread", b.emit("sum_all", b.emit("quantise", x, bits=9)), x)])
    with pytest.raises(ConfigError, match="sum_all: not exported") as caught:
        to_onnx(Model(program, (), (), 3, "value", ()))
    assert "matmul" in caught.value.hint


def test_elements_are_float_or_double():
    model, _ = trained("softmax")
    with pytest.raises(ConfigError, match="'half'"):
        to_onnx(model, "half")
