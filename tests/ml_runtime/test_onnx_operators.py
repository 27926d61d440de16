"""Each operator alone, over random shapes and attributes: what it says is what onnxruntime says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlchain.ml_runtime.importers.onnx import from_onnx

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
helper = onnx.helper


class Case:
    """One operator in the making: x of 1 x shape, further constants, attributes."""

    def __init__(self, seed: int, windows: bool) -> None:
        self.r, self.g = random.Random(seed), np.random.default_rng(seed)
        axes = self.r.choice([2, 3] if windows else [1, 2, 3])
        sizes = [self.r.randint(3, 9) if windows else self.r.randint(1, 5) for _ in range(axes)]
        self.shape = [1, self.r.randint(1, 4), *sizes[1:]] if windows else [1, *sizes]
        self.inputs, self.attributes, self.constants = ["x"], {}, {}
        self.outputs = ["y"]

    @property
    def axis(self) -> int:
        return self.r.randint(1, len(self.shape) - 1)

    def add(self, value: Any, kind: str = "f4", first: bool = False) -> None:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, kind)
        self.inputs.insert(0 if first else len(self.inputs), name)

    def reals(self, *shape: int, first: bool = False) -> None:
        self.add(self.g.normal(size=shape), first=first)

    def like(self, first: bool = False) -> None:
        """A constant that is stretched to x."""
        cut = self.r.randint(0, len(self.shape))
        self.reals(*(d if self.r.random() < 0.6 else 1 for d in self.shape[cut:]), first=first)

    def pool(self) -> int:
        axes = len(self.shape) - 2
        self.attributes |= {
            "strides": [self.r.choice([1, 2])] * axes,
            "pads": [self.r.randint(0, 1) for _ in range(2 * axes)],
        }
        return axes


def two(c: Case) -> None:
    c.like(first=c.r.random() < 0.4)


def reduce(c: Case) -> None:
    axes = range(1, len(c.shape))
    chosen = sorted(c.r.sample(axes, c.r.randint(1, len(axes))))
    c.attributes |= {"axes": chosen, "keepdims": c.r.randint(0, 1)}


def matmul(c: Case) -> None:
    if c.r.random() < 0.3 and len(c.shape) > 2:
        c.reals(2, c.shape[-2], first=True)
    else:
        c.reals(c.shape[-1], *([c.r.randint(1, 4)] if c.r.random() < 0.7 else []))


def gemm(c: Case) -> None:
    c.shape = c.shape[:2]
    turned, m = c.r.randint(0, 1), c.r.randint(1, 4)
    c.attributes |= {"alpha": 0.5, "beta": 2.0, "transB": turned}
    c.reals(*((m, c.shape[1]) if turned else (c.shape[1], m)))
    c.reals(*c.r.choice([(m,), (1, m), ()]))


def conv(c: Case) -> None:
    axes, groups = c.pool(), c.shape[1] if c.r.random() < 0.3 else 1
    c.attributes |= {"group": groups, "dilations": [c.r.choice([1, 1, 2])] * axes}
    c.reals(groups * 2, c.shape[1] // groups, *(c.r.randint(1, 2) for _ in range(axes)))
    c.reals(groups * 2)


def pool(c: Case) -> None:
    c.attributes["kernel_shape"] = [c.r.randint(2, 3) for _ in range(c.pool())]


def average(c: Case) -> None:
    pool(c)
    c.attributes["count_include_pad"] = c.r.randint(0, 1)


def norm(c: Case) -> None:
    axis = c.attributes["axis"] = c.axis
    c.reals(*c.shape[axis:])
    c.reals(*c.shape[axis:])


def batch_norm(c: Case) -> None:
    for _ in range(3):
        c.reals(c.shape[1])
    c.add(c.g.uniform(0.1, 2, c.shape[1]))


def softmax(c: Case) -> None:
    c.attributes["axis"] = c.axis


def transpose(c: Case) -> None:
    axes = list(range(1, len(c.shape)))
    c.attributes["perm"] = [0, *c.r.sample(axes, len(axes))]


def cut(c: Case) -> None:
    axis = c.axis
    size = c.shape[axis]
    start, step = c.r.randint(0, size - 1), c.r.choice([1, 1, 2, -1, -2])
    for value in (start, 2**31 if step > 0 else -(2**31), axis, step):
        c.add([value], "i8")


def gather(c: Case) -> None:
    axis = c.attributes["axis"] = c.axis
    c.add(c.g.integers(-c.shape[axis], c.shape[axis], c.r.choice([(), (1,), (3,)])), "i8")


def concat(c: Case) -> None:
    c.attributes["axis"] = c.axis
    c.reals(*c.shape)


def split(c: Case) -> None:
    axis = c.attributes["axis"] = c.axis
    parts = c.r.randint(1, c.shape[axis])
    c.outputs = ["y", *(f"y{i}" for i in range(parts - 1))]
    c.add([*[1] * (parts - 1), c.shape[axis] - parts + 1], "i8")


def pad(c: Case) -> None:
    sides = [[0, *(c.r.randint(0, 2) for _ in c.shape[1:])] for _ in range(2)]
    c.add(sides[0] + sides[1], "i8")


def expand(c: Case) -> None:
    c.add([d if d > 1 else c.r.randint(1, 3) for d in [0, *c.shape[1:]]], "i8")
    c.constants["c0"][0] = 1


def tile(c: Case) -> None:
    c.add([1, *(c.r.randint(1, 3) for _ in c.shape[1:])], "i8")


def where(c: Case) -> None:
    c.add(c.g.integers(0, 2, c.shape[c.r.randint(0, 1) :]), "?", first=True)
    c.like()
    if c.r.random() < 0.5:
        c.inputs[1:] = c.inputs[:0:-1]


def clip(c: Case) -> None:
    c.add(-0.5)
    c.add(0.7)


def power(c: Case) -> None:
    c.add(c.r.choice([1, 2, 3, 4]))


def plain(c: Case) -> None:
    """Nothing beside x."""


CASES: dict[str, Callable[[Case], None]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min", "Div"), two),
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "Exp", "Abs", "Neg", "Erf", "Round"), plain),
    **dict.fromkeys(("Elu", "LeakyRelu", "HardSigmoid", "Floor", "Identity", "Flatten"), plain),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2"), reduce),
    **dict.fromkeys(("ReduceSumSquare", "ReduceProd", "ReduceLogSumExp"), reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    "MatMul": matmul,
    "Gemm": gemm,
    "LayerNormalization": norm,
    "Transpose": transpose,
    "BatchNormalization": batch_norm,
    "Clip": clip,
    "Pow": power,
    "Where": where,
    "Slice": cut,
    "Gather": gather,
    "Concat": concat,
    "Split": split,
    "Pad": pad,
    "Expand": expand,
    "Tile": tile,
    "Conv": conv,
    "MaxPool": pool,
    "AveragePool": average,
    "GlobalAveragePool": plain,
    "GlobalMaxPool": plain,
}
WINDOWS = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")


@pytest.mark.parametrize("op", CASES)
def test_an_operator_says_what_onnxruntime_says(op):
    for seed in range(6):
        c = Case(seed, op in WINDOWS)
        CASES[op](c)
        node = helper.make_node(op, c.inputs, c.outputs, **c.attributes)
        x = helper.make_tensor_value_info("x", 1, ["batch", *c.shape[1:]])
        y = helper.make_tensor_value_info("y", 1, None)
        weights = [onnx.numpy_helper.from_array(v, k) for k, v in c.constants.items()]
        graph = helper.make_graph([node], op, [x], [y], weights)
        opsets = [helper.make_opsetid("", 17)]
        data = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
        session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
        rows = c.g.normal(size=[3, *c.shape[1:]]).astype("f4")
        said = np.array([session.run(["y"], {"x": row[None]})[0].reshape(-1) for row in rows])
        scores = from_onnx(data).scores(rows.reshape(3, -1))
        assert scores.shape == said.shape, (seed, c.shape, c.attributes)
        error = np.abs(scores - said).max() / max(1, np.abs(said).max())
        assert error < 1e-5, (seed, c.shape, c.attributes)


def test_rows_that_fill_a_block_up_do_not_trap():
    """Three rows run as four; 1 / x of a row of zeros would be infinite."""
    node = helper.make_node("Reciprocal", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, 1, ["batch", 2]) for name in "xy")
    graph = helper.make_graph([node], "g", [x], [y])
    opsets = [helper.make_opsetid("", 17)]
    model = from_onnx(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    assert np.array_equal(model.scores(np.full((3, 2), 4.0)), np.full((3, 2), 0.25))
