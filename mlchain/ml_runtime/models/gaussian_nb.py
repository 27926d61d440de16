"""Gaussian naive Bayes: in every class each feature is normal, with its own mean and variance.

State is the number of rows of every class, and the sums of x and of x squared, exactly. The score
of a class is its log likelihood, features added in order: nothing underflows. `var_smoothing` times
the largest variance of a feature over all rows is added to every variance.
"""

from __future__ import annotations

from mlchain.errors import ConfigError
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.counting import (
    count_batch,
    log_prior,
    means,
    one_hot,
    only_seen,
    read_counts,
    variances,
)
from mlchain.ml_runtime.losses import error_rate
from mlchain.ml_runtime.network import Network
from mlchain.ml_runtime.op import MAX_BITS

TARGETS = ("class",)


def fit(n: Network, x: int, y: int, *, outputs: int, var_smoothing: float = 1e-9) -> int:
    """Return the register of the share of the batch that is then classified wrongly.

    Raises:
        ConfigError: var_smoothing is not above 0.
    """
    if not float(var_smoothing) > 0:
        raise ConfigError(f"gaussian_nb: var_smoothing {var_smoothing}", "it is above 0")
    b = n.builder
    before, squares = read_counts(n, x, outputs), _squares_tally(n, x, outputs)
    counts = count_batch(n, x, y, before)
    hot = one_hot(b, y, before.rows)
    added = b.emit("matmul", b.squares(x), hot, transpose_a=True, transpose_b=False)
    total = n.count(squares, added)
    scores = _scores(b, x, counts.rows, counts.sums, total, float(var_smoothing))
    return error_rate(b, scores, y)


def predict(n: Network, x: int, *, outputs: int, var_smoothing: float = 1e-9) -> int:
    """Return the register of the log likelihoods, up to what all classes share."""
    counts, squares = read_counts(n, x, outputs), _squares_tally(n, x, outputs)
    return _scores(n.builder, x, counts.rows, counts.sums, squares, float(var_smoothing))


def _squares_tally(n: Network, x: int, outputs: int) -> int:
    return n.tally("squares", n.builder.type(x).shape[1], outputs)


def _scores(b: Builder, x: int, rows: int, sums: int, squares: int, smoothing: float) -> int:
    """Emit log prior - (sum of log variance + sum of (x - mean)^2 / variance) / 2."""
    mean = means(b, sums, rows)
    floor = b.emit("scale", _largest_variance(b, rows, sums, squares), factor=smoothing)
    variance = b.emit("add", variances(b, means(b, squares, rows), mean), floor)
    spread = b.sum_rows(b.emit("log", variance))
    one = b.emit("spread", b.emit("constant", value=1.0), variance)
    centres, weights = b.transpose(mean, 1, 0), b.transpose(b.emit("divide", one, variance), 1, 0)
    distances = b.emit("weighted_distances", x, centres, weights)
    misfit = b.emit("scale", b.emit("add", distances, spread), factor=-0.5)
    return only_seen(b, b.emit("add", misfit, log_prior(b, rows)), rows)


def _largest_variance(b: Builder, rows: int, sums: int, squares: int) -> int:
    """Emit the largest variance of a feature over the rows of all classes."""
    count = b.emit("maximum", _total(b, rows), b.emit("constant", value=1.0))
    mean, mean_square = (b.emit("divide", _total(b, s), count) for s in (sums, squares))
    variance = variances(b, mean_square, mean)
    features = b.type(variance).shape[0]
    largest = b.emit("row_maximum", b.reshape(variance, (1, features)))
    return b.reshape(largest, ())


def _total(b: Builder, x: int) -> int:
    """Emit the sum over classes, the last axis."""
    return b.emit("sum_axis", b.on_grid(x, MAX_BITS), axis=len(b.type(x).shape) - 1)
