"""scikit-learn's models by way of skl2onnx: every label is that of onnxruntime, on every row."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn import datasets
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from mlchain.ml_runtime.importers.onnx import from_onnx

pytest.importorskip("onnx")
skl2onnx = pytest.importorskip("skl2onnx")
runtime = pytest.importorskip("onnxruntime")

SETS = ("iris", "wine", "breast_cancer", "digits")
CLASSIFIERS = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "logistic, not scaled": lambda: LogisticRegression(max_iter=50),
    "linear svc": lambda: LinearSVC(random_state=0),
    "sgd": lambda: make_pipeline(StandardScaler(), SGDClassifier(random_state=0)),
    "ridge": RidgeClassifier,
    "perceptron": lambda: make_pipeline(MinMaxScaler(), Perceptron(random_state=0)),
    "pca": lambda: make_pipeline(StandardScaler(), PCA(3), LogisticRegression()),
    "normaliser": lambda: make_pipeline(Normalizer(), LogisticRegression()),
    "mlp relu": lambda: make_pipeline(StandardScaler(), MLPClassifier((12,), random_state=0)),
    "mlp tanh": lambda: make_pipeline(
        StandardScaler(), MLPClassifier((9, 5), activation="tanh", random_state=0)
    ),
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "forest": lambda: RandomForestClassifier(12, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(10, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=4, random_state=0),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=4),
    "bagging": lambda: BaggingClassifier(n_estimators=4, random_state=0),
    "gaussian": GaussianNB,
    "multinomial": MultinomialNB,
    "bernoulli": BernoulliNB,
    "svc": SVC,
    "svc, polynomial": lambda: make_pipeline(StandardScaler(), SVC(kernel="poly")),
    "k means": lambda: KMeans(3, n_init=1, random_state=0),
}
REGRESSORS = {
    "linear": LinearRegression,
    "forest": lambda: RandomForestRegressor(5, random_state=0),
    "boosting": lambda: GradientBoostingRegressor(n_estimators=8, random_state=0),
    "mlp": lambda: make_pipeline(StandardScaler(), MLPRegressor(random_state=0)),
    "svr": lambda: make_pipeline(StandardScaler(), SVR()),
    "polynomial": lambda: make_pipeline(PolynomialFeatures(2), LinearRegression()),
}


@cache
def rows(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows and labels to fit, and rows to predict: all of them, and some between."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = x.astype(np.float32)
    noise = np.random.default_rng(0).normal(size=x.shape) * x.std(0) * 0.3
    return x[::3], y[::3], np.concatenate([x, np.abs(x + noise)]).astype(np.float32)


def exported(model: Any, x: np.ndarray, y: np.ndarray) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not all of them converge in so few steps
        model.fit(x, y)
        data: bytes = skl2onnx.to_onnx(model, x[:1]).SerializeToString()
    return data


def said(data: bytes, x: np.ndarray) -> np.ndarray:
    """Return the first output of onnxruntime."""
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0].reshape(len(x), -1)[:, 0]


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("name", SETS)
def test_every_label_is_that_of_onnxruntime(name, kind):
    x, y, more = rows(name)
    data = exported(CLASSIFIERS[kind](), x, y)
    assert np.array_equal(from_onnx(data).answers(more), said(data, more))


@pytest.mark.parametrize("kind", REGRESSORS)
def test_values_are_those_of_onnxruntime_up_to_its_rounding(kind):
    x, y, more = rows("wine")
    data = exported(REGRESSORS[kind](), x, x[:, 0] * 3 + y)
    values = said(data, more)
    assert np.abs(from_onnx(data).answers(more) - values).max() < 3e-4 * np.abs(values).max()


def test_labels_may_be_text():
    x, y, more = rows("iris")
    data = exported(LogisticRegression(), x, np.array(["a", "b", "c"])[y])
    model = from_onnx(data)
    assert model.classes == ("a", "b", "c")
    assert np.array_equal(model.answers(more), said(data, more))


def test_another_output_may_be_asked_for():
    x, y, more = rows("iris")
    model = LogisticRegression().fit(x, y)
    made = skl2onnx.to_onnx(model, x[:1], options={"zipmap": False})
    chances = from_onnx(made.SerializeToString(), result="probabilities")
    assert chances.answer == "value"
    assert np.abs(chances.answers(more) - model.predict_proba(more)).max() < 1e-6


def test_votes_that_are_equal_go_to_the_first_class():
    """Votes of trees are binary32 in the file: without rounding their sums are not quite equal."""
    x = np.arange(30, dtype=np.float32)[:, None]
    data = exported(RandomForestClassifier(30, random_state=0), x, np.tile([0, 1], 15))
    model = from_onnx(data)
    answers, halves = model.answers(x), np.abs(model.scores(x)[:, 0]) == 0
    assert halves.any()
    assert not answers[halves].any()
