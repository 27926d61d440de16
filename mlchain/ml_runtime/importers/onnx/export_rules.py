"""How each op is written in ONNX, one rule an op.

Images are n x height x width x channels here and n x channels x height x width there, so what
works on windows stands between two transposes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlchain.errors import ConfigError
from mlchain.ml_runtime import functions
from mlchain.ml_runtime.importers.onnx.graph import Node
from mlchain.ml_runtime.program import Checked, Step
from mlchain.ml_runtime.tensor import Array

Rule = Callable[["Writing", Step], Sequence[str]]
EXPORTS: dict[str, Rule] = {}


class Writing:
    """An ONNX graph in the making."""

    def __init__(self, checked: Checked, kind: str) -> None:
        """Begin the graph of a program; `kind` is numpy's name of the reals it computes in."""
        self.checked, self.kind = checked, np.dtype(kind)
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self.names: dict[int, str] = {}
        self.parameters: dict[int, Array] = {}
        """Arrays of registers that are constants, written where they are read."""
        self.windows: dict[int, Step] = {}
        """The im2col behind a register, kept back for the product it is made for."""
        self.rows: set[int] = set()
        """Registers that depend on x."""

    def node(self, op: str, *inputs: str, output: str = "", domain: str = "", **attrs: Any) -> str:
        """Write a node of one output; return its name."""
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(Node(domain, op, inputs, (name,), attrs))
        return name

    def raw(self, array: Array) -> str:
        """Write a constant as it is; return its name."""
        for name, known in self.constants.items():
            if known is array:
                return name
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def constant(self, values: Any) -> str:
        """Write a constant of reals; return its name."""
        return self.raw(np.asarray(values, np.float64).astype(self.kind))

    def integers(self, *values: int) -> str:
        """Write a list of integers; return its name."""
        return self.raw(np.array(values, np.int64))

    def name(self, register: int) -> str:
        """Return the name of a register, writing it first if that has been put off."""
        if register not in self.names:
            if register in self.windows:
                self.names[register] = _all_windows(self, self.windows[register])
            else:
                array = self.parameters[register]
                self.names[register] = (
                    self.raw(array) if array.dtype.kind == "i" else self.constant(array)
                )
        return self.names[register]

    def shape(self, register: int) -> tuple[int, ...]:
        """Return the shape of a register, with the batch of the program."""
        return self.checked.types[register].shape


def export(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: enter a rule into the table."""

    def enter(rule: Rule) -> Rule:
        EXPORTS.update(dict.fromkeys(names, rule))
        return rule

    return enter


_PLAIN = {
    "absolute": "Abs",
    "add": "Add",
    "divide": "Div",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "maximum": "Max",
    "minimum": "Min",
    "multiply": "Mul",
    "relu": "Relu",
    "rint": "Round",
    "sigmoid": "Sigmoid",
    "square_root": "Sqrt",
    "subtract": "Sub",
    "tanh": "Tanh",
}


@export(*_PLAIN)
def _plain(w: Writing, s: Step) -> Sequence[str]:
    return [w.node(_PLAIN[s.op.name], *(w.name(r) for r in s.inputs))]


@export("quantise", "quantise_rows", "widen", "store")
def _nothing(w: Writing, s: Step) -> Sequence[str]:
    """Roundings vanish: the register is another name of what it rounds."""
    (source,), (target,) = s.inputs, s.outputs
    if source in w.parameters:
        w.parameters[target] = w.parameters[source].astype(np.float64)
    if source in w.windows:
        w.windows[target] = w.windows[source]
    for table in (w.parameters, w.windows):
        if target in table:
            return ()
    return [w.name(source)]


@export("saturate")
def _saturate(w: Writing, s: Step) -> Sequence[str]:
    bits, exponent = (int(v) for v in s.attrs)
    limit = 2.0**exponent - 2.0 ** (exponent - (bits - 1))
    if limit > float(np.finfo(w.kind).max):
        return _nothing(w, s)
    return [w.node("Clip", w.name(s.inputs[0]), w.constant(-limit), w.constant(limit))]


@export("round_single")
def _round_single(w: Writing, s: Step) -> Sequence[str]:
    name = w.name(s.inputs[0])
    if w.kind == np.float32:
        return [name]
    return [w.node("Cast", w.node("Cast", name, to=1), to=11)]


@export("constant")
def _constant(w: Writing, s: Step) -> Sequence[str]:
    return [w.constant(s.attrs[0])]


@export("positions")
def _positions(w: Writing, s: Step) -> Sequence[str]:
    return [w.constant(np.arange(int(s.attrs[0])))]


@export("scale")
def _scale(w: Writing, s: Step) -> Sequence[str]:
    return [w.node("Mul", w.name(s.inputs[0]), w.constant(s.attrs[0]))]


@export("gelu")
def _gelu(w: Writing, s: Step) -> Sequence[str]:
    x = w.name(s.inputs[0])
    cube = w.node("Mul", w.node("Mul", w.node("Mul", x, x), x), w.constant(functions.GELU_CUBE))
    slope = w.constant(functions.GELU_SLOPE)
    share = w.node("Sigmoid", w.node("Mul", w.node("Add", cube, x), slope))
    return [w.node("Mul", x, share), share]


@export("compare")
def _compare(w: Writing, s: Step) -> Sequence[str]:
    op = ("Less", "LessOrEqual", "Equal")[int(s.attrs[0])]
    found = w.node(op, *(w.name(r) for r in s.inputs))
    return [w.node("Cast", found, to=1 if w.kind == np.float32 else 11)]


@export("select")
def _select(w: Writing, s: Step) -> Sequence[str]:
    condition, yes, no = (w.name(r) for r in s.inputs)
    return [w.node("Where", w.node("Greater", condition, w.constant(0.0)), yes, no)]


@export("spread")
def _spread(w: Writing, s: Step) -> Sequence[str]:
    number, like = (w.name(r) for r in s.inputs)
    return [w.node("Expand", number, w.node("Shape", like))]


# Along axes


@export("matmul")
def _matmul(w: Writing, s: Step) -> Sequence[str]:
    left, right = s.inputs
    if left in w.windows and right in w.parameters and not s.attrs[0]:
        return [_conv(w, w.windows[left], _array(w, right, bool(s.attrs[1])))]
    names = [
        w.constant(_array(w, r, bool(flag))) if r in w.parameters else _turned(w, r, bool(flag))
        for r, flag in zip(s.inputs, s.attrs, strict=True)
    ]
    return [w.node("MatMul", *names)]


def _array(w: Writing, register: int, is_turned: bool) -> Array:
    array = w.parameters[register]
    return array.swapaxes(-1, -2) if is_turned else array


def _turned(w: Writing, register: int, is_turned: bool) -> str:
    rank = len(w.shape(register))
    order = [*range(rank - 2), rank - 1, rank - 2]
    return w.node("Transpose", w.name(register), perm=order) if is_turned else w.name(register)


@export("sum_axis")
def _sum_axis(w: Writing, s: Step) -> Sequence[str]:
    axis = w.integers(int(s.attrs[0]))
    return [w.node("ReduceSum", w.name(s.inputs[0]), axis, keepdims=0)]


@export("row_maximum")
def _row_maximum(w: Writing, s: Step) -> Sequence[str]:
    return [w.node("ReduceMax", w.name(s.inputs[0]), axes=[-1], keepdims=0)]


@export("argmax")
def _argmax(w: Writing, s: Step) -> Sequence[str]:
    return [w.node("ArgMax", w.name(s.inputs[0]), axis=-1, keepdims=0)]


@export("softmax")
def _softmax(w: Writing, s: Step) -> Sequence[str]:
    return [w.node("Softmax", w.name(s.inputs[0]), axis=-1)]


@export("causal_softmax")
def _causal_softmax(w: Writing, s: Step) -> Sequence[str]:
    size = w.shape(s.inputs[0])[-1]
    later = np.triu(np.full((size, size), -np.inf), 1)
    masked = w.node("Add", w.name(s.inputs[0]), w.constant(later))
    return [w.node("Softmax", masked, axis=-1)]


@export("layer_norm")
def _layer_norm(w: Writing, s: Step) -> Sequence[str]:
    ones = w.constant(np.ones(w.shape(s.inputs[0])[-1]))
    epsilon = float(s.attrs[0])
    norm = w.node("LayerNormalization", w.name(s.inputs[0]), ones, axis=-1, epsilon=epsilon)
    return [norm, ""]  # the second output serves gradients only


# Moving


@export("reshape")
def _reshape(w: Writing, s: Step) -> Sequence[str]:
    shape = list(w.shape(s.outputs[0]))
    if s.outputs[0] in w.rows:
        shape[0] = -1
    return [w.node("Reshape", w.name(s.inputs[0]), w.integers(*shape))]


@export("transpose")
def _transpose(w: Writing, s: Step) -> Sequence[str]:
    order = [int(d) for d in s.attrs[: len(w.shape(s.inputs[0]))]]
    return [w.node("Transpose", w.name(s.inputs[0]), perm=order)]


@export("slice")
def _slice(w: Writing, s: Step) -> Sequence[str]:
    axis, start, stop = (w.integers(int(v)) for v in s.attrs)
    return [w.node("Slice", w.name(s.inputs[0]), start, stop, axis)]


@export("pad")
def _pad(w: Writing, s: Step) -> Sequence[str]:
    axis, before, after = (int(v) for v in s.attrs)
    rank = len(w.shape(s.inputs[0]))
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = before, after
    return [w.node("Pad", w.name(s.inputs[0]), w.integers(*pads))]


@export("concatenate")
def _concatenate(w: Writing, s: Step) -> Sequence[str]:
    return [w.node("Concat", *(w.name(r) for r in s.inputs), axis=int(s.attrs[0]))]


@export("repeat")
def _repeat(w: Writing, s: Step) -> Sequence[str]:
    axis, count = (int(v) for v in s.attrs)
    shape = [1] * len(w.shape(s.outputs[0]))
    shape[axis] = count
    opened = w.node("Unsqueeze", w.name(s.inputs[0]), w.integers(axis))
    return [w.node("Expand", opened, w.integers(*shape))]


@export("index")
def _index(w: Writing, s: Step) -> Sequence[str]:
    scaled = w.node("Mul", w.name(s.inputs[0]), w.constant(2.0 ** int(s.attrs[1])))
    return [w.node("Cast", w.node("Round", scaled), to=7)]


@export("gather")
def _gather(w: Writing, s: Step) -> Sequence[str]:
    table, index = (w.name(r) for r in s.inputs)
    return [w.node("Gather", table, index, axis=0)]


# Windows

_FIRST, _LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@export("im2col")
def _im2col(w: Writing, s: Step) -> Sequence[str]:
    w.windows[s.outputs[0]] = s
    return ()


def _conv(w: Writing, s: Step, weights: Array) -> str:
    """Write windows @ weights as a convolution; the result has a row for each window."""
    height, width, stride = (int(v) for v in s.attrs)
    channels, outputs = w.shape(s.inputs[0])[3], weights.shape[1]
    kernel = weights.reshape(height, width, channels, outputs).transpose(3, 2, 0, 1)
    images = w.node("Transpose", w.name(s.inputs[0]), perm=_FIRST)
    made = w.node("Conv", images, w.constant(kernel), strides=[stride, stride])
    return w.node("Reshape", w.node("Transpose", made, perm=_LAST), w.integers(-1, outputs))


def _all_windows(w: Writing, s: Step) -> str:
    """Write the windows themselves: a convolution with a kernel for each place."""
    height, width, _ = (int(v) for v in s.attrs)
    return _conv(w, s, np.eye(height * width * w.shape(s.inputs[0])[3]))


@export("max_pool", "average_pool")
def _pool(w: Writing, s: Step) -> Sequence[str]:
    height, width, stride = (int(v) for v in s.attrs)
    op = "MaxPool" if s.op.name == "max_pool" else "AveragePool"
    images = w.node("Transpose", w.name(s.inputs[0]), perm=_FIRST)
    made = w.node(op, images, kernel_shape=[height, width], strides=[stride, stride])
    return [w.node("Transpose", made, perm=_LAST)]


# Trees


@export("trees")
def _trees(w: Writing, s: Step) -> Sequence[str]:
    x, *arrays = s.inputs
    if any(r not in w.parameters for r in arrays):
        raise ConfigError("onnx: trees that are not constants are not exported")
    feature, threshold, child, value = (w.parameters[r] for r in arrays)
    trees, _, groups = (int(v) for v in s.attrs)
    width = value.shape[1]
    limits = threshold.astype(np.float32)
    limits = np.where(limits > threshold, np.nextafter(limits, np.float32(-np.inf)), limits)
    nodes: dict[str, list[Any]] = {
        name: [] for name in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
    }
    modes: list[str] = []
    values: list[float] = []
    leaves: list[tuple[int, int, int, float]] = []
    for tree in range(trees):
        left, last = [tree], len(modes) + len(child)
        while left:
            node = left.pop()
            is_leaf = int(child[node]) == node
            yes, no = (0, 0) if is_leaf else (int(child[node]), int(child[node]) + 1)
            for name, number in zip(nodes, (tree, node, int(feature[node]), yes, no), strict=True):
                nodes[name].append(number)
            modes.append("LEAF" if is_leaf else "BRANCH_LEQ")
            values.append(0.0 if is_leaf else float(limits[node]))
            if is_leaf:
                at = tree % groups * width
                leaves += [(tree, node, at + i, float(v)) for i, v in enumerate(value[node])]
            else:
                left += [no, yes]
            if len(modes) > last:
                raise ConfigError("onnx: a tree comes back to one of its nodes")
    columns = list(zip(*leaves, strict=True))
    targets = dict(zip(("treeids", "nodeids", "ids", "weights"), map(list, columns), strict=True))
    x_name = w.name(x) if w.kind == np.float32 else w.node("Cast", w.name(x), to=1)
    lists: dict[str, Any] = {f"nodes_{name}": numbers for name, numbers in nodes.items()}
    lists |= {f"target_{name}": numbers for name, numbers in targets.items()}
    made = w.node(
        "TreeEnsembleRegressor",
        x_name,
        domain="ai.onnx.ml",
        n_targets=groups * width,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_modes=modes,
        nodes_values=values,
        **lists,
    )
    return [made if w.kind == np.float32 else w.node("Cast", made, to=11)]
