"""Estimators that fit in this process: scikit-learn's own checks, then what is ours."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_iris, make_blobs
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from mlchain import ml_runtime as ml
from mlchain.client.scaling import standardise
from mlchain.errors import ConfigError, Trap
from mlchain.ml_runtime.raw import on_raw_features
from mlchain.sklearn import ChainClassifier, ChainKMeans, ChainRegressor
from mlchain.vm.families.jobs import fixed_order, fixed_seed

QUICK = {"epochs": 60, "learning_rate": 0.05, "chunk": 20}
CHECKS = {"ChainClassifier": 54, "ChainRegressor": 51, "ChainKMeans": 50}
"""Checks of scikit-learn 1.9 for such an estimator; of one more it wants SCIPY_ARRAY_API set."""


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.mark.filterwarnings("ignore")  # checks warn on purpose
@pytest.mark.parametrize(
    "estimator",
    [ChainClassifier(**QUICK), ChainRegressor(**QUICK), ChainKMeans(chunk=20)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_every_check_of_scikit_learn_passes(estimator):
    results = check_estimator(estimator, on_fail="raise", on_skip=None)
    count = Counter(result["status"] for result in results)
    assert count == {"passed": CHECKS[type(estimator).__name__], "skipped": 1}
    skipped = [result["check_name"] for result in results if result["status"] == "skipped"]
    assert skipped == ["check_array_api_input"]


def test_an_estimator_that_forgets_what_it_saw_does_not_pass():
    """The control: the checks see a mistake."""

    class Forgetful(ChainClassifier):
        def fit(self, X, y):
            super().fit(X, y)
            del self.n_features_in_
            return self

    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        check_estimator(Forgetful(epochs=1), on_skip=None)


# ---- exactness --------------------------------------------------------------------------------


def test_equal_seeds_give_equal_bytes_and_another_seed_does_not(iris):
    digests = [ChainClassifier(**QUICK, random_state=s).fit(*iris).state_digest_ for s in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_the_model_is_the_one_of_the_runtime_by_hand(iris):
    x, y = iris
    mine = ChainClassifier(epochs=10, random_state=7).fit(x, y)
    scaled = standardise(x).apply(x)
    data = ml.Dataset.from_arrays(scaled, y, classes=3, shared_scale=False)
    plan = ml.make_plan("softmax", features=4, classes=3, batch=150, optimiser="adam", rate=0.02)
    task = ml.Task(plan.encode(), steps=10, chunk=1, train_rows=150, test_rows=0)
    seed = fixed_order(fixed_seed(7))
    end = ml.run(task, data, seed)
    assert mine.state_digest_ == end.digest().hex()
    by_hand = ml.Trainer(task, data, seed).model(end)
    assert np.array_equal(mine.model_.scores(x), by_hand.scores(scaled))


@pytest.mark.parametrize("model", ["mlp", "softmax", "svm", "gaussian_nb"])
def test_scaling_inside_the_model_changes_no_bit_of_its_scores(model):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 5)) * [1, 10, 1e-3, 1e6, 1] + [0, 5, 1, -1e6, 0]
    scaling = standardise(x)
    data = ml.Dataset.from_arrays(scaling.apply(x), np.arange(60) % 2, classes=2)
    plan = ml.make_plan(model, features=5, classes=2, batch=20)
    task = ml.Task(plan.encode(), steps=5, chunk=5, train_rows=60, test_rows=0)
    inner = ml.Trainer(task, data, bytes(32)).model(ml.run(task, data, bytes(32)))
    outer = on_raw_features(inner, scaling.shift, scaling.divisor)
    far = np.concatenate([x, x * 1000])  # saturates at the ends of the grid, alike
    assert np.array_equal(outer.scores(far), inner.scores(scaling.apply(far)))
    with pytest.raises(ConfigError, match="already"):
        on_raw_features(outer, scaling.shift, scaling.divisor)


def test_a_column_that_never_changes_becomes_zero_and_huge_numbers_do_not_overflow():
    x = np.array([[0.1, 1e300, 3.0], [0.1, -1e300, 4.0], [0.1, 5e299, 5.0]])
    scaled = standardise(x).apply(x)
    assert np.array_equal(scaled[:, 0], np.zeros(3))
    assert np.allclose(scaled[:, 1:].mean(axis=0), 0) and np.allclose(scaled[:, 1:].std(axis=0), 1)


def test_a_batch_of_one_row_gets_the_bits_it_gets_among_others(iris):
    x, y = iris
    fitted = ChainClassifier(model="mlp", epochs=5).fit(x, y)
    assert np.array_equal(fitted.model_.scores(x[9:10]), fitted.model_.scores(x)[9:10])


# ---- habits of scikit-learn -------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [np.array(["b", "a", "c"]), np.array([2.0, -1.0, 7.0]), np.array([7, -3, 9]), [True, False, 2]],
    ids=["text", "reals", "integers", "objects"],
)
def test_labels_of_any_kind_come_back(iris, labels):
    x, y = iris
    labels = np.asarray(labels)
    fitted = ChainClassifier(**QUICK, random_state=0).fit(x, labels[y])
    assert fitted.score(x, labels[y]) > 0.9
    assert fitted.predict(x).dtype == labels.dtype


@pytest.mark.parametrize(
    "model",
    ["softmax", "logistic", "svm", "mlp", "perceptron", "nearest_centroid", "gaussian_nb"],
)
def test_every_model_for_labels_learns_iris(iris, model):
    fitted = ChainClassifier(model, epochs=30, learning_rate=0.1, random_state=0).fit(*iris)
    assert fitted.score(*iris) > 0.8
    has_probabilities = model in ("softmax", "logistic", "mlp", "gaussian_nb")
    assert hasattr(fitted, "predict_proba") == has_probabilities
    if has_probabilities:
        shares = fitted.predict_proba(iris[0])
        assert np.allclose(shares.sum(axis=1), 1)
        assert np.array_equal(shares.argmax(axis=1), fitted.predict(iris[0]))


def test_counts_are_not_scaled_and_must_not_be_negative():
    x = np.random.default_rng(0).poisson([[1, 5, 9]] * 40 + [[9, 5, 1]] * 40).astype(float)
    y = np.repeat([0, 1], 40)
    assert ChainClassifier("multinomial_nb").fit(x, y).score(x, y) > 0.9
    with pytest.raises(ValueError, match="Negative values"):
        ChainClassifier("multinomial_nb").fit(-x, y)


def test_ridge_is_ridge():
    x, y = load_diabetes(return_X_y=True)
    mine = ChainRegressor("ridge", alpha=1e-3).fit(x, y)
    theirs = make_pipeline(StandardScaler(), Ridge(alpha=1e-3)).fit(x, y)
    assert np.abs(mine.predict(x) - theirs.predict(x)).max() < 0.1, "targets go from 25 to 346"
    assert ChainRegressor(epochs=100, learning_rate=0.05).fit(x, y).score(x, y) > 0.5


def test_groups_are_those_of_k_means():
    x, _ = make_blobs(300, centers=4, cluster_std=0.4, random_state=1)
    mine = ChainKMeans(4, random_state=0).fit(x)
    theirs = KMeans(4, n_init=5, random_state=0).fit(x)
    assert mine.inertia_ == pytest.approx(theirs.inertia_, rel=1e-3)
    nearest = np.linalg.norm(mine.cluster_centers_[:, None] - theirs.cluster_centers_, axis=2)
    assert nearest.min(axis=1).max() < 0.05
    away = np.linalg.norm(x[:, None] - mine.cluster_centers_, axis=2)
    assert np.allclose(mine.transform(x), away, atol=0.02)
    assert np.array_equal(mine.labels_, mine.predict(x))
    with pytest.raises(ValueError, match="n_samples=3 should be at least n_clusters=4"):
        ChainKMeans(4).fit(x[:3])


def test_pipeline_search_clone_and_pickle(iris):
    x, y = iris
    grid = {"epochs": [1, 60], "learning_rate": [0.05]}
    found = GridSearchCV(ChainClassifier(random_state=1), grid, cv=3, n_jobs=1).fit(x, y)
    assert found.best_params_["epochs"] == 60 and found.best_score_ > 0.9
    pipeline = make_pipeline(StandardScaler(), ChainClassifier(**QUICK, random_state=0))
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.9
    best = clone(found.best_estimator_).fit(x, y)
    again = pickle.loads(pickle.dumps(best))
    assert again.state_digest_ == best.state_digest_ == found.best_estimator_.state_digest_
    assert np.array_equal(again.predict(x), best.predict(x))


def test_names_of_features_are_kept_and_compared():
    frame, y = load_iris(return_X_y=True, as_frame=True)
    fitted = ChainClassifier(**QUICK).fit(frame, y)
    assert list(fitted.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[frame.columns[::-1]])


def test_the_file_of_a_fitted_model_needs_nothing_beside_it(iris, tmp_path):
    x, y = iris
    fitted = ChainClassifier(**QUICK).fit(x, np.array(["a", "b", "c"])[y])
    fitted.model_.save(tmp_path / "iris.model")
    assert np.array_equal(ml.load_model(tmp_path / "iris.model").answers(x), fitted.predict(x))


@pytest.mark.parametrize("labels", [[1, 2, 1, 2], [1.0, 2.0, 1.0, 2.0], ["u", "v", "u", "v"]])
def test_onnx_reads_raw_features_too(tmp_path, labels):
    onnxruntime = pytest.importorskip("onnxruntime")
    x = np.array([[1.0, 200.0], [2.0, 100.0], [1.1, 210.0], [2.2, 90.0]])
    fitted = ChainClassifier(**QUICK).fit(x, labels)
    data = fitted.to_onnx(tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == data
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    label, scores = session.run(None, {"x": x.astype(np.float32)})
    assert np.allclose(scores, fitted.model_.scores(x), atol=1e-2)
    assert list(label) == labels


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"segments": 99, "epochs": 1}, "segments=99"),
        ({"model": "forest"}, "no 'forest'"),
        ({"model": "linear"}, "does not learn a class"),
        ({"options": {"depth": 3}}, "no option 'depth'"),
    ],
)
def test_parameters_that_cannot_be_are_named(iris, wrong, said):
    with pytest.raises(ConfigError, match=said):
        ChainClassifier(**wrong).fit(*iris)


def test_training_that_diverges_says_what_to_change(iris):
    with pytest.raises(Trap, match="left the exact range at step") as caught:
        ChainClassifier("mlp", optimiser="sgd", learning_rate=1e300).fit(*iris)
    assert "learning_rate" in caught.value.hint
