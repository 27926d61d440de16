"""Perceptron (Rosenblatt, 1958): for every class, one against the rest.

Where a score is on the wrong side of 0, or on it, the row is added to the weights of its class, and
taken off those of the others; in a batch all rows are judged by the weights before it. So weights
are whole sums of rows: exact, and a rate would change nothing but their scale. A batch of 1 is the
perceptron of the books. `unit` is the value of a raw feature where x is 1: the bias counts in raw
units.

Rows are dense, as all datasets are. A sparse row of an exact runtime would be a list of indices and
a gather; a dense product of 1000 columns takes a microsecond, so that pays from about 10^5 on.
"""

from __future__ import annotations

from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.losses import signs
from mlchain.ml_runtime.network import Network

TARGETS = ("class",)


def fit(n: Network, x: int, y: int, *, outputs: int, unit: float = 1.0) -> int:
    """Return the register of the share of scores on the wrong side before the step."""
    b, (weights, bias) = n.builder, _tallies(n, x, outputs)
    scores = _scores(b, x, weights, bias, float(unit))
    sides = signs(b, scores, y)
    zero = b.emit("constant", value=0.0)
    wrong = b.emit("compare", b.emit("multiply", scores, sides), zero, relation=1)
    moves = b.on_grid(b.emit("multiply", sides, wrong), 2)
    n.count(weights, b.matmul(x, moves, transpose_a=True))
    n.count(bias, b.sum_rows(moves))
    return b.mean(wrong)


def predict(n: Network, x: int, *, outputs: int, unit: float = 1.0) -> int:
    """Return the register of the scores, one column per class."""
    return _scores(n.builder, x, *_tallies(n, x, outputs), float(unit))


def _tallies(n: Network, x: int, outputs: int) -> tuple[int, int]:
    features = n.builder.type(x).shape[1]
    return n.tally("out.weights", features, outputs), n.tally("out.bias", outputs)


def _scores(b: Builder, x: int, weights: int, bias: int, unit: float) -> int:
    product = b.emit("scale", b.wide_matmul(x, weights), factor=unit * unit)
    return b.emit("add", product, bias)
