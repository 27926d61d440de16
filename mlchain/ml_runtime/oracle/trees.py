"""Twins of ops/trees.py: one row down one tree at a time."""

from __future__ import annotations

from mlchain.ml_runtime.oracle.arithmetic import Numbers, Operands, each, single, twin
from mlchain.ml_runtime.oracle.rows import rows_of

each("round_single", single)


@twin("trees")
def _trees(o: Operands) -> tuple[Numbers, ...]:
    x, feature, threshold, child, value = o.ins
    trees, depth, groups = (int(a) for a in o.attrs)
    width = o.shapes[4][1]
    out: Numbers = []
    for row in rows_of(x, o.shapes[0][1]):
        sums: list[Numbers] = [[] for _ in range(groups)]
        for tree in range(trees):
            node = tree
            for _ in range(depth):
                right = row[int(feature[node])] > threshold[node]
                node = int(child[node]) + right
            leaf, group = value[node * width : (node + 1) * width], sums[tree % groups]
            sums[tree % groups] = (
                [a + b for a, b in zip(group, leaf, strict=True)] if group else leaf
            )
        out += [v for group in sums for v in group]
    return (out,)
