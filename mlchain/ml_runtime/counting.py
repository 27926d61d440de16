"""What models share that learn by counting: exact totals for each class, and products with x."""

from __future__ import annotations

from dataclasses import dataclass

from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.grid import SUM_BITS
from mlchain.ml_runtime.network import Network

UNSEEN = -(2.0**100)
"""Score of a class of which no row was seen."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Registers of reals: `rows` of each class (k), and the `sums` of their x (features x k)."""

    rows: int
    sums: int


def read_counts(n: Network, x: int, outputs: int) -> Counts:
    """Declare the totals of every class, or read them in a program of predictions."""
    features = n.builder.type(x).shape[1]
    return Counts(n.tally("rows", outputs), n.tally("sums", features, outputs))


def count_batch(n: Network, x: int, y: int, counts: Counts) -> Counts:
    """Add a batch to the totals."""
    b = n.builder
    hot = one_hot(b, y, counts.rows)
    return Counts(
        n.count(counts.rows, b.sum_rows(hot)),
        n.count(counts.sums, b.matmul(x, hot, transpose_a=True)),
    )


def one_hot(b: Builder, y: int, per_class: int) -> int:
    """Emit the labels as rows of 0 and one 1, as long as a vector of one number per class."""
    return b.emit("one_hot", y, classes=b.type(per_class).shape[0])


def means(b: Builder, sums: int, rows: int) -> int:
    """Emit sums divided by the rows of their class; 0 for a class without rows."""
    return b.emit("divide", sums, b.emit("maximum", rows, b.emit("constant", value=1.0)))


def variances(b: Builder, mean_squares: int, mean: int) -> int:
    """Emit the mean of squares less the square of the mean, at least 0."""
    difference = b.emit("subtract", mean_squares, b.emit("multiply", mean, mean))
    return b.emit("relu", difference)


def log_prior(b: Builder, rows: int) -> int:
    """Emit the logarithm of every class's share of all rows."""
    total = b.emit("sum_all", b.on_grid(rows, SUM_BITS))
    return b.emit("subtract", b.emit("log", rows), b.emit("log", total))


def only_seen(b: Builder, scores: int, rows: int) -> int:
    """Emit the scores with UNSEEN in the columns of classes without rows."""
    return b.emit("select", rows, scores, b.emit("constant", value=UNSEEN))


def nearness(b: Builder, x: int, centres: int) -> int:
    """Emit 2 x c - c^2 for rows x and centres c (features x k): x^2 less the squared distance."""
    products = b.emit("scale", b.wide_matmul(x, centres), factor=2.0)
    return b.emit("subtract", products, b.sum_rows(b.emit("multiply", centres, centres)))
