"""k-means (Lloyd, 1957): centres that are the means of the rows nearest to them.

The first `outputs` steps find one centre each, among the first `candidates` rows of the batch: the
row that would bring all rows of the batch closest to their nearest centre (greedy, after Arthur
and Vassilvitskii, 2007). The order of rows is random, so those are rows at random. Every step also
moves the centres that are there to the mean of their rows; twenty steps more are seldom too few. A
group that loses all its rows keeps its centre; of equally near centres the lowest counts.

With `mini_batch`, once all centres are there, they move by what is new only, each row weighing as
much as any before it (Sculley, WWW 2010): for data of which a step sees a part.
"""

from __future__ import annotations

from mlchain.errors import ConfigError
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.counting import means, nearness
from mlchain.ml_runtime.network import Network

TARGETS = ("cluster",)


def fit(
    n: Network, x: int, y: int, *, outputs: int, mini_batch: bool = False, candidates: int = 16
) -> int:
    """Return the register of the mean squared distance of the batch to its centres so far.

    Raises:
        ConfigError: no candidates.
    """
    if int(candidates) < 1:
        raise ConfigError(f"kmeans: {candidates} candidates", "at least 1")
    b, (batch, features) = n.builder, n.builder.type(x).shape
    stored = n.parameter("centres", features, outputs)
    ready = n.tally("ready")
    centres = b.emit("widen", stored)
    scores = nearness(b, x, centres)
    hot = b.emit("one_hot", b.emit("argmax", scores), classes=outputs)
    rows, sums = b.sum_rows(hot), b.matmul(x, hot, transpose_a=True)
    growing = b.emit("compare", ready, b.emit("constant", value=float(outputs)), relation=0)
    moved = b.emit("select", rows, means(b, sums, rows), centres)
    if mini_batch:
        moved = b.emit("select", growing, moved, _nudged(n, centres, sums, rows, growing))
    best = b.emit("row_maximum", scores)
    found = _best_candidate(b, x, y, best, ready, min(int(candidates), batch))
    n.update(stored, b.emit("select", growing, _with_new(b, moved, found, ready), moved))
    n.count(ready, growing)
    inside, near = (b.emit("sum_all", b.on_grid(v, grid.SUM_BITS)) for v in (b.squares(x), best))
    return b.emit("scale", b.emit("subtract", inside, near), factor=1 / batch)


def predict(n: Network, x: int, *, outputs: int) -> int:
    """Return the register of minus the squared distance to every centre."""
    b = n.builder
    centres = b.emit("widen", n.parameter("centres", b.type(x).shape[1], outputs))
    inside = b.emit("sum_axis", b.squares(x), axis=1)
    away = b.emit("repeat", inside, axis=1, count=outputs)
    return b.emit("subtract", nearness(b, x, centres), away)


def _nudged(n: Network, centres: int, sums: int, rows: int, growing: int) -> int:
    """Emit centres moved by their new rows' part of all rows seen since all centres are there."""
    b = n.builder
    nothing = b.emit("scale", rows, factor=0.0)
    new = b.emit("select", growing, nothing, rows)
    seen = n.count(n.tally("rows", b.type(rows).shape[0]), new)
    pull = b.emit("subtract", sums, b.emit("multiply", centres, rows))
    whole = b.emit("maximum", seen, b.emit("constant", value=1.0))
    return b.emit("add", centres, b.emit("divide", pull, whole))


def _best_candidate(b: Builder, x: int, y: int, best: int, ready: int, count: int) -> int:
    """Emit the one of the first rows (features) that brings all rows of the batch closest.

    What counts is by how much rows come closer; with no centre yet, how close they then are.
    """
    features = b.type(x).shape[1]
    is_place = b.emit("compare", _along(b, y, count), b.emit("positions", count=count), relation=2)
    rows = b.matmul(x, is_place, transpose_a=True)
    near = nearness(b, x, rows)
    gain = b.emit("relu", b.emit("subtract", near, _along(b, best, count)))
    one = b.emit("constant", value=1.0)
    gain = b.emit("select", b.emit("compare", ready, one, relation=0), near, gain)
    total = b.reshape(b.sum_rows(gain), (1, count))
    chosen = b.emit("one_hot", b.emit("argmax", total), classes=count)
    kept = b.emit("multiply", rows, b.reshape(chosen, (count,)))
    return b.reshape(b.emit("sum_axis", b.on_grid(kept, grid.SUM_BITS), axis=1), (features,))


def _with_new(b: Builder, centres: int, found: int, ready: int) -> int:
    """Emit the centres with the new one in the first free place.

    The places after it become copies of the first centre, so no row is nearer to them.
    """
    features, count = b.type(centres).shape
    places = b.emit("positions", count=count)
    is_new = b.emit("compare", places, ready, relation=2)
    is_free = b.emit("compare", b.emit("spread", ready, places), places, relation=0)
    grown = b.emit("select", is_new, _along(b, found, count), centres)
    first = b.reshape(b.emit("slice", grown, axis=1, start=0, stop=1), (features,))
    return b.emit("select", is_free, _along(b, first, count), grown)


def _along(b: Builder, x: int, count: int) -> int:
    return b.emit("repeat", x, axis=1, count=count)
