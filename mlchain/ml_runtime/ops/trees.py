"""Ensembles of decision trees, all of them flattened into arrays and descended level by level."""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.ml_runtime.op import (
    Call,
    Op,
    Types,
    Values,
    integers,
    register,
    require,
    require_real,
)
from mlchain.ml_runtime.tensor import finite

MAX_DEPTH = 1 << 12
_BLOCK = 1 << 15
"""Places (tree, row) descended together, so that what is known of them stays in the cache."""


@register
class RoundSingle(Op):
    """x rounded to binary32, ties to even, and widened again; beyond the largest: infinite."""

    name, arity, in_place = "round_single", 1, True
    source = "what scikit-learn's trees compare: MLRT-1 rule 8"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        return (finite(*ins[0].shape),)

    def forward(self, c: Call) -> None:
        np.copyto(c.outs[0], c.ins[0].astype(np.float32))


@register
class Trees(Op):
    """Descend all trees by x, add the leaves' values in order; tree t to group t mod groups.

    Reads x, and of every node its feature, threshold, child and value. The roots are the nodes 0
    to trees - 1. `depth` times a row goes from its node to the child, or to the node after the
    child if the feature is above the threshold. A leaf is its own child under an infinite
    threshold. The bound of child leaves room for the node after it, so no numbers that fit the
    types can lead out of the arrays.
    """

    name, arity = "trees", 5
    attributes = integers("trees", "depth", "groups")
    source = "Breiman et al., Classification and Regression Trees (1984)"

    def infer(self, ins: Types, attrs: Values) -> Types:
        x, feature, threshold, child, value = ins
        trees, depth, groups = (int(v) for v in attrs)
        require_real(x, threshold, value)
        require(feature.kind == child.kind == "I", "features and children are integers")
        require(len(x.shape) == 2 and len(value.shape) == 2, "x and values are matrices")
        nodes = value.shape[0]
        same = feature.shape == threshold.shape == child.shape == (nodes,)
        require(same, "feature, threshold, child and value are not of one length")
        require(feature.bound <= x.shape[1], "features reach beyond the columns of x")
        require(child.bound < nodes, "children reach beyond the nodes")
        require(0 <= depth <= MAX_DEPTH, f"depth {depth}, not 0 to {MAX_DEPTH}")
        require(1 <= trees <= nodes, f"{trees} trees of {nodes} nodes")
        require(1 <= groups <= trees and trees % groups == 0, f"{trees} trees in {groups} groups")
        return (finite(x.shape[0], groups * value.shape[1]),)

    def cost(self, ins: Types, outs: Types, attrs: Values) -> int:
        (rows, _), (nodes, width) = ins[0].shape, ins[4].shape
        return 12000 + 2 * nodes + rows * int(attrs[0]) * (8 * int(attrs[1]) + 2 * width + 10)

    def forward(self, c: Call) -> None:
        x, feature, threshold, child, value = c.ins
        trees, depth, groups = (int(v) for v in c.attrs)
        rows, width, out = len(x), value.shape[1], c.outs[0]
        step = min(max(_BLOCK // trees, 1), rows)
        for at in range(0, rows, step):
            columns = np.ascontiguousarray(x[at : at + step].T)
            count = columns.shape[1]
            start, row = feature * count, np.arange(count)
            node = np.repeat(np.arange(trees), count).reshape(trees, count)
            place, follow = np.empty_like(node), np.empty_like(node)
            number, limit = np.empty((2, trees, count))
            above = np.empty((trees, count), np.bool_)
            for _ in range(depth):
                start.take(node, None, place, "clip")
                place += row
                columns.take(place, None, number, "clip")
                threshold.take(node, None, limit, "clip")
                np.greater(number, limit, out=above)
                child.take(node, None, follow, "clip")
                follow += above
                node, follow = follow, node
            leaves = value.take(node, 0, mode="clip").reshape(-1, groups, count, width)
            sums = leaves[0]
            for leaf in leaves[1:]:  # one rounded operation after the other, in the order of trees
                np.add(sums, leaf, out=sums)
            out[at : at + count] = sums.transpose(1, 0, 2).reshape(count, -1)

    def sharding(self, split: Sequence[bool], attrs: Values, ins: Types) -> str:
        require(split[0] and not any(split[1:]), "only x can be split by rows")
        return "rows"
