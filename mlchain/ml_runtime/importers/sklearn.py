"""Fitted scikit-learn estimators as models of this runtime.

Reads fitted attributes of public estimator objects, which have to come from a Python session: no
pickle is read. Estimators are known by the name of their class, so scikit-learn itself is not
imported. Each function below writes one kind, as its `predict` or `transform` computes it; what
only turns scores into probabilities without changing their order is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlchain.errors import ConfigError
from mlchain.ml_runtime.importers.forest import Tree, emit_trees, leaf
from mlchain.ml_runtime.importers.writer import Features, Writer, sum_bits
from mlchain.ml_runtime.model import Label, Model
from mlchain.ml_runtime.tensor import Array

Transformer = Callable[[Writer, Any, Features], Features]
Final = Callable[[Writer, Any, Features], Model]
TRANSFORMERS: dict[str, Transformer] = {}
FINAL: dict[str, Final] = {}


def convert(estimator: Any, batch: int) -> Model:
    """Return an estimator or pipeline as a model; see `importers.from_sklearn`."""
    steps = _steps(estimator)
    for step in steps:
        _require_known(step)
        if not any(name.endswith("_") and not name.startswith("_") for name in vars(step)):
            raise ConfigError(f"import: {type(step).__name__} is not fitted", "call fit first")
    w = Writer(int(steps[0].n_features_in_), batch)
    x = w.x
    for step in steps[:-1]:
        x = _transformer(step)(w, step, x)
    name = type(steps[-1]).__name__
    if name in FINAL:
        return FINAL[name](w, steps[-1], x)
    return w.model(w.settle(_transformer(steps[-1])(w, steps[-1], x)), "features")


def supported() -> list[str]:
    """Return the names of all classes that can be imported."""
    return sorted({"Pipeline", *TRANSFORMERS, *FINAL})


def _steps(estimator: Any) -> list[Any]:
    """Return the estimators of a pipeline, nested ones opened, without steps that do nothing."""
    if type(estimator).__name__ != "Pipeline":
        return [estimator]
    inner = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
    return [leaf for step in inner for leaf in _steps(step)]


def _require_known(step: Any) -> None:
    kind = type(step)
    if kind.__module__.split(".")[0] != "sklearn" or kind.__name__ not in supported():
        raise ConfigError(
            f"import: {kind.__module__}.{kind.__name__} is not supported",
            "supported: " + ", ".join(supported()),
        )


def _transformer(step: Any) -> Transformer:
    name = type(step).__name__
    if name not in TRANSFORMERS:
        raise ConfigError(f"import: {name} can only be the last step of a pipeline")
    return TRANSFORMERS[name]


def _refuse(estimator: Any, condition: bool, what: str) -> None:
    if condition:
        raise ConfigError(f"import: {type(estimator).__name__} with {what} is not supported")


def _transforms(*names: str) -> Callable[[Transformer], Transformer]:
    def enter(function: Transformer) -> Transformer:
        TRANSFORMERS.update(dict.fromkeys(names, function))
        return function

    return enter


def _predicts(*names: str) -> Callable[[Final], Final]:
    def enter(function: Final) -> Final:
        FINAL.update(dict.fromkeys(names, function))
        return function

    return enter


def _labels(estimator: Any) -> list[Label]:
    """Return the classes as integers or text."""
    classes = estimator.classes_
    _refuse(estimator, isinstance(classes, list), "several outputs")
    found: list[Label] = []
    for label in np.asarray(classes).tolist():
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        _refuse(estimator, not isinstance(label, int | str), f"the class label {label!r}")
        found.append(int(label) if isinstance(label, bool) else label)
    return found


def _dense(weights: Any) -> Array:
    """Return weights as a matrix of one row per output."""
    if hasattr(weights, "toarray"):
        weights = weights.toarray()
    return np.atleast_2d(np.asarray(weights, np.float64))


# Scalers and projections


@_transforms("StandardScaler")
def _standard_scaler(w: Writer, e: Any, x: Features) -> Features:
    if e.with_mean:
        x = x.then("subtract", e.mean_)
    return x.then("divide", e.scale_) if e.with_std else x


@_transforms("MinMaxScaler")
def _min_max_scaler(w: Writer, e: Any, x: Features) -> Features:
    _refuse(e, e.clip, "clip=True")
    return x.then("multiply", e.scale_).then("add", e.min_)


@_transforms("MaxAbsScaler")
def _max_abs_scaler(w: Writer, e: Any, x: Features) -> Features:
    _refuse(e, getattr(e, "clip", False), "clip=True")
    return x.then("divide", e.scale_)


@_transforms("RobustScaler")
def _robust_scaler(w: Writer, e: Any, x: Features) -> Features:
    if e.with_centering:
        x = x.then("subtract", e.center_)
    return x.then("divide", e.scale_) if e.with_scaling else x


@_transforms("PCA")
def _pca(w: Writer, e: Any, x: Features) -> Features:
    weights = _dense(e.components_).T
    if e.whiten:
        weights = weights / np.sqrt(e.explained_variance_)
    return Features(w.linear(x.then("subtract", e.mean_), weights, 0.0))


# Linear models


@_predicts("LinearRegression", "Ridge", "Lasso", "ElasticNet", "SGDRegressor")
def _linear_value(w: Writer, e: Any, x: Features) -> Model:
    return w.model(w.linear(x, _dense(e.coef_).T, e.intercept_), "value")


@_predicts("LogisticRegression", "RidgeClassifier", "LinearSVC", "SGDClassifier", "Perceptron")
def _linear_class(w: Writer, e: Any, x: Features) -> Model:
    return w.model(w.linear(x, _dense(e.coef_).T, e.intercept_), "class", _labels(e))


# Support vectors


@_predicts("SVR", "NuSVR")
def _support_value(w: Writer, e: Any, x: Features) -> Model:
    return w.model(_kernel_sums(w, e, x, e.dual_coef_.T, e.intercept_, True), "value")


@_predicts("SVC", "NuSVC")
def _support_class(w: Writer, e: Any, x: Features) -> Model:
    classes, labels = len(e.classes_), _labels(e)
    if classes == 2:
        return w.model(_kernel_sums(w, e, x, e.dual_coef_.T, e.intercept_), "class", labels)
    _refuse(e, e.break_ties, "break_ties=True")
    # one against one: for each pair of classes the support vectors of both; most votes win
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    ends = np.concatenate([[0], np.cumsum(e.n_support_)])
    weights = np.zeros((ends[-1], len(pairs)))
    votes, certain = np.zeros((len(pairs), classes)), np.zeros(classes)
    for column, (i, j) in enumerate(pairs):
        for one, row in ((i, j - 1), (j, i)):
            of_one = slice(ends[one], ends[one + 1])
            weights[of_one, column] = e.dual_coef_[row, of_one]
        votes[column, [i, j]] = -1, 1
        certain[i] += 1
    sums = _kernel_sums(w, e, x, weights, e.intercept_)
    lost = w.emit("compare", sums, w.emit("constant", value=0.0), relation=1)  # 1 for the second
    scores = w.emit("add", w.exact_product(lost, votes), w.numbers(certain))
    return w.model(scores, "class", labels)


def _kernel_sums(
    w: Writer, e: Any, x: Features, weights: Any, bias: Any, is_fine: bool = False
) -> int:
    """Emit the kernel of x and every support vector, times the weights, plus the bias."""
    _refuse(e, e.kernel not in ("linear", "rbf"), f"kernel={e.kernel!r}")
    vectors = _dense(e.support_vectors_)
    if e.kernel == "linear":
        return w.linear(x, vectors.T @ weights, bias)
    middle, gamma = vectors.mean(axis=0), float(e._gamma)
    away = vectors - middle
    near = x.then("subtract", middle)
    register = w.settle(near)
    squares = w.emit("multiply", register, register)
    squares = w.emit("quantise_rows", squares, bits=sum_bits(len(middle)))
    length = w.emit("scale", w.emit("sum_axis", squares, axis=1), factor=gamma)
    length = w.emit("repeat", length, axis=1, count=len(vectors))
    # -gamma |x - v|^2, from its three parts
    constant = -gamma * (away * away).sum(axis=1)
    cross = w.linear(Features(register), 2 * gamma * away.T, constant, is_fine)
    kernel = w.emit("exp", w.emit("subtract", cross, length))
    return w.linear(Features(kernel), weights, bias, is_fine)


# Networks


@_predicts("MLPClassifier", "MLPRegressor")
def _perceptron(w: Writer, e: Any, x: Features) -> Model:
    emitted = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid", "identity": ""}
    name = emitted[e.activation]
    for weights, bias in zip(e.coefs_[:-1], e.intercepts_[:-1], strict=True):
        register = w.linear(x, weights, bias)
        x = Features(w.emit(name, register) if name else register)
    scores = w.linear(x, e.coefs_[-1], e.intercepts_[-1])
    _refuse(e, e.out_activation_ == "exp", "loss='poisson'")
    if e.out_activation_ == "identity":
        return w.model(scores, "value")
    _refuse(e, len(e.classes_) > 2 and e.out_activation_ == "logistic", "several labels a row")
    return w.model(scores, "class", _labels(e))


# Nearest centres


@_predicts("KMeans", "MiniBatchKMeans")
def _k_means(w: Writer, e: Any, x: Features) -> Model:
    return w.model(_nearness(w, x, e.cluster_centers_), "cluster")


@_predicts("NearestCentroid")
def _nearest_centroid(w: Writer, e: Any, x: Features) -> Model:
    _refuse(e, e.metric != "euclidean", f"metric={e.metric!r}")
    priors = getattr(e, "class_prior_", np.ones(1))  # there were none before scikit-learn 1.6
    _refuse(e, not np.allclose(priors, priors[0]), "unequal priors")
    return w.model(_nearness(w, x, e.centroids_), "class", _labels(e))


def _nearness(w: Writer, x: Features, centres: Any) -> int:
    """Emit x c - c c / 2 for every centre, taken from the middle of all: largest where nearest."""
    centres = np.asarray(centres, np.float64)
    middle = centres.mean(axis=0)
    away = centres - middle
    return w.linear(x.then("subtract", middle), away.T, -0.5 * (away * away).sum(axis=1))


# Naive Bayes


@_predicts("MultinomialNB", "ComplementNB")
def _counting_bayes(w: Writer, e: Any, x: Features) -> Model:
    prior: Any = e.class_log_prior_
    if type(e).__name__ == "ComplementNB" and len(e.classes_) > 1:
        prior = 0.0
    return w.model(w.linear(x, e.feature_log_prob_.T, prior), "class", _labels(e))


@_predicts("BernoulliNB")
def _bernoulli_bayes(w: Writer, e: Any, x: Features) -> Model:
    absent = np.log(1 - np.exp(e.feature_log_prob_))
    weights, bias = (e.feature_log_prob_ - absent).T, e.class_log_prior_ + absent.sum(axis=1)
    if e.binarize is None:
        return w.model(w.linear(x, weights, bias), "class", _labels(e))
    limit = w.emit("constant", value=float(e.binarize))
    below = w.emit("compare", w.settle(x), limit, relation=1)  # 1 where x is not above the limit
    product = w.exact_product(below, -weights)
    total = w.numbers(bias + weights.sum(axis=0))
    return w.model(w.emit("add", product, total), "class", _labels(e))


@_predicts("GaussianNB")
def _gaussian_bayes(w: Writer, e: Any, x: Features) -> Model:
    classes, inputs = e.theta_.shape
    away = w.emit("repeat", w.settle(x), axis=1, count=classes)  # rows x classes x features
    away = w.emit("subtract", away, w.numbers(e.theta_))
    away = w.emit("divide", w.emit("multiply", away, away), w.numbers(e.var_))
    terms = w.emit("quantise_rows", away, bits=sum_bits(inputs))
    distance = w.emit("scale", w.emit("sum_axis", terms, axis=2), factor=-0.5)
    constant = np.log(e.class_prior_) - 0.5 * np.log(2.0 * np.pi * e.var_).sum(axis=1)
    return w.model(w.emit("add", distance, w.numbers(constant)), "class", _labels(e))


# Trees


@_predicts(
    "DecisionTreeClassifier",
    "RandomForestClassifier",
    "ExtraTreeClassifier",
    "ExtraTreesClassifier",
)
def _vote_of_trees(w: Writer, e: Any, x: Features) -> Model:
    labels = _labels(e)
    return w.model(_mean(w, x, [_tree(part, _shares) for part in _parts(e)]), "class", labels)


@_predicts(
    "DecisionTreeRegressor", "RandomForestRegressor", "ExtraTreeRegressor", "ExtraTreesRegressor"
)
def _mean_of_trees(w: Writer, e: Any, x: Features) -> Model:
    return w.model(_mean(w, x, [_tree(part, lambda v: v[:, :, 0]) for part in _parts(e)]), "value")


@_predicts("GradientBoostingClassifier", "GradientBoostingRegressor")
def _boosted_trees(w: Writer, e: Any, x: Features) -> Model:
    columns = e.estimators_.shape[1]
    parts = e.estimators_.ravel()  # stage after stage, a tree for every column
    trees = [_tree(part, lambda v: v[:, 0] * e.learning_rate) for part in parts]
    starts = [leaf(number) for number in _boosting_start(e)[:, None]]
    scores = emit_trees(w, _single(w, x), [*starts, *trees], columns)
    if type(e).__name__ == "GradientBoostingRegressor":
        return w.model(scores, "value")
    labels = _labels(e)
    if columns > 1:
        return w.model(scores, "class", labels)
    # at 0 the answer is the second class: that is the first label of the opposite score
    return w.model(w.emit("scale", scores, factor=-1.0), "class", labels[::-1])


@_predicts("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
def _histogram_trees(w: Writer, e: Any, x: Features) -> Model:
    is_class = type(e).__name__ == "HistGradientBoostingClassifier"
    _refuse(e, not is_class and e.loss in ("poisson", "gamma"), f"loss={e.loss!r}")
    _refuse(e, e.is_categorical_ is not None, "categorical features")
    trees = []
    for nodes in (part.nodes for stage in e._predictors for part in stage):
        left = np.where(nodes["is_leaf"], -1, nodes["left"].astype(np.int64))
        arrays = (nodes["feature_idx"], nodes["num_threshold"], left, nodes["right"])
        trees.append(Tree(*arrays, nodes["value"][:, None]))
    starts = [leaf(number) for number in np.reshape(e._baseline_prediction, (-1, 1))]
    scores = emit_trees(w, w.settle(x), [*starts, *trees], len(starts))
    return w.model(scores, "class", _labels(e)) if is_class else w.model(scores, "value")


def _parts(e: Any) -> list[Any]:
    """Return the single trees of a tree or forest of one output."""
    _refuse(e, getattr(e, "n_outputs_", 1) > 1 and hasattr(e, "classes_"), "several outputs")
    return list(getattr(e, "estimators_", [e]))


def _tree(part: Any, of_values: Callable[[Array], Array]) -> Tree:
    """Return one fitted tree; its values, nodes x outputs x classes, become nodes x width."""
    t = part.tree_
    return Tree(t.feature, t.threshold, t.children_left, t.children_right, of_values(t.value))


def _shares(values: Array) -> Array:
    """Return the share of each class in every node; older versions kept the weights themselves."""
    shares: Array = values[:, 0]
    totals = shares.sum(axis=1, keepdims=True)
    return shares if np.allclose(totals, 1.0) else shares / totals


def _mean(w: Writer, x: Features, trees: list[Tree]) -> int:
    """Emit the mean of what all trees say."""
    total = emit_trees(w, _single(w, x), trees)
    if len(trees) == 1:
        return total
    return w.emit("divide", total, w.emit("constant", value=float(len(trees))))


def _single(w: Writer, x: Features) -> int:
    """Emit x as these trees compare it: rounded to binary32."""
    return w.emit("round_single", w.settle(x))


def _boosting_start(e: Any) -> Array:
    """Return the scores before the first tree, one a column."""
    columns = e.estimators_.shape[1]
    if isinstance(e.init_, str) or type(e.init_).__name__ not in (
        "DummyClassifier",
        "DummyRegressor",
    ):
        _refuse(e, e.init != "zero", f"init={e.init!r}")
        return np.zeros(columns)
    if type(e.init_).__name__ == "DummyRegressor":
        return np.ravel(e.init_.constant_).astype(np.float64)
    tiny = np.finfo(np.float64).eps
    prior = np.clip(np.asarray(e.init_.class_prior_, np.float64), tiny, 1 - tiny)
    if columns > 1:
        return np.asarray(np.log(prior / np.exp(np.log(prior).mean())))
    odds = np.log(prior[1] / (1 - prior[1]))
    return np.array([odds / 2 if e.loss == "exponential" else odds])
