"""Ridge regression in closed form: least squares with an L2 penalty `alpha` on all weights.

State is the normal equations, [x 1]' [x 1] and [x 1]' y, added up exactly (y on a grid of the
batch's own), and the weights that solve them so far. The intercept is not penalised. `unit` is the
value of a raw feature where x is 1: the penalty counts in raw units.
"""

from __future__ import annotations

from mlchain.errors import ConfigError
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.losses import squared_error
from mlchain.ml_runtime.network import Network

TARGETS = ("value",)


def fit(n: Network, x: int, y: int, *, outputs: int, alpha: float = 1.0, unit: float = 1.0) -> int:
    """Return the register of the mean squared error of the batch under the new weights.

    Raises:
        ConfigError: a negative penalty, or a unit that is not positive.
    """
    b, features = n.builder, n.builder.type(x).shape[1]
    penalty = float(alpha) / (float(unit) * float(unit))
    if not (penalty >= 0 and float(unit) > 0):
        raise ConfigError(
            f"ridge: alpha {alpha} and unit {unit}", "alpha is at least 0, unit above"
        )
    weights, bias = n.parameter("out.weights", features, outputs), n.parameter("out.bias", outputs)
    gram = n.count(n.tally("gram", features + 1, features + 1), _squares(b, x))
    moments = n.count(n.tally("moments", features + 1, outputs), _moments(b, x, y))
    factor = b.emit("cholesky", b.emit("add", gram, _diagonal(b, features, penalty)))
    solution = b.emit("cholesky_solve", factor, moments)
    new_weights = b.emit("slice", solution, axis=0, start=0, stop=features)
    last = b.emit("slice", solution, axis=0, start=features, stop=features + 1)
    new_bias = b.reshape(last, (outputs,))
    n.update(weights, new_weights)
    n.update(bias, new_bias)
    return squared_error(b, b.emit("add", b.wide_matmul(x, new_weights), new_bias), y)


def predict(n: Network, x: int, *, outputs: int) -> int:
    """Return the register of the predictions."""
    b = n.builder
    weights = n.parameter("out.weights", b.type(x).shape[1], outputs)
    bias = n.parameter("out.bias", outputs)
    return b.emit("add", b.wide_matmul(x, weights), b.emit("widen", bias))


def _squares(b: Builder, x: int) -> int:
    """Emit [x 1]' [x 1]; the upper right is 0, since only the lower part is read."""
    rows, features = b.type(x).shape
    products = b.matmul(x, x, transpose_a=True)
    sums = b.reshape(b.sum_rows(x), (1, features))
    left = b.emit("concatenate", products, sums, axis=0)
    corner = b.reshape(b.emit("constant", value=float(rows)), (1, 1))
    right = b.emit("pad", corner, axis=0, before=features, after=0)
    return b.emit("concatenate", left, right, axis=1)


def _moments(b: Builder, x: int, y: int) -> int:
    """Emit [x 1]' y."""
    products = b.wide_matmul(x, y, transpose_x=True)
    sums = b.reshape(b.sum_rows(y), (1, b.type(y).shape[1]))
    return b.emit("concatenate", products, sums, axis=0)


def _diagonal(b: Builder, features: int, penalty: float) -> int:
    """Emit the square matrix with the penalty on its diagonal, and 0 at its end."""
    places = b.emit("positions", count=features + 1)
    across = b.emit("repeat", places, axis=0, count=features + 1)
    down = b.emit("repeat", places, axis=1, count=features + 1)
    on_diagonal = b.emit("compare", across, down, relation=2)
    is_weight = b.emit("compare", places, b.emit("constant", value=float(features)), relation=0)
    return b.emit("scale", b.emit("multiply", on_diagonal, is_weight), factor=penalty)
