"""An ONNX file is somebody's bytes: whatever it holds, it is read or refused in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlchain.errors import ConfigError, MlchainError
from mlchain.ml_runtime.importers.onnx import from_onnx, trace
from mlchain.ml_runtime.importers.onnx.graph import Refused

onnx = pytest.importorskip("onnx")

helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
HERE = Path(__file__).parent / "networks"
W = np.eye(4, 3, dtype="f4")


def model(
    nodes: Sequence[Any],
    constants: dict[str, Any] | None = None,
    x: Sequence[Any] = ("batch", 4),
    opsets: Sequence[tuple[str, int]] = (("", 17), ("ai.onnx.ml", 3)),
    kind: int = FLOAT,
) -> Any:
    """Return a model from x to y."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, list(x))],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*o) for o in opsets])


def node(op: str, inputs: str = "x", outputs: str = "y", **attributes: Any) -> Any:
    domain = attributes.pop("domain", "")
    return helper.make_node(op, inputs.split(), outputs.split(), domain=domain, **attributes)


def load(made: Any, **options: str) -> Any:
    return from_onnx(made.SerializeToString(), **options)


def test_the_plainest_model_is_read():
    """Control of the refusals below."""
    good = load(model([node("MatMul", "x w")], {"w": W}))
    assert np.allclose(good.scores(np.arange(8.0).reshape(2, 4)), np.arange(8).reshape(2, 4) @ W)


def external() -> Any:
    made = model([node("MatMul", "x w")], {"w": W})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return made


def dims(*sizes: int) -> Any:
    made = model([node("MatMul", "x w")], {"w": W})
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend(sizes)
    return made


def branch() -> Any:
    body = helper.make_graph([node("Relu")], "b", [], [helper.make_tensor_value_info("y", 1, None)])
    return model([node("If", "c", "y", then_branch=body, else_branch=body)], {"c": np.array(True)})


def function() -> Any:
    made = model([node("Relu")])
    made.functions.append(
        helper.make_function("f", "g", ["a"], ["b"], [node("Relu", "a", "b")], made.opset_import)
    )
    return made


def wrong_type() -> Any:
    made = model([node("MatMul", "x w")], {"w": W})
    made.graph.initializer[0].data_type = 14  # complex numbers
    return made


TREE = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
    "target_treeids": [0, 0],
    "target_nodeids": [1, 2],
    "target_ids": [0, 0],
    "target_weights": [1.0, 2.0],
    "n_targets": 1,
}


def tree(**changes: Any) -> Any:
    made = node("TreeEnsembleRegressor", domain="ai.onnx.ml", **{**TREE, **changes})
    return model([made])


BIG = np.array([2**30, 2**30])
SHAPES = {"s": np.array([1, 2**20, 2**20])}
MANY = {"i": np.array([0, 2] * 400)}
HOSTILE = {
    "an unknown op": (model([node("Frobnicate")]), "not supported: Frobnicate"),
    "a custom domain": (model([node("Relu", domain="com.evil")]), "custom domain 'com.evil'"),
    "an opset of tomorrow": (model([node("Relu")], opsets=[("", 99)]), "opset 99"),
    "a condition": (branch(), "conditions and loops"),
    "a function": (function(), "functions"),
    "weights in another file": (external(), "lies in another file"),
    "weights of another kind": (wrong_type(), "elements of type 14"),
    "fewer bytes than dimensions": (dims(4, 4), "holds 48 bytes"),
    "dimensions beyond memory": (dims(2**40, 2**40), "has the dimensions"),
    "dimensions below 0": (dims(-4, -3), "has the dimensions"),
    "a missing initializer": (model([node("MatMul", "x w")]), "reads 'w'"),
    "a cycle": (
        model([node("Add", "x b", "a"), node("Relu", "a", "b")]),
        "reads .b., which nothing",
    ),
    "a name made twice": (
        model([node("Relu", "x", "y"), node("Relu", "x", "y")]),
        "exists already",
    ),
    "an output nobody makes": (model([node("Relu", "x", "z")]), "which nothing makes"),
    "weights that are no numbers": (
        model([node("MatMul", "x w")], {"w": W * np.nan}),
        "not finite",
    ),
    "a bias that is infinite": (model([node("Add", "x w")], {"w": np.float32(np.inf)}), "finite"),
    "shapes that do not fit": (model([node("MatMul", "x w")], {"w": W.T}), "inner dimensions"),
    "a huge constant": (
        model([node("ConstantOfShape", "n", "c"), node("Add", "x c")], {"n": BIG}),
        "makes a tensor of",
    ),
    "a huge stretch": (
        model([node("Expand", "x s")], {"s": np.array([2**30, 4])}),
        "makes a tensor",
    ),
    "a huge padding": (
        model([node("Pad", "x p")], {"p": np.array([0, 2**40, 0, 0])}),
        "makes a tensor",
    ),
    "a choice in too many pieces": (
        model([node("Gather", "x i", axis=1)], MANY),
        "pieces",
    ),
    "a shape of several open dimensions": (model([node("Relu")], x=("b", "n")), "may be open"),
    "a batch of two": (model([node("Relu")], x=(2, 4)), "holds 2 rows"),
    "an input of text": (model([node("Relu")], kind=onnx.TensorProto.STRING), "not numbers"),
    "too many features": (model([node("Relu")], x=("b", 2**21)), "features"),
    "an attribute of another kind": (model([node("Softmax", axis=1.5)]), "attribute axis"),
    "an axis that is not there": (model([node("Softmax", axis=7)]), "axes"),
    "a reshape that does not fit": (model([node("Reshape", "x s")], SHAPES), "reshape"),
    "a model without an input": (model([node("Neg", "w")], {"w": W}), "0 inputs"),
    "an output that is constant": (
        model([node("Shape", "x", "s"), node("Cast", "s", "y", to=1)]),
        "does not depend on the input",
    ),
    "arithmetic of constants that is not known": (
        model([node("Erf", "w", "e"), node("MatMul", "x e")], {"w": W}),
        "of constants is not supported",
    ),
    "a tree that is a circle": (tree(nodes_truenodeids=[0, 0, 0]), "no trees"),
    "a tree with two parents of a leaf": (tree(nodes_truenodeids=[2, 0, 0]), "no trees"),
    "a tree with a child elsewhere": (tree(nodes_truenodeids=[9, 0, 0]), "not there"),
    "a tree with a feature elsewhere": (tree(nodes_featureids=[4, 0, 0]), "not there"),
    "a leaf without a tree": (tree(target_treeids=[0, 7]), "not there"),
    "trees of different lengths": (tree(nodes_values=[0.5]), "different lengths"),
    "a tree that compares oddly": (tree(nodes_modes=["BRANCH_EQ", "LEAF", "LEAF"]), "BRANCH_EQ"),
    "a huge forest": (tree(n_targets=2**40), "makes a tensor"),
}


@pytest.mark.parametrize("made, why", HOSTILE.values(), ids=HOSTILE)
def test_it_is_refused_in_words(made, why):
    with pytest.raises(Refused, match=why):
        load(made)


@pytest.mark.parametrize("bound", ["MAX_ELEMENTS", "MAX_WORK"])
def test_constants_that_grow_node_by_node_are_bounded_together(bound, monkeypatch):
    grown = [node("Neg", f"c{i}", f"c{i + 1}") for i in range(40)]
    made = model(
        [node("ConstantOfShape", "n", "c0"), *grown, node("Add", "x c40")], {"n": np.array([4])}
    )
    assert load(made).outputs == 4
    monkeypatch.setattr(trace, bound, 100)
    with pytest.raises(Refused, match="more than 100"):
        load(made)


def test_what_is_supported_is_said():
    with pytest.raises(Refused) as caught:
        load(model([node("Frobnicate")]))
    assert "MatMul" in caught.value.hint and "ai.onnx.ml.LinearClassifier" in caught.value.hint


def test_an_output_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match="no output 'z'") as caught:
        load(model([node("Relu")]), result="z")
    assert caught.value.hint == "outputs: y"


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 64, bytes(range(256)), b"\x80\x04N."])
def test_other_bytes_are_no_onnx_file(data):
    with pytest.raises(Refused):
        from_onnx(data)


GOOD = (HERE / "cnn.onnx").read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD)))
def test_a_truncated_file_is_read_or_refused(length):
    try:
        from_onnx(GOOD[:length])
    except MlchainError:
        return
    assert length == len(GOOD)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4))
def test_a_changed_file_is_read_or_refused(changes):
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    try:
        from_onnx(bytes(data))
    except MlchainError as error:
        assert error.message


SMALL = model(
    [
        node("MatMul", "x w", "a"),
        node("Add", "a b", "c"),
        node("Softmax", "c", "y", axis=-1),
    ],
    {"w": W, "b": np.zeros(3, "f4")},
).SerializeToString()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=6))
def test_a_small_file_with_foreign_bytes_is_read_or_refused(place, foreign):
    try:
        from_onnx(SMALL[:place] + foreign + SMALL[place + len(foreign) :])
    except MlchainError as error:
        assert error.message
