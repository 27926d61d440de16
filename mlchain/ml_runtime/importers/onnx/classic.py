"""Operators of the domain ai.onnx.ml: linear models, tree ensembles, kernels, scalers, labels.

Where the specification leaves open which label follows from the scores of two classes, the rule is
that of onnxruntime.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlchain.ml_runtime.importers.forest import Tree, emit_trees
from mlchain.ml_runtime.importers.onnx.elementwise import two
from mlchain.ml_runtime.importers.onnx.moving import concatenated, renamed, taken
from mlchain.ml_runtime.importers.onnx.rules import Result, rule
from mlchain.ml_runtime.importers.onnx.trace import Trace
from mlchain.ml_runtime.importers.onnx.values import Call, Labels, Tensor, require_size
from mlchain.ml_runtime.tensor import Array

ML = "ai.onnx.ml."
MAX_TREE_NODES = 1 << 22
MAX_CLASSES = 1 << 10
"""Most classes of a support vector machine, whose pairs are counted."""


def _rows(c: Call) -> Tensor:
    """Return input 0, a row of features, as a matrix of one row."""
    x = c.tensor(0)
    if len(x.shape) > 2 or (len(x.shape) == 2 and x.shape[0] != 1):
        raise c.refuse(f"takes rows of features, not {list(x.shape)}")
    return Tensor(x.register, (1, x.shape[-1] if x.shape else 1))


def _reals(c: Call, name: str, default: tuple[float, ...] = ()) -> Array:
    values = c.attribute(name, default)
    array = np.array(values, np.float64)
    if array.ndim != 1 or not np.all(np.isfinite(array)):
        raise c.refuse(f"attribute {name} is no list of finite numbers")
    return array


def _names(c: Call) -> tuple[int | str, ...]:
    for name in ("classlabels_strings", "classlabels_ints", "classlabels_int64s"):
        found = c.attribute(name, ())
        if found:
            return tuple(found)
    raise c.refuse("no labels of classes")


# Linear models


def _linear(t: Trace, c: Call, outputs: int, bias: str) -> Tensor:
    x = _rows(c)
    weights, bias_row = _reals(c, "coefficients"), _reals(c, bias)
    k = x.shape[-1]
    if weights.size != outputs * k or bias_row.size not in (0, outputs):
        raise c.refuse(f"{weights.size} coefficients for {outputs} x {k}")
    out = t.product(x, weights.reshape(outputs, k))
    return t.meet("add", out, bias_row, out.shape) if bias_row.size else out


@rule(ML + "LinearRegressor")
def _linear_regressor(t: Trace, c: Call) -> Result:
    out = _linear(t, c, c.attribute("targets", 1), "intercepts")
    return _transformed(t, c, out)


@rule(ML + "LinearClassifier")
def _linear_classifier(t: Trace, c: Call) -> Result:
    names = _names(c)
    rows = len(_reals(c, "coefficients")) // _rows(c).shape[-1]
    if rows != len(names) and not (rows == 1 and len(names) == 2):
        raise c.refuse(f"{rows} rows of coefficients for {len(names)} classes")
    scores = _linear(t, c, rows, "intercepts")
    labels = Labels(scores, names)
    return labels, _transformed(t, c, _both(t, c, scores, False) if rows == 1 else scores)


def _both(t: Trace, c: Call, score: Tensor, is_chance: bool) -> Tensor:
    """Return the scores of two classes of which the file computes one."""
    if c.attribute("post_transform", "NONE") == "LOGISTIC":
        is_chance = False  # 1 / (1 + exp(s)) is the chance of the other class
    other = t.emit("scale", score, factor=-1.0)
    if is_chance:
        other = t.meet("add", other, np.array(1.0), other.shape)
    return concatenated(t, c, [other, score], 1)


def _transformed(t: Trace, c: Call, scores: Tensor) -> Tensor:
    kind = c.attribute("post_transform", "NONE")
    if kind == "NONE":
        return scores
    if kind == "LOGISTIC":
        return t.emit("sigmoid", scores)
    if kind == "SOFTMAX":
        return t.place(t.builder.emit("softmax", t.rows(scores, *scores.shape)), scores.shape)
    raise c.refuse(f"post_transform {kind} is not supported")


# Trees


def _forest(t: Trace, c: Call, prefix: str, width: int) -> Tensor:
    """Emit the sums of the leaves' weights, 1 x width."""
    x, trees = _rows(c), _trees(c, prefix, width, _rows(c).shape[-1])
    single = t.builder.emit("round_single", t.rows(x, *x.shape))
    return t.place(emit_trees(t.writer, single, trees), (1, width))


def _trees(c: Call, prefix: str, width: int, features: int) -> list[Tree]:
    """Return the trees of a node, whose attributes list the nodes of all of them.

    Raises:
        Refused: lists of different lengths, children or features that are not there, a node with
            two parents, or a comparison that is not an order.
    """
    a = {n: c.integers(f"nodes_{n}") for n in ("treeids", "nodeids", "featureids")}
    a |= {n: c.integers(f"nodes_{n}") for n in ("truenodeids", "falsenodeids")}
    modes, limits = c.attribute("nodes_modes", ()), _reals(c, "nodes_values")
    count = len(modes)
    if not 1 <= count <= MAX_TREE_NODES or any(len(v) != count for v in (*a.values(), limits)):
        raise c.refuse("the lists of nodes are empty or of different lengths")
    require_size((count, width), c.where)
    place = {key: i for i, key in enumerate(zip(a["treeids"], a["nodeids"], strict=True))}
    if len(place) < count:
        raise c.refuse("two nodes of one number")
    members: dict[int, list[int]] = {}
    local = [0] * count
    for i, tree in enumerate(a["treeids"]):
        local[i] = len(members.setdefault(tree, []))
        members[tree].append(i)
    left, right = np.full(count, -1), np.full(count, -1)
    threshold = np.zeros(count)
    parents = [0] * count
    for i, mode in enumerate(modes):
        if mode == "LEAF":
            continue
        if mode not in _MODES:
            raise c.refuse(f"the comparison {mode} is not supported")
        ends = [(a["treeids"][i], a[n][i]) for n in ("truenodeids", "falsenodeids")]
        if not all(e in place for e in ends) or not 0 <= a["featureids"][i] < features:
            raise c.refuse("a node with a child or a feature that is not there")
        yes, no = (place[e] for e in ends)
        turned, strict = _MODES[mode]
        left[i], right[i] = (local[no], local[yes]) if turned else (local[yes], local[no])
        limit = np.float32(limits[i])
        threshold[i] = np.nextafter(limit, np.float32(-np.inf)) if strict else limit
        for child in (yes, no):
            parents[child] += 1
    roots = {m[0] for m in members.values()}
    if any(p != (i not in roots) for i, p in enumerate(parents)):
        raise c.refuse("nodes that are no trees, each with its root first")
    value = _leaf_values(c, prefix, width, place, count)
    feature = np.array(a["featureids"])
    return [Tree(feature[m], threshold[m], left[m], right[m], value[m]) for m in members.values()]


_MODES = {  # whether the answer yes goes right, whether the threshold itself does not count
    "BRANCH_LEQ": (False, False),
    "BRANCH_LT": (False, True),
    "BRANCH_GTE": (True, True),
    "BRANCH_GT": (True, False),
}


def _leaf_values(
    c: Call, prefix: str, width: int, place: dict[tuple[int, int], int], count: int
) -> Array:
    trees, nodes = c.integers(f"{prefix}_treeids"), c.integers(f"{prefix}_nodeids")
    columns, weights = c.integers(f"{prefix}_ids"), _reals(c, f"{prefix}_weights")
    if not len(trees) == len(nodes) == len(columns) == len(weights):
        raise c.refuse("the lists of leaves are of different lengths")
    value = np.zeros((count, width))
    for tree, node, column, weight in zip(trees, nodes, columns, weights, strict=True):
        if (tree, node) not in place or not 0 <= column < width:
            raise c.refuse("a weight of a leaf or class that is not there")
        value[place[tree, node], column] += weight
    return value


@rule(ML + "TreeEnsembleRegressor")
def _tree_regressor(t: Trace, c: Call) -> Result:
    width = c.attribute("n_targets", 1)
    if width < 1:
        raise c.refuse(f"{width} targets")
    out = _forest(t, c, "target", width)
    how = c.attribute("aggregate_function", "SUM")
    if how not in ("SUM", "AVERAGE"):
        raise c.refuse(f"aggregate_function {how}")
    if how == "AVERAGE":
        out = t.emit("scale", out, factor=1 / len(set(c.integers("nodes_treeids"))))
    return _transformed(t, c, _with_base(t, c, out))


def _with_base(t: Trace, c: Call, out: Tensor) -> Tensor:
    base = _reals(c, "base_values")
    if base.size not in (0, 1, out.shape[1]):
        raise c.refuse(f"{base.size} base values")
    return t.meet("add", out, base, out.shape) if base.any() else out


@rule(ML + "TreeEnsembleClassifier")
def _tree_classifier(t: Trace, c: Call) -> Result:
    names = _names(c)
    columns, weights = c.integers("class_ids"), _reals(c, "class_weights")
    are_chances = bool(np.all(weights >= 0))
    if len(names) == 2 and len(set(columns)) == 1:  # one sum, which stands for the second class
        score = _with_base(t, c, taken(t, c, _forest(t, c, "class", 2), 1, [columns[0]]))
        best = score
        if are_chances:
            best = t.meet("add", _settled(t, score), np.array(-0.5), score.shape)
        return Labels(best, names), _transformed(t, c, _both(t, c, score, are_chances))
    scores = _with_base(t, c, _forest(t, c, "class", len(names)))
    best = _settled(t, scores) if are_chances else scores
    return Labels(best, names), _transformed(t, c, scores)


def _settled(t: Trace, chances: Tensor) -> Tensor:
    """Emit chances rounded to 2^-22.

    A file holds the votes of trees as binary32, so votes that are equal add up to sums that are
    not quite. Rounded they are equal again, and the first class is the answer.
    """
    return t.emit("saturate", chances, bits=24, exponent=1)


# Support vectors


@rule(ML + "SVMRegressor")
def _svm_regressor(t: Trace, c: Call) -> Result:
    x, count = _rows(c), c.attribute("n_supports", 0)
    weights, rho = _reals(c, "coefficients"), _reals(c, "rho")
    if c.attribute("one_class", 0) or not count or weights.size != count or rho.size != 1:
        raise c.refuse("a one-class or linear kernel machine is not supported")
    vectors = _reals(c, "support_vectors")
    if vectors.size != count * x.shape[1]:
        raise c.refuse(f"{vectors.size} numbers of support vectors")
    likeness = _kernel(t, c, x, vectors.reshape(count, -1))
    return t.meet("add", t.product(likeness, weights.reshape(1, count)), rho, (1, 1))


def _kernel(t: Trace, c: Call, x: Tensor, vectors: Array) -> Tensor:
    """Emit the kernel of a row with every support vector: 1 x vectors."""
    kind, params = c.attribute("kernel_type", "LINEAR"), _reals(c, "kernel_params", (1.0, 0.0, 3.0))
    gamma, coef, degree = (*params, 1.0, 0.0, 3.0)[:3] if params.size else (1.0, 0.0, 3.0)
    dots = t.product(x, vectors)
    if kind == "RBF":  # |x - v|^2 = |x|^2 - 2 x.v + |v|^2
        square = t.sum_last(t.emit("multiply", x, x.register))
        distance = t.meet(
            "add", t.emit("scale", dots, factor=-2.0), (vectors**2).sum(1), dots.shape
        )
        distance = two(t, c, "add", distance, square)
        return t.emit("exp", t.emit("scale", t.emit("relu", distance), factor=-gamma))
    if kind == "LINEAR":
        return dots
    base = t.meet("add", t.emit("scale", dots, factor=gamma), np.array(coef), dots.shape)
    if kind == "SIGMOID":
        return t.emit("tanh", base)
    if kind == "POLY" and degree in (1, 2, 3, 4):
        result = base
        for _ in range(int(degree) - 1):
            result = t.emit("multiply", result, base.register)
        return result
    raise c.refuse(f"the kernel {kind} of degree {degree} is not supported")


@rule(ML + "SVMClassifier")
def _svm_classifier(t: Trace, c: Call) -> Result:
    """Every pair of classes votes by a sum over the vectors of both; most votes win."""
    x, names, per_class = _rows(c), _names(c), c.integers("vectors_per_class")
    count, classes = sum(per_class), len(per_class)
    weights, rho = _reals(c, "coefficients"), _reals(c, "rho")
    vectors, pairs = _reals(c, "support_vectors"), classes * (classes - 1) // 2
    if not 2 <= classes <= MAX_CLASSES or len(names) != classes or min(per_class) < 0 or not count:
        raise c.refuse("a linear or one-class machine is not supported, nor are so many classes")
    if len(_reals(c, "prob_a")):
        raise c.refuse("chances of a support vector machine are not supported", "probability=False")
    if weights.size != (classes - 1) * count or rho.size != pairs or vectors.size % count:
        raise c.refuse("coefficients, rho and vectors do not fit together")
    if vectors.size // count != x.shape[1]:
        raise c.refuse(f"vectors of {vectors.size // count} numbers for {x.shape[1]} features")
    require_size((pairs, count), c.where)
    starts = np.cumsum([0, *per_class])
    duels, rows = np.zeros((pairs, count)), weights.reshape(classes - 1, count)
    votes, given = np.zeros((classes, pairs)), np.zeros(classes)
    fights = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    for at, (i, j) in enumerate(fights):
        ours, theirs = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        duels[at, ours], duels[at, theirs] = rows[j - 1, ours], rows[i, theirs]
        votes[i, at], votes[j, at] = 1.0, -1.0  # j has the vote that i does not get
        given[j] += 1.0
    likeness = _kernel(t, c, x, vectors.reshape(count, -1))
    margins = t.meet("add", t.product(likeness, duels), rho, (1, pairs))
    lost = t.builder.emit("compare", margins.register, t.zero(), relation=1)
    won = t.meet("add", Tensor(lost, margins.shape), np.array(-1.0), margins.shape)
    won = t.emit("scale", won, factor=-1.0)
    scores = t.meet("add", t.product(won, votes), given, (1, classes))
    return Labels(scores, names), margins


# Features


@rule(ML + "Scaler")
def _scaler(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    offset, scale = _reals(c, "offset"), _reals(c, "scale")
    if any(v.size not in (1, x.shape[-1]) for v in (offset, scale)):
        raise c.refuse(f"{offset.size} offsets and {scale.size} scales of {x.shape[-1]} features")
    return two(t, c, "multiply", t.meet("subtract", x, offset, x.shape), scale)


@rule(ML + "Normalizer")
def _normalizer(t: Trace, c: Call) -> Result:
    x, norm = _rows(c), c.attribute("norm", "MAX")
    if norm == "L2":
        size = t.emit("square_root", t.sum_last(t.emit("multiply", x, x.register)))
    elif norm == "L1":
        size = t.sum_last(t.emit("absolute", x))
    else:
        largest = t.builder.emit("row_maximum", t.rows(t.emit("absolute", x), *x.shape))
        size = t.place(largest, (1, 1))
    # a row of zeros stays one: it is divided by 1
    is_zero = t.builder.emit("compare", size.register, t.zero(), relation=2)
    return two(t, c, "divide", x, t.emit("add", size, is_zero))


@rule(ML + "Binarizer")
def _binarizer(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    low = t.meet("minimum", x, np.array(c.attribute("threshold", 0.0)), x.shape)
    same = Tensor(t.builder.emit("compare", x.register, low.register, relation=2), x.shape)
    return t.meet("add", t.emit("scale", same, factor=-1.0), np.array(1.0), x.shape)


@rule(ML + "FeatureVectorizer")
def _vectorizer(t: Trace, c: Call) -> Result:
    return concatenated(t, c, [c.tensor(i) for i in range(len(c.values))], 1)


@rule(ML + "ArrayFeatureExtractor")
def _extract(t: Trace, c: Call) -> Result:
    places: Any = c.value(1)
    if isinstance(places, Labels):
        return renamed(c, places)
    x, chosen = _rows(c), [int(p) for p in c.array(1).reshape(-1)]
    if not chosen or not all(0 <= p < x.shape[1] for p in chosen):
        raise c.refuse(f"places {chosen[:8]} of {x.shape[1]} features")
    return taken(t, c, x, 1, chosen)


@rule(ML + "LabelEncoder")
def _label_encoder(t: Trace, c: Call) -> Result:
    labels = c.value(0)
    if not isinstance(labels, Labels):
        raise c.refuse("encodes labels only")
    keys: tuple[Any, ...] = ()
    values: tuple[Any, ...] = ()
    for kind in ("int64s", "strings"):
        keys = keys or c.attribute(f"keys_{kind}", ())
        values = values or c.attribute(f"values_{kind}", ())
    table = dict(zip(keys, values, strict=False))
    if len(keys) != len(values) or not all(name in table for name in labels.classes):
        raise c.refuse("keys that are not those of the labels")
    return Labels(labels.scores, tuple(table[name] for name in labels.classes))


@rule(ML + "ZipMap")
def _zip_map(t: Trace, c: Call) -> Result:
    return c.tensor(0)
