"""The op `trees`: sums over leaves in a written order, and no way out of the arrays."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest

from mlchain.errors import ConfigError, RejectedProgram
from mlchain.ml_runtime import Model, NumpyBackend, Oracle
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.importers.forest import Tree, emit_trees, leaf
from mlchain.ml_runtime.importers.writer import Writer
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.program import check
from mlchain.ml_runtime.tensor import finite, labels

NODES = (labels(3, 8), finite(8), labels(7, 8), finite(8, 2))
STUMP = Tree(*(np.array(a) for a in ([1, 0, 0], [0.5, 0, 0], [1, -1, -1], [2, -1, -1])), np.eye(3))


def build(*kinds, x=None, trees: int = 2, depth: int = 3, groups: int = 1):
    b = Builder()
    ins = [b.input(kind) for kind in (x or finite(4, 3), *(kinds or NODES))]
    return b.program([b.emit("trees", *ins, trees=trees, depth=depth, groups=groups)])


def ask(x, trees: list[Tree], groups: int = 1, backend=None):
    w = Writer(x.shape[1], 4)
    model = w.model(emit_trees(w, w.settle(w.x), trees, groups), "value")
    return model.scores(x, backend)


def test_at_the_threshold_a_row_goes_left_above_it_right():
    x = np.array([[9, 0.5], [9, np.nextafter(0.5, 1)], [-9, -1e300]])
    for backend in (NumpyBackend(), Oracle()):
        assert ask(x, [STUMP], 1, backend).tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_a_row_stays_in_a_leaf_while_others_descend():
    below = Tree(
        *(np.array(a) for a in ([0, 0, 1, 0, 0], [0.0, 0, 0, 0, 0])),
        np.array([1, -1, 3, -1, -1]),
        np.array([2, -1, 4, -1, -1]),
        np.array([[0.0], [1.0], [0.0], [2.0], [4.0]]),
    )
    assert ask(np.array([[-1.0, 5], [1, -5], [1, 5]]), [below]).tolist() == [[1], [2], [4]]


def test_trees_of_a_group_are_added_and_groups_are_columns():
    ones = [leaf(np.array([2.0**t])) for t in range(6)]
    x = np.zeros((3, 2))
    assert ask(x, ones).tolist() == [[63.0]] * 3
    assert ask(x, ones, 2).tolist() == [[1 + 4 + 16, 2 + 8 + 32]] * 3
    assert ask(x, ones, 6).tolist() == [[1, 2, 4, 8, 16, 32]] * 3


@pytest.mark.parametrize("rows", [1, 3, 400])
@pytest.mark.parametrize("width", [1, 3])
def test_values_are_added_in_the_order_of_the_trees_one_rounding_each(rows, width):
    values = np.random.default_rng(1).normal(size=(101, width))
    scores = ask(np.zeros((rows, 1)), [leaf(v) for v in values])
    assert np.array_equal(scores, np.tile(reduce(add, values), (rows, 1)))


def test_another_order_or_numpy_s_own_sum_gives_other_bits():
    """Control of the test above."""
    values = np.random.default_rng(3).normal(size=101)
    in_order = reduce(add, values)
    assert in_order != values.sum()
    assert any(in_order != reduce(add, np.roll(values, k)) for k in range(1, 101))


def test_binary32_rounds_ties_to_even_and_overflows_to_infinity():
    x = np.array([[1 + 2.0**-24, 1 + 3 * 2.0**-24, 3.5e38, -1e300, 1e-46, -0.0]])
    b = Builder()
    single = b.program([b.emit("round_single", b.input(finite(1, 6)))])
    rounded = np.array([1, 1 + 2.0**-22, np.inf, -np.inf, 0, 0])
    outs = [np.zeros((1, 6)) for _ in range(2)]
    for out, backend in zip(outs, (NumpyBackend(), Oracle()), strict=True):
        backend.bind(single, [x], [out])()
        assert np.array_equal(out[0], rounded)


@pytest.mark.parametrize(
    "kinds, options, complaint",
    [
        ((labels(4, 8), *NODES[1:]), {}, "features reach beyond"),
        ((*NODES[:2], labels(8, 8), NODES[3]), {}, "children reach beyond"),
        ((finite(8), *NODES[1:]), {}, "are integers"),
        ((*NODES[:2], finite(8), NODES[3]), {}, "are integers"),
        ((*NODES[:3], labels(4, 8, 2)), {}, "takes F, G or R"),
        ((NODES[0], finite(7), *NODES[2:]), {}, "not of one length"),
        ((NODES[0], finite(8, 1), *NODES[2:]), {}, "not of one length"),
        (NODES, {"trees": 9}, "9 trees of 8 nodes"),
        (NODES, {"trees": 0}, "0 trees"),
        (NODES, {"trees": -1}, "-1 trees"),
        (NODES, {"trees": 3, "groups": 2}, "3 trees in 2 groups"),
        (NODES, {"groups": 0}, "2 trees in 0 groups"),
        (NODES, {"depth": 1 << 40}, "depth"),
        (NODES, {"depth": -1}, "depth"),
        (NODES, {"x": finite(4, 3, 1)}, "are matrices"),
    ],
)
def test_what_could_lead_out_of_the_arrays_is_rejected(kinds, options, complaint):
    with pytest.raises(RejectedProgram, match=complaint):
        build(*kinds, **options)


@pytest.mark.parametrize("value", [-1, 3, 1 << 62])
def test_a_file_with_a_child_or_feature_out_of_range_is_refused(value):
    w = Writer(2, 4)
    model = w.model(emit_trees(w, w.settle(w.x), [STUMP]), "value")
    for parameter in (0, 2):
        hostile = list(model.parameters)
        hostile[parameter] = value.to_bytes(8, "little", signed=True) + hostile[parameter][8:]
        fields = [getattr(model, name) for name in model.__struct_fields__]
        with pytest.raises(RejectedProgram, match=f"parameter {parameter} holds a number"):
            Model(fields[0], tuple(hostile), *fields[2:]).scores(np.zeros((1, 2)))


def test_children_that_go_in_circles_end_after_depth_steps_inside_the_arrays():
    program = build(depth=1000)
    r = np.random.default_rng(1)
    for _ in range(20):
        nodes = [r.integers(0, 3, 8), r.normal(size=8), r.integers(0, 7, 8), np.ones((8, 2))]
        x = np.where(r.random((4, 3)) < 0.2, np.nan, r.normal(size=(4, 3)))
        ins = [x, *nodes]
        assert np.array_equal(*(execute(program, ins, k()) for k in (NumpyBackend, Oracle)))


def test_gas_counts_every_step_of_every_row():
    base, deeper = (check(build(depth=d)).gas for d in (10, 20))
    assert deeper - base == 4 * 2 * 8 * 10


def test_a_tree_without_end_is_refused():
    endless = Tree(*(np.array([v]) for v in (0, 0.0, 0, 0)), np.ones((1, 1)))
    with pytest.raises(ConfigError, match="comes back"):
        ask(np.zeros((1, 1)), [endless])
