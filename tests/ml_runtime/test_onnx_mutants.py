"""Files that say something else than they did: each is read or refused in words, and never slow."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlchain.errors import MlchainError
from mlchain.ml_runtime.importers.onnx import from_onnx, supported

onnx = pytest.importorskip("onnx")
NETWORKS = sorted((Path(__file__).parent / "networks").glob("*.onnx"))
ODD = [-(2**63), -1, 0, 1, 2, 7, 2**31, 2**62]


def rewire(r: random.Random, graph: Any, node: Any) -> None:
    names = [t.name for t in graph.initializer] + [n for m in graph.node for n in m.output]
    if node.input:
        node.input[r.randrange(len(node.input))] = r.choice([*names, "x", ""])


def rename(r: random.Random, graph: Any, node: Any) -> None:
    *domain, node.op_type = r.choice(supported()).rsplit(".", 1)
    node.domain = "".join(domain)


def retune(r: random.Random, graph: Any, node: Any) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.INT:
            attribute.i = r.choice(ODD)
        elif attribute.type == onnx.AttributeProto.INTS and attribute.ints:
            attribute.ints[r.randrange(len(attribute.ints))] = r.choice(ODD)
        elif attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = r.choice([float("nan"), float("inf"), -1.0, 1e30])


def reshape(r: random.Random, graph: Any, node: Any) -> None:
    dims = r.choice(graph.initializer).dims
    if dims:
        turned = r.sample(list(dims), len(dims))
        turned[0] = r.choice([turned[0], 0, 1, -1, 2**40])
        dims[:] = turned


def revalue(r: random.Random, graph: Any, node: Any) -> None:
    tensor = r.choice(graph.initializer)
    array = onnx.numpy_helper.to_array(tensor).copy()
    if array.dtype.kind in "fi" and array.size:
        odd = ODD if array.dtype.kind == "i" else [np.nan, np.inf, 1e38, 0.0]
        array.reshape(-1)[r.randrange(array.size)] = r.choice(odd)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def shorten(r: random.Random, graph: Any, node: Any) -> None:
    if node.input:
        del node.input[-1]


def drop(r: random.Random, graph: Any, node: Any) -> None:
    graph.node.remove(node)


def resize(r: random.Random, graph: Any, node: Any) -> None:
    dims = graph.input[0].type.tensor_type.shape.dim
    dims[r.randrange(len(dims))].dim_value = r.choice([0, 1, 2, 5, 64, 2**31])


CHANGES = (rewire, rename, retune, reshape, revalue, shorten, drop, resize)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_with_another_meaning_is_read_or_refused(change):
    for seed in range(20):
        r = random.Random(f"{change.__name__} {seed}")
        made = onnx.load_model_from_string(r.choice(NETWORKS).read_bytes())
        change(r, made.graph, r.choice(made.graph.node))
        try:
            model = from_onnx(made.SerializeToString())
            model.scores(np.ones((2, model.features)))
        except MlchainError as error:
            assert error.message
