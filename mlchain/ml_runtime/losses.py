"""What a step makes smaller, or reports: one number from scores and targets, written as ops."""

from __future__ import annotations

from collections.abc import Callable

from mlchain.ml_runtime.builder import Builder

Loss = Callable[[Builder, int, int], int]
"""(builder, scores, y) -> register of the loss."""


def cross_entropy(b: Builder, scores: int, y: int) -> int:
    """Mean of -log of the softmax at the label."""
    return b.mean(b.emit("log_loss", b.emit("softmax", scores), y))


def logistic(b: Builder, scores: int, y: int) -> int:
    """One class against the rest: logistic losses of all columns added up, mean over rows."""
    return _mean_of_rows(b, b.emit("logistic_loss", scores, _hot(b, scores, y)))


def hinge(b: Builder, scores: int, y: int) -> int:
    """One class against the rest: max(0, 1 - s t) with t = 1 at the label, -1 elsewhere."""
    return _mean_of_rows(b, _shortfall(b, scores, y))


def squared_hinge(b: Builder, scores: int, y: int) -> int:
    """The same, each shortfall squared."""
    short = _shortfall(b, scores, y)
    return _mean_of_rows(b, b.emit("multiply", short, short))


def squared_error(b: Builder, scores: int, y: int) -> int:
    """Mean squared difference over rows and columns."""
    error = b.emit("subtract", scores, y)
    return b.mean(b.emit("multiply", error, error))


def error_rate(b: Builder, scores: int, y: int) -> int:
    """Share of rows whose first largest score is not at the label; has no gradient."""
    right = b.mean(b.emit("compare", b.emit("argmax", scores), y, relation=2))
    return b.emit("add", b.emit("scale", right, factor=-1.0), b.emit("constant", value=1.0))


LOSSES: dict[str, dict[str, Loss]] = {
    "class": {
        "cross_entropy": cross_entropy,
        "logistic": logistic,
        "hinge": hinge,
        "squared_hinge": squared_hinge,
    },
    "value": {"squared_error": squared_error},
    "cluster": {},
}
"""By target: what a model that learns by gradient may make smaller."""

DEFAULT_LOSSES = {"class": "cross_entropy", "value": "squared_error", "cluster": ""}


def signs(b: Builder, scores: int, y: int) -> int:
    """Emit 1 at the label of every row and -1 elsewhere, shaped like the scores."""
    twice = b.emit("scale", _hot(b, scores, y), factor=2.0)
    return b.emit("subtract", twice, b.emit("constant", value=1.0))


def _hot(b: Builder, scores: int, y: int) -> int:
    return b.emit("one_hot", y, classes=b.type(scores).shape[1])


def _shortfall(b: Builder, scores: int, y: int) -> int:
    reached = b.emit("multiply", scores, signs(b, scores, y))
    missing = b.emit("scale", reached, factor=-1.0)
    return b.emit("relu", b.emit("add", missing, b.emit("constant", value=1.0)))


def _mean_of_rows(b: Builder, x: int) -> int:
    return b.emit("scale", b.mean(x), factor=float(b.type(x).shape[1]))
