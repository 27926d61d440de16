"""The ops of neural nets: rows that stand for themselves, windows, tables, dropout."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlchain.errors import RejectedProgram, Trap
from mlchain.ml_runtime import NumpyBackend, Oracle, ShardedBackend
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import bind_step, execute
from mlchain.ml_runtime.tensor import Array, Type, finite, grid, labels, stored

r = np.random.default_rng(12)
KEY = np.float32([0.25, -0.5, 0.125, 0.75])
WINDOW = {"kernel_height": 2, "kernel_width": 2, "stride": 2}


def apply(name: str, *operands: tuple[Type, Array], **attributes: float) -> list[Array]:
    """Run one op."""
    b = Builder()
    outs = b.emit_all(name, *(b.input(kind) for kind, _ in operands), **attributes)
    return execute(b.program(outs), [array for _, array in operands], NumpyBackend())


def real(x: Array) -> tuple[Type, Array]:
    return finite(*x.shape), np.ascontiguousarray(x)


def test_layer_norm_is_the_usual_one_to_32_bits():
    x = r.normal(size=(3, 4, 50)) * 5 + 2
    y, factor = apply("layer_norm", real(x), epsilon=1e-5)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    assert np.abs(y - expected).max() < 1e-8
    assert np.allclose(factor, 1 / np.sqrt(x.var(-1) + 1e-5), rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [("layer_norm", {"epsilon": 1e-5}), ("softmax", {}), ("causal_softmax", {})],
)
def test_a_row_alone_has_its_bits(name, attributes):
    x = r.normal(size=(6, 5, 5)) * np.exp(r.normal(size=(6, 5, 1)) * 9)
    together = apply(name, real(x), **attributes)[0]
    for i in range(len(x)):
        assert np.array_equal(apply(name, real(x[i : i + 1]), **attributes)[0][0], together[i])


def test_one_grid_for_the_tensor_would_change_a_row():
    """Control: rounded with its neighbours, a small row has other bits."""
    x = r.normal(size=(2, 8)) * np.array([[1.0], [1e9]])
    together = apply("quantise", real(x), bits=32)[0][0]
    assert not np.array_equal(together, apply("quantise", real(x[:1]), bits=32)[0][0])


def test_a_causal_softmax_sees_no_later_place():
    z = r.normal(size=(2, 6, 6))
    p = apply("causal_softmax", real(z))[0]
    assert np.allclose(p.sum(-1), 1)
    assert not np.triu(p, 1).any()
    z += np.triu(np.full((6, 6), 1e300), 1)
    assert np.array_equal(apply("causal_softmax", real(z))[0], p)
    assert np.array_equal(p[:, 3, :4], apply("softmax", real(z[:, 3, :4]))[0])


def test_erf_is_odd_exact_at_its_ends_and_within_two_billionths():
    x = np.concatenate([np.linspace(-8, 8, 4001), [0.0, -40.0, 1e300, np.inf]])
    (y,) = apply("erf", real(x))
    assert np.abs(y - [math.erf(v) for v in x]).max() < 2e-9
    assert np.array_equal(y, -apply("erf", real(-x))[0])
    assert list(y[-4:]) == [0.0, -1.0, 1.0, 1.0]


def test_gelu_is_the_form_with_tanh():
    x = np.linspace(-9, 9, 1001)
    y, _ = apply("gelu", real(x))
    expected = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    assert np.abs(y - expected).max() < 1e-14


def test_exp_and_log_are_inverse():
    x = np.linspace(-60, 60, 999)
    (e,) = apply("exp", real(x))
    assert np.abs(apply("log", real(e))[0] - x).max() < 1e-12


def test_im2col_and_its_kernel_are_a_convolution():
    x, w = r.integers(-9, 9, (2, 5, 6, 3)) * 1.0, r.integers(-9, 9, (2, 3, 3, 4)) * 1.0
    window = {"kernel_height": 2, "kernel_width": 3, "stride": 1}
    (columns,) = apply("im2col", real(x), **window)
    product = (columns @ w.reshape(18, 4)).reshape(2, 4, 4, 4)
    for row, column in np.ndindex(4, 4):
        part = x[:, row : row + 2, column : column + 3]
        assert np.array_equal(product[:, row, column], np.einsum("nijc,ijco->no", part, w))


def test_im2col_keeps_the_grid():
    b = Builder()
    assert b.type(b.emit("im2col", b.input(grid(16, 2, 4, 4, 3)), **WINDOW)) == grid(16, 8, 12)


def test_of_equal_numbers_the_first_takes_the_gradient():
    x = np.zeros((1, 4, 4, 1))
    (y,) = apply("max_pool", real(x), **WINDOW)
    (g,) = apply("max_pool_gradient", real(np.ones(y.shape)), real(x), real(y), **WINDOW)
    assert np.array_equal(g[0, :, :, 0], np.kron(np.ones((2, 2)), [[1, 0], [0, 0]]))


def test_average_pool_is_the_mean():
    x = r.normal(size=(2, 6, 4, 3))
    (y,) = apply("average_pool", real(x), **WINDOW)
    assert np.allclose(y, x.reshape(2, 3, 2, 2, 2, 3).mean((2, 4)))


def test_a_table_s_gradient_is_exact_in_any_order():
    index = r.integers(0, 5, (3, 40))
    g = r.integers(-(2**20), 2**20, (3, 40, 4)) * 1.0
    operands = [(grid(32, 3, 40, 4), g), (labels(5, 3, 40), index)]
    (table,) = apply("scatter_add", *operands, rows=7)
    expected = np.zeros((7, 4))
    np.add.at(expected, index, g)
    assert np.array_equal(table, expected)


@pytest.mark.parametrize("value", [-1.0, 3.0, np.nan, np.inf, -0.51, 2.5001])
def test_what_is_no_index_traps(value):
    with pytest.raises(Trap, match="no index"):
        apply("index", real(np.array([0.0, value])), count=3, exponent=0)


def test_an_index_is_the_integer_of_a_dataset_s_mantissa():
    tokens = np.arange(0, 32768, 77)
    (index,) = apply("index", real(tokens * 2.0**-15), count=32768, exponent=15)
    assert np.array_equal(index, tokens)


def drop(x: Array, step: float, index: int = 0, keep: int = 32768) -> Array:
    key, clock = (stored(4), KEY), (stored(), np.float32(step))
    return apply("dropout", real(x), key, clock, index=index, keep=keep)[0]


def test_dropout_keeps_its_share_and_the_mean():
    x = np.ones((300, 301))
    y = drop(x, 3, keep=49152)
    assert set(np.unique(y)) == {0.0, 65536 / 49152}
    assert abs((y > 0).mean() - 0.75) < 0.01
    assert np.array_equal(drop(x, 3, keep=65536), x)


def test_the_mask_depends_on_step_and_index_and_nothing_else():
    x = np.ones((40, 40))
    first = drop(x, 1)
    assert np.array_equal(first, drop(x, 1))
    assert np.array_equal(drop(3 * x, 1), 3 * first)
    assert 0.4 < (first != drop(x, 2)).mean() < 0.6
    assert 0.4 < (first != drop(x, 1, index=1)).mean() < 0.6


def rows_program() -> Builder:
    """Every op of a net, on rows that shards can split."""
    b = Builder()
    x, y = b.input(grid(16, 10, 48)), b.input(labels(3, 10))
    key, clock = b.input(stored(4)), b.input(stored())
    table = b.emit("widen", b.input(stored(6, 3)))
    images = b.reshape(x, (10, 4, 4, 3))
    columns = b.emit("im2col", images, **WINDOW)
    back = b.emit("col2im", columns, height=4, width=4, **WINDOW)
    most = b.emit("max_pool", back, **WINDOW)
    b.emit("max_pool_gradient", most, back, most, **WINDOW)
    mean = b.emit("average_pool", back, **WINDOW)
    b.emit("average_pool_gradient", mean, height=4, width=4, **WINDOW)
    normal, factor = b.emit_all("layer_norm", mean, epsilon=1e-5)
    b.emit("layer_norm_gradient", mean, normal, factor)
    dropped = b.emit("dropout", b.reshape(mean, (40, 3)), key, clock, index=0, keep=40000)
    act, s = b.emit_all("gelu", b.emit("dropout", mean, key, clock, index=1, keep=9999))
    b.emit("gelu_gradient", act, act, s)
    squares = b.emit("slice", b.reshape(x, (10, 12, 4)), axis=1, start=0, stop=4)
    p = b.emit("causal_softmax", squares)
    b.emit("softmax_gradient", squares, p)
    entries = b.emit("gather", table, y)
    b.emit("scatter_add", b.on_grid(entries, 32), y, rows=6)
    b.emit("exp", b.emit("log", b.emit("softmax", dropped)))
    return b


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_rows_split_over_shards_give_the_same_bits(shards):
    b = rows_program()
    program = b.program([register for node in b.nodes for register in node.outputs])
    inputs = [r.integers(-99, 99, (10, 48)) * 1.0, r.integers(0, 3, 10), KEY, np.float32(5)]
    inputs.append(np.float32(r.normal(size=(6, 3))))
    traces: list[list[bytes]] = [[], [], []]
    backends = NumpyBackend(), ShardedBackend(shards), Oracle()
    for backend, trace in zip(backends, traces, strict=True):
        execute(program, inputs, backend, trace)
    assert traces[0] == traces[1] == traces[2]


def test_shards_that_all_begin_at_the_first_element_would_drop_others(monkeypatch):
    """Control: without its place in the batch a shard draws the mask of the first rows."""
    x = np.ones((10, 7))
    b = Builder()
    a, _, key, clock = (b.input(t) for t in (finite(10, 7), labels(2, 10), stored(4), stored()))
    program = b.program([b.emit("dropout", a, key, clock, index=0, keep=32768)])
    inputs = [x, np.zeros(10, np.int64), KEY, np.float32(1)]
    whole = execute(program, inputs, NumpyBackend())[0]
    assert np.array_equal(execute(program, inputs, ShardedBackend(3))[0], whole)
    monkeypatch.setattr("mlchain.ml_runtime.shard.bind_step", lambda *a: bind_step(*a[:3]))
    assert not np.array_equal(execute(program, inputs, ShardedBackend(3))[0], whole)


@pytest.mark.parametrize(
    ("name", "kinds", "attributes"),
    [
        ("layer_norm", [finite(2, 8193)], {"epsilon": 1e-5}),
        ("layer_norm", [finite(2, 3)], {"epsilon": 0.0}),
        ("layer_norm", [finite(3)], {"epsilon": 1e-5}),
        ("causal_softmax", [finite(2, 3)], {}),
        ("softmax", [finite()], {}),
        ("softmax", [finite(2, 8193)], {}),
        ("im2col", [finite(2, 3, 3)], WINDOW),
        ("im2col", [finite(1, 1, 3, 1)], WINDOW),
        ("im2col", [finite(1, 3, 3, 1)], {**WINDOW, "stride": 0}),
        ("col2im", [finite(4, 7)], {"height": 4, "width": 4, **WINDOW}),
        ("col2im", [finite(3, 8)], {"height": 4, "width": 4, **WINDOW}),
        ("average_pool_gradient", [finite(1, 2, 3, 1)], {"height": 4, "width": 4, **WINDOW}),
        ("gather", [finite(2, 3), labels(3, 4)], {}),
        ("gather", [finite(2, 3, 1, 1), labels(2, 4, 1)], {}),
        ("scatter_add", [finite(4, 2), labels(2, 4)], {"rows": 2}),
        ("scatter_add", [grid(32, 4, 2), labels(3, 4)], {"rows": 2}),
        ("scatter_add", [grid(48, 65), labels(3, 65)], {"rows": 3}),
        ("index", [stored(2)], {"count": 2, "exponent": 0}),
        ("dropout", [finite(2), stored(3), stored()], {"index": 0, "keep": 1}),
        ("dropout", [finite(2), stored(4), stored()], {"index": 0, "keep": 65537}),
        ("gelu", [stored(2)], {}),
    ],
)
def test_types_that_do_not_fit_are_refused(name, kinds, attributes):
    b = Builder()
    with pytest.raises(RejectedProgram):
        b.emit_all(name, *(b.input(kind) for kind in kinds), **attributes)
