"""Nearest centroid: a class is the mean of its rows, a row is of the class whose mean is nearest.

State is the number of rows of every class and their sum, exactly; so neither the order of the rows
nor how they are divided into batches matters. Every step counts its whole batch: for each row to
count once, steps times batch have to be the training rows.
"""

from __future__ import annotations

from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.counting import (
    Counts,
    count_batch,
    means,
    nearness,
    only_seen,
    read_counts,
)
from mlchain.ml_runtime.losses import error_rate
from mlchain.ml_runtime.network import Network

TARGETS = ("class",)


def fit(n: Network, x: int, y: int, *, outputs: int) -> int:
    """Return the register of the share of the batch that is then classified wrongly."""
    counts = count_batch(n, x, y, read_counts(n, x, outputs))
    return error_rate(n.builder, _scores(n.builder, x, counts), y)


def predict(n: Network, x: int, *, outputs: int) -> int:
    """Return the register of the scores: the larger, the nearer."""
    return _scores(n.builder, x, read_counts(n, x, outputs))


def _scores(b: Builder, x: int, counts: Counts) -> int:
    centroids = means(b, counts.sums, counts.rows)
    return only_seen(b, nearness(b, x, centroids), counts.rows)
