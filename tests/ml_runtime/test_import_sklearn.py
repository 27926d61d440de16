"""Imported scikit-learn models: the labels are scikit-learn's, the bits are everybody's."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
from sklearn.cluster import DBSCAN, KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, NuSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mlchain.errors import ConfigError
from mlchain.ml_runtime import Model, NumpyBackend, Oracle, Predictor
from mlchain.ml_runtime.importers import from_sklearn
from mlchain.ml_runtime.importers.sklearn import FINAL, TRANSFORMERS
from mlchain.ml_runtime.model import with_batch
from mlchain.ml_runtime.tensor import Array

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:self.within_class_std_dev_"),
]


def scaled(*steps: Any) -> Any:
    return make_pipeline(StandardScaler(), *steps)


def net(kind: Any, activation: str, *hidden: int) -> Any:
    return scaled(
        kind(hidden_layer_sizes=hidden, activation=activation, max_iter=60, random_state=0)
    )


CLASSIFIERS = {
    "logistic": LogisticRegression(max_iter=20),
    "logistic, scaled": scaled(LogisticRegression()),
    "logistic, principal components": scaled(PCA(4), LogisticRegression()),
    "logistic, whitened": scaled(PCA(4, whiten=True), LogisticRegression()),
    "ridge": make_pipeline(MinMaxScaler(), RidgeClassifier()),
    "linear svc": scaled(LinearSVC()),
    "svc, linear": scaled(SVC(kernel="linear")),
    "svc, raw": SVC(),
    "svc, scaled": scaled(SVC(C=10)),
    "svc, nu": scaled(NuSVC(nu=0.1)),
    "sgd": make_pipeline(MaxAbsScaler(), SGDClassifier(random_state=0)),
    "perceptron": make_pipeline(RobustScaler(), Perceptron()),
    "mlp relu": net(MLPClassifier, "relu", 20, 10),
    "mlp tanh": net(MLPClassifier, "tanh", 20),
    "mlp logistic": net(MLPClassifier, "logistic", 20),
    "mlp identity": net(MLPClassifier, "identity", 5),
    "k means": scaled(KMeans(5, n_init=1, random_state=0)),
    "k means, batches": MiniBatchKMeans(5, n_init=1, random_state=0),
    "nearest centroid": scaled(NearestCentroid()),
    "gaussian": GaussianNB(),
    "multinomial": MultinomialNB(),
    "complement": ComplementNB(),
    "bernoulli": BernoulliNB(binarize=1.5),
    "bernoulli, of 0 and 1": BernoulliNB(binarize=None),
    "tree": DecisionTreeClassifier(random_state=0),
    "tree, scaled": scaled(DecisionTreeClassifier(random_state=0)),
    "forest": RandomForestClassifier(12, random_state=0),
    "forest, shallow": RandomForestClassifier(12, max_depth=3, random_state=0),
    "extra trees": ExtraTreesClassifier(12, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=5, random_state=0),
    "boosting from zero": GradientBoostingClassifier(n_estimators=5, init="zero", random_state=0),
    "histograms": HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=7),
}
REGRESSORS = {
    "linear values": LinearRegression(),
    "ridge, scaled values": scaled(Ridge()),
    "lasso values": Lasso(0.1),
    "elastic net values": scaled(ElasticNet(0.01)),
    "svr values": scaled(SVR(C=100)),
    "svr, linear values": scaled(SVR(kernel="linear", C=10)),
    "svr, nu values": scaled(NuSVR(C=100)),
    "sgd values": scaled(SGDRegressor(random_state=0)),
    "mlp values": net(MLPRegressor, "relu", 20, 10),
    "mlp tanh values": net(MLPRegressor, "tanh", 10),
    "tree values": DecisionTreeRegressor(random_state=0),
    "forest values": RandomForestRegressor(12, random_state=0),
    "extra trees values": ExtraTreesRegressor(12, random_state=0),
    "boosting values": GradientBoostingRegressor(n_estimators=5, random_state=0),
    "boosting the median values": GradientBoostingRegressor(
        n_estimators=5, loss="absolute_error", random_state=0
    ),
    "histograms values": HistGradientBoostingRegressor(max_iter=5),
}
SETS = ("iris", "wine", "breast_cancer", "digits")
every_classifier = pytest.mark.parametrize("name", CLASSIFIERS)
every_regressor = pytest.mark.parametrize("name", REGRESSORS)


@cache
def rows_of(source: str) -> tuple[Array, Array]:
    return getattr(sklearn.datasets, f"load_{source}")(return_X_y=True)


def around(x: Array) -> Array:
    """The rows themselves, rows near them, and rows anywhere among them."""
    r = np.random.default_rng(0)
    near = [x + r.normal(size=x.shape) * x.std(0) * 0.3 for _ in range(4)]
    anywhere = r.uniform(x.min(0), x.max(0), size=(2000, x.shape[1]))
    return np.concatenate([x, *near, anywhere])


def fitted(estimator: Any, x: Array, y: Array) -> Any:
    estimator = sklearn.base.clone(estimator)
    return estimator.fit(x, y)


def prepared(name: str, x: Array) -> Array:
    """What the family takes: counts are not negative, and some features are 0 or 1."""
    if "0 and 1" in name:
        return (x > np.median(x, axis=0)).astype(np.float64)
    return np.abs(x) if name in ("multinomial", "complement") else x


@cache
def small(name: str) -> tuple[Model, Array]:
    """A model of few rows and features, and rows to ask it."""
    x, y = rows_of("wine" if name in CLASSIFIERS else "diabetes")
    x, estimator = prepared(name, x[::3, :5]), (CLASSIFIERS | REGRESSORS)[name]
    return from_sklearn(fitted(estimator, x, y[::3])), prepared(name, around(x)[::97])


@every_classifier
@pytest.mark.parametrize("source", SETS)
def test_every_label_is_scikit_learn_s(name, source):
    x, y = rows_of(source)
    estimator = fitted(CLASSIFIERS[name], prepared(name, x)[::3], y[::3])
    rows = prepared(name, around(x))
    answers = from_sklearn(estimator).answers(rows)
    assert np.array_equal(answers, estimator.predict(rows))


@every_regressor
def test_values_are_scikit_learn_s_to_a_millionth_of_the_largest(name):
    x, y = rows_of("diabetes")
    x = x * np.logspace(-3, 3, 10)  # features in units of their own
    estimator = fitted(REGRESSORS[name], x, y)
    expected = estimator.predict(around(x))
    error = np.abs(from_sklearn(estimator).answers(around(x)) - expected).max()
    assert error <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS])
def test_a_row_alone_gives_the_bits_it_gives_in_any_batch(name):
    model, rows = small(name)
    together = model.scores(rows)
    for batch in (1, 2, 7, len(rows)):
        resized = Model(with_batch(model.predict, batch), *fields(model)[1:])
        parts = [Predictor(resized).scores(rows[i : i + batch]) for i in range(0, len(rows), batch)]
        assert np.array_equal(np.concatenate(parts), together)


def fields(model: Model) -> list[Any]:
    return [getattr(model, name) for name in model.__struct_fields__]


@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS])
def test_the_oracle_gives_the_same_bits(name):
    model, rows = small(name)
    assert np.array_equal(model.scores(rows[:4], Oracle()), model.scores(rows[:4], NumpyBackend()))


@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS])
def test_a_file_of_it_says_the_same(name):
    model, rows = small(name)
    again = Model.decode(model.encode())
    assert again == model
    assert np.array_equal(again.answers(rows), model.answers(rows))


def test_every_supported_kind_is_among_the_cases():
    used: set[str] = set()
    for estimator in (CLASSIFIERS | REGRESSORS).values():
        steps = [step for _, step in getattr(estimator, "steps", [("", estimator)])]
        used.update(type(step).__name__ for step in steps)
    assert {
        "ExtraTreeClassifier",
        "ExtraTreeRegressor",
    } | used == FINAL.keys() | TRANSFORMERS.keys()


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), MaxAbsScaler()])
def test_a_scaler_alone_transforms_to_the_last_bit(scaler):
    x, _ = rows_of("wine")
    scaler = fitted(scaler, x, None)
    model = from_sklearn(scaler)
    assert model.answer == "features"
    assert np.array_equal(model.answers(around(x)), scaler.transform(around(x)))


def test_projections_transform_to_a_millionth():
    x, _ = rows_of("digits")
    pca = fitted(PCA(6), x, None)
    difference = from_sklearn(pca).answers(x) - pca.transform(x)
    assert np.abs(difference).max() < 1e-6 * np.abs(pca.transform(x)).max()


def test_labels_may_be_text():
    x, y = rows_of("iris")
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    estimator = fitted(scaled(LogisticRegression()), x, names)
    assert np.array_equal(from_sklearn(estimator).answers(x), estimator.predict(x))


def test_labels_are_those_of_the_columns_whatever_numbers_they_are():
    x, y = rows_of("breast_cancer")
    estimator = fitted(GradientBoostingClassifier(n_estimators=3), x, y * 40.0 - 7)
    model = from_sklearn(estimator)
    assert sorted(model.classes) == [-7, 33]
    assert np.array_equal(model.answers(x), estimator.predict(x))


def test_several_values_come_as_columns():
    x, y = rows_of("diabetes")
    for estimator in (LinearRegression(), RandomForestRegressor(3, random_state=0)):
        estimator.fit(x, np.stack([y, 1 - y], axis=1))
        expected = estimator.predict(x)
        error = np.abs(from_sklearn(estimator).answers(x) - expected).max()
        assert error <= 1e-6 * np.abs(expected).max()


def test_leaf_values_on_a_grid_would_break_ties_otherwise():
    """Control: classes that scikit-learn's rounding tells apart are equal in an exact sum."""
    x, y = rows_of("iris")
    boosted = GradientBoostingClassifier(n_estimators=20, random_state=0).fit(x[::3], y[::3])
    rows = around(x)
    model, expected = from_sklearn(boosted), boosted.predict(rows)
    assert np.array_equal(model.answers(rows), expected)
    values = np.frombuffer(model.parameters[-1])
    on_grid = np.rint(values * 2.0**40) / 2.0**40
    fields_ = fields(model)
    fields_[1] = (*model.parameters[:-1], on_grid.tobytes())
    assert np.any(Model(*fields_).answers(rows) != expected)


def test_a_long_document_does_not_underflow():
    r = np.random.default_rng(1)
    words = r.poisson(np.array([[3.0], [1.0]]) * r.uniform(0.1, 1, (2, 50)), size=(40, 2, 50))
    estimator = MultinomialNB().fit(words.reshape(-1, 50), [0, 1] * 40)
    book = words.sum(axis=0) * 100
    assert from_sklearn(estimator).answers(book).tolist() == estimator.predict(book).tolist()
    assert from_sklearn(estimator).answers(book).tolist() == [0, 1]


def test_a_product_of_probabilities_would():
    """Control of the test above."""
    chances = np.full(50, 1 / 50)
    counts = np.full(50, 1000.0)
    with np.errstate(under="ignore"):
        assert np.prod(chances**counts) == 0.0


def test_a_column_without_weight_does_not_set_the_grid():
    x, y = rows_of("diabetes")
    estimator = Lasso(0.1).fit(x, y)
    assert not estimator.coef_.all()
    loud = x.copy()
    loud[:, estimator.coef_ == 0] += 1e12
    quiet, noisy = from_sklearn(estimator).answers(x), from_sklearn(estimator).answers(loud)
    assert np.array_equal(quiet, noisy)


@pytest.mark.parametrize(
    "estimator, complaint",
    [
        (DBSCAN(), "DBSCAN is not supported"),
        (make_pipeline(StandardScaler(), DBSCAN()), "DBSCAN is not supported"),
        (make_pipeline(LogisticRegression(), StandardScaler()), "only be the last step"),
        (NearestCentroid(metric="manhattan"), "metric='manhattan'"),
        (MinMaxScaler(clip=True), "clip=True"),
        (SVC(kernel="poly"), "kernel='poly'"),
        (SVC(break_ties=True), "break_ties=True"),
        (MLPRegressor(hidden_layer_sizes=(3,), loss="poisson"), "loss='poisson'"),
        (HistGradientBoostingRegressor(loss="poisson", max_iter=2), "loss='poisson'"),
        (GradientBoostingRegressor(init=LinearRegression(), n_estimators=2), "init=Linear"),
        (HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]), "categorical"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(estimator, complaint):
    x, y = np.abs(rows_of("iris")[0]), rows_of("iris")[1]
    for _, step in getattr(estimator, "steps", [("", estimator)]):
        step.fit(x, y)
    with pytest.raises(ConfigError, match=complaint):
        from_sklearn(estimator)


def test_what_is_supported_is_listed_with_a_refusal():
    with pytest.raises(ConfigError) as caught:
        from_sklearn(DBSCAN().fit(rows_of("iris")[0]))
    assert "RandomForestClassifier" in caught.value.hint


def test_what_is_not_fitted_is_refused():
    with pytest.raises(ConfigError, match="LogisticRegression is not fitted"):
        from_sklearn(LogisticRegression())


def test_a_class_of_the_user_s_own_is_refused():
    class Mine(LogisticRegression):
        def predict(self, x: Any) -> Any:
            return super().predict(x)[::-1]

    with pytest.raises(ConfigError, match="Mine is not supported"):
        from_sklearn(Mine().fit(*rows_of("iris")))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_missing_value_is_refused(value):
    model, rows = small("forest")
    bad = rows.copy()
    bad[3, 2] = value
    with pytest.raises(ConfigError, match="not finite"):
        model.answers(bad)
