"""Ops that move elements, meet parts of a tensor, or sum along an axis."""

from __future__ import annotations

import numpy as np
import pytest

from mlchain.errors import RejectedProgram
from mlchain.ml_runtime import NumpyBackend, Oracle, ShardedBackend
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import execute, plan_arena
from mlchain.ml_runtime.program import check
from mlchain.ml_runtime.tensor import Type, finite, grid, labels, stored

r = np.random.default_rng(11)


def integers(*shape: int) -> np.ndarray:
    return r.integers(-99, 99, shape).astype(np.float64)


def one(name: str, *kinds: Type, **attributes: int) -> Type:
    b = Builder()
    return b.type(b.emit(name, *(b.input(k) for k in kinds), **attributes))


def test_a_grid_that_is_moved_stays_on_its_grid():
    b = Builder()
    x = b.input(grid(16, 2, 3, 4))
    for register in (
        b.reshape(x, (6, 4)),
        b.transpose(x, 2, 0, 1),
        b.emit("slice", x, axis=1, start=0, stop=2),
        b.emit("pad", x, axis=1, before=0, after=2),
        b.emit("repeat", x, axis=0, count=2),
    ):
        assert (b.type(register).kind, b.type(register).bound) == ("G", 16)


def test_two_grids_together_are_none():
    assert one("concatenate", grid(16, 2), grid(16, 3), axis=0) == finite(5)
    assert one("concatenate", labels(4, 2), labels(4, 3), axis=0) == labels(4, 5)


@pytest.mark.parametrize("flags", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("stack", [(), (3,), (3, 2)])
def test_a_product_of_stacks_is_numpy_s(stack, flags):
    x, y = integers(*stack, 4, 5), integers(*stack, 5, 6)
    expected = x @ y
    x, y = (v.swapaxes(-1, -2).copy() if f else v for v, f in zip((x, y), flags, strict=True))
    b = Builder()
    a, c = b.input(grid(16, *x.shape)), b.input(grid(16, *y.shape))
    program = b.program([b.matmul(a, c, *map(bool, flags))])
    for backend in (NumpyBackend(), Oracle()):
        assert np.array_equal(execute(program, [x, y], backend)[0], expected)


def test_the_gas_of_a_stack_is_that_of_its_products():
    def work(*stack: int) -> int:
        b = Builder()
        kinds = [grid(16, *stack, 64, 64)] * 2
        b.matmul(*(b.input(k) for k in kinds))
        return check(b.program([2])).gas - 4000

    assert work(5) == 5 * work() + 4 * 80


@pytest.mark.parametrize(
    ("name", "kinds", "attributes"),
    [
        ("add", [finite(2, 3), finite(2)], {}),
        ("multiply", [finite(3), finite(2, 3)], {}),
        ("matmul", [grid(16, 2, 3, 4), grid(16, 4, 5)], {"transpose_a": 0, "transpose_b": 0}),
        ("matmul", [grid(16, 4), grid(16, 4)], {"transpose_a": 0, "transpose_b": 0}),
        ("matmul", [grid(30, 2, 1, 4), grid(30, 2, 4, 1)], {"transpose_a": 0, "transpose_b": 0}),
        ("reshape", [finite(2, 3)], {"d0": 5, "d1": 0, "d2": 0, "d3": 0}),
        ("reshape", [finite(2, 3)], {"d0": 2, "d1": 0, "d2": 3, "d3": 0}),
        ("reshape", [finite(2, 3)], {"d0": -2, "d1": -3, "d2": 0, "d3": 0}),
        ("transpose", [finite(2, 3)], {"d0": 0, "d1": 2, "d2": 1, "d3": 3}),
        ("transpose", [finite(2, 3)], {"d0": 0, "d1": 0, "d2": 2, "d3": 3}),
        ("slice", [finite(2, 3)], {"axis": 1, "start": 2, "stop": 4}),
        ("slice", [finite(2, 3)], {"axis": 2, "start": 0, "stop": 1}),
        ("slice", [finite(2, 3)], {"axis": 0, "start": 1, "stop": 1}),
        ("pad", [finite(2, 3)], {"axis": 0, "before": -1, "after": 1}),
        ("pad", [finite(2, 3)], {"axis": 0, "before": 2**31, "after": 0}),
        ("concatenate", [finite(2, 3), finite(3, 3)], {"axis": 1}),
        ("concatenate", [finite(2), stored(2)], {"axis": 0}),
        ("sum_axis", [finite(2, 3)], {"axis": 0}),
        ("sum_axis", [grid(48, 2, 65)], {"axis": 1}),
        ("repeat", [finite(1, 1, 1, 1)], {"axis": 0, "count": 2}),
        ("repeat", [finite(2)], {"axis": 0, "count": 0}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, kinds, attributes):
    with pytest.raises(RejectedProgram):
        one(name, *kinds, **attributes)


def test_a_reshape_of_what_nobody_else_reads_moves_nothing():
    b = Builder()
    x = b.input(finite(4, 6))
    y = b.emit("relu", x)
    z = b.reshape(y, (2, 12))
    checked = check(b.program([b.emit("tanh", z)]))
    offsets, size = plan_arena(checked)
    assert offsets[y] == offsets[z]
    assert size == 192


def sharded_program() -> tuple[Builder, int]:
    """Rows become more rows and fewer again; heads are split off, summed over, multiplied."""
    b = Builder()
    x, _ = b.input(grid(16, 10, 12)), b.input(labels(3, 10))
    w, bias = b.input(stored(4, 4)), b.input(stored(3, 4))
    tokens = b.reshape(x, (30, 4))
    h = b.reshape(b.matmul(tokens, w), (10, 3, 4))
    h = b.emit("add", h, b.emit("widen", bias))
    heads = b.transpose(b.reshape(h, (10, 3, 2, 2)), 0, 2, 1, 3)
    q = b.on_grid(heads, 16)
    scores = b.emit("matmul", q, q, transpose_a=0, transpose_b=1)
    mixed = b.matmul(scores, q)
    left = b.emit("slice", mixed, axis=1, start=0, stop=1)
    right = b.emit("pad", left, axis=1, before=1, after=0)
    both = b.emit("concatenate", mixed, right, axis=3)
    summed = b.emit("sum_axis", b.on_grid(both, 32), axis=2)
    spread = b.emit("repeat", summed, axis=1, count=2)
    total = b.emit("sum_axis", b.on_grid(spread, 32), axis=0)
    return b, b.emit("multiply", total, total)


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_rows_split_over_shards_give_the_same_bits(shards):
    b, out = sharded_program()
    program = b.program([out])
    inputs = [integers(10, 12), np.zeros(10, np.int64)]
    inputs += [np.float32(r.normal(size=s)) for s in ((4, 4), (3, 4))]
    traces: list[list[bytes]] = [[], []]
    execute(program, inputs, NumpyBackend(), traces[0])
    execute(program, inputs, ShardedBackend(shards), traces[1])
    assert traces[0] == traces[1]


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("transpose", {"d0": 1, "d1": 0, "d2": 2, "d3": 3}),
        ("slice", {"axis": 0, "start": 0, "stop": 1}),
        ("pad", {"axis": 0, "before": 1, "after": 0}),
        ("repeat", {"axis": 0, "count": 2}),
        ("reshape", {"d0": 3, "d1": 4, "d2": 0, "d3": 0}),
    ],
)
def test_what_mixes_the_rows_cannot_be_split_by_rows(name, attributes):
    b = Builder()
    x, _ = b.input(finite(4, 3)), b.input(labels(2, 4))
    program = b.program([b.emit(name, x, **attributes)])
    with pytest.raises(RejectedProgram, match="cannot be split"):
        execute(program, [np.ones((4, 3)), np.zeros(4, np.int64)], ShardedBackend(4))
