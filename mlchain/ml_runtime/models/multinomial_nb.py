"""Multinomial naive Bayes: features are counts, as of words; a class is how often each occurs.

The score of a class is its log prior plus the sum of count times log probability, an exact product:
nothing underflows, however long a document is. `alpha` is added to every count (Laplace); `unit` is
the value of a raw feature where x is 1, so that counts are counts. Features are not negative.
"""

from __future__ import annotations

from mlchain.errors import ConfigError
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.counting import (
    Counts,
    count_batch,
    log_prior,
    only_seen,
    read_counts,
)
from mlchain.ml_runtime.losses import error_rate
from mlchain.ml_runtime.network import Network

TARGETS = ("class",)


def fit(n: Network, x: int, y: int, *, outputs: int, alpha: float = 1.0, unit: float = 1.0) -> int:
    """Return the register of the share of the batch that is then classified wrongly.

    Raises:
        ConfigError: alpha or unit is not positive.
    """
    if not (float(alpha) > 0 and float(unit) > 0):
        raise ConfigError(f"multinomial_nb: alpha {alpha} and unit {unit}", "both are above 0")
    counts = count_batch(n, x, y, read_counts(n, x, outputs))
    return error_rate(n.builder, _scores(n.builder, x, counts, float(alpha), float(unit)), y)


def predict(n: Network, x: int, *, outputs: int, alpha: float = 1.0, unit: float = 1.0) -> int:
    """Return the register of the log likelihoods, up to what all classes share."""
    return _scores(n.builder, x, read_counts(n, x, outputs), float(alpha), float(unit))


def _scores(b: Builder, x: int, counts: Counts, alpha: float, unit: float) -> int:
    raw = b.emit("scale", counts.sums, factor=unit)
    smooth = b.emit("add", raw, b.emit("constant", value=alpha))
    chances = b.emit("subtract", b.emit("log", smooth), b.emit("log", b.sum_rows(smooth)))
    likelihood = b.emit("scale", b.wide_matmul(x, chances), factor=unit)
    return only_seen(b, b.emit("add", likelihood, log_prior(b, counts.rows)), counts.rows)
