"""Flattening decision trees into the arrays of the op `trees`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlchain.errors import ConfigError
from mlchain.ml_runtime.importers.writer import Writer
from mlchain.ml_runtime.ops.trees import MAX_DEPTH
from mlchain.ml_runtime.tensor import Array


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree as libraries keep it: arrays over its nodes, the root first.

    A row goes left where its feature is at most the threshold. A leaf has left < 0; `value` is
    nodes x width, and only the leaves' values count.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    value: Array


def leaf(value: Array) -> Tree:
    """Return the tree that gives `value` to every row: what a sum begins with."""
    nothing, none = np.zeros(1), np.full(1, -1)
    return Tree(nothing, nothing, none, none, value[None])


def emit_trees(w: Writer, x: int, trees: Sequence[Tree], groups: int = 1) -> int:
    """Emit the sum of the leaves' values in order, trees t with equal t mod groups together.

    The result has groups * width columns. Nodes are numbered level by level over all trees, the
    two children of a node side by side, so the upper levels lie close together in memory.

    Raises:
        ConfigError: a tree is deeper than MAX_DEPTH, or comes back to a node.
    """
    level = [(tree, 0) for tree in range(len(trees))]
    feature: list[int] = []
    threshold: list[float] = []
    child: list[int] = []
    values: list[Array] = []
    nothing = np.zeros_like(trees[0].value[0], np.float64)
    lists = [tuple(a.tolist() for a in (t.feature, t.threshold, t.left, t.right)) for t in trees]
    depth, total = -1, len(level)
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"import: a tree has more than {MAX_DEPTH} levels")
        below: list[tuple[int, int]] = []
        for tree, node in level:
            features, thresholds, left, right = lists[tree]
            if left[node] < 0:
                feature.append(0)
                threshold.append(np.inf)
                child.append(len(child))
                values.append(trees[tree].value[node])
            else:
                feature.append(features[node])
                threshold.append(thresholds[node])
                child.append(total)
                values.append(nothing)
                below += [(tree, left[node]), (tree, right[node])]
                total += 2
        level = below
        if total > sum(len(tree.left) for tree in trees):
            raise ConfigError("import: a tree comes back to one of its nodes")
    # one node that nobody reaches, so that the node after any child is one of the arrays
    nodes = len(child) + 1
    return w.emit(
        "trees",
        x,
        w.integers([*feature, 0], w.b.type(x).shape[1]),
        w.numbers([*threshold, np.inf]),
        w.integers([*child, 0], nodes - 1),
        w.numbers([*values, nothing]),
        trees=len(trees),
        depth=depth,
        groups=groups,
    )
