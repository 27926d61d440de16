"""ONNX files: bytes to a graph and back. The only file that names the library `onnx`.

Only protobuf's own decoding runs; nothing in a file is executed, no other file is opened, and the
size of every tensor is compared with the bytes that are there before an array is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from mlchain.errors import ConfigError
from mlchain.ml_runtime.importers.onnx.graph import (
    CLASSIC,
    MAIN,
    MAX_DIMENSIONS,
    MAX_FILE_BYTES,
    MAX_NODES,
    Graph,
    Node,
    Port,
    Refused,
    require_order,
)
from mlchain.ml_runtime.tensor import MAX_ELEMENTS, Array

OPSETS = {MAIN: (7, 25), CLASSIC: (1, 5)}
"""Versions of each domain that are read, first and last."""
WRITTEN = {MAIN: 17, CLASSIC: 3}
"""Versions that are written, and the file format that goes with them."""
WRITTEN_IR = 8

_ELEMENTS = {  # number in the file: name, numpy's type, the field where unpacked elements stand
    1: ("float", "<f4", "float_data"),
    2: ("uint8", "<u1", "int32_data"),
    3: ("int8", "<i1", "int32_data"),
    4: ("uint16", "<u2", "int32_data"),
    5: ("int16", "<i2", "int32_data"),
    6: ("int32", "<i4", "int32_data"),
    7: ("int64", "<i8", "int64_data"),
    8: ("string", "O", "string_data"),
    9: ("bool", "|b1", "int32_data"),
    10: ("float16", "<f2", ""),
    11: ("double", "<f8", "double_data"),
}
_ATTRIBUTES = {  # AttributeProto.type: field
    1: "f",
    2: "i",
    3: "s",
    4: "t",
    6: "floats",
    7: "ints",
    8: "strings",
    9: "tensors",
}


def _library() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(
            "onnx: the library is not installed", "pip install 'mlchain[onnx]'"
        ) from error
    return onnx


def read(data: bytes) -> Graph:
    """Return the graph of an ONNX file.

    Raises:
        Refused: damaged, larger than MAX_FILE_BYTES, or uses what is not supported: other files,
            parts executed conditionally or in loops, functions, domains or opsets not in OPSETS.
        ConfigError: the library is not installed.
    """
    onnx = _library()
    if len(data) > MAX_FILE_BYTES:
        raise Refused(f"onnx: {len(data)} bytes, at most {MAX_FILE_BYTES}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf raises its own kinds, which differ between versions
        raise Refused("onnx: not an ONNX file, or damaged") from error
    graph = model.graph
    if not model.opset_import or not graph.node:
        raise Refused("onnx: not an ONNX file: no opset or no node")
    if model.functions or graph.sparse_initializer:
        raise Refused("onnx: functions and sparse tensors are not supported")
    if len(graph.node) > MAX_NODES:
        raise Refused(f"onnx: {len(graph.node)} nodes, at most {MAX_NODES}")
    constants = {_name(t.name): _array(t, f"initializer {t.name!r}") for t in graph.initializer}
    result = Graph(
        tuple(_port(v) for v in graph.input if v.name not in constants),
        tuple(_port(v) for v in graph.output),
        tuple(_node(n, f"node {i}") for i, n in enumerate(graph.node)),
        constants,
        _opsets(model.opset_import),
    )
    require_order(result)
    return result


def _opsets(imports: Iterable[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in imports:
        domain = _name(entry.domain)
        domain = MAIN if domain == "ai.onnx" else domain
        if domain not in OPSETS:
            continue  # files name domains that they do not use; a node of one is refused
        first, last = OPSETS[domain]
        if not first <= entry.version <= last:
            raise Refused(
                f"onnx: opset {entry.version} of {domain or 'ai.onnx'}, not {first} to {last}"
            )
        found[domain] = entry.version
    return found


def _node(node: Any, where: str) -> Node:
    domain, op = _name(node.domain), _name(node.op_type)
    domain, where = MAIN if domain == "ai.onnx" else domain, f"{where} ({op})"
    if domain not in OPSETS:
        raise Refused(f"onnx: {where} is of the custom domain {domain!r}")
    attributes = {
        _name(a.name): _attribute(a, f"{where}, attribute {a.name!r}") for a in node.attribute
    }
    outputs = tuple(_name(n) for n in node.output)
    if not any(outputs):
        raise Refused(f"onnx: {where} makes nothing")
    return Node(domain, op, tuple(_name(n) for n in node.input), outputs, attributes)


def _name(value: Any) -> str:
    """Return a text field. Protobuf hands one that is no text over as bytes."""
    if not isinstance(value, str):
        raise Refused(f"onnx: the name {value[:40]!r} is no text")
    return value


def _attribute(attribute: Any, where: str) -> Any:
    if attribute.ref_attr_name:
        raise Refused(f"onnx: {where} refers to a function")
    if attribute.type in (5, 10):
        raise Refused(f"onnx: {where} is a graph; conditions and loops are not supported")
    name = _ATTRIBUTES.get(attribute.type)
    if name is None:
        raise Refused(f"onnx: {where} is of a kind that is not supported")
    value = getattr(attribute, name)
    if name == "t":
        return _array(value, where)
    if name == "tensors":
        return tuple(_array(t, where) for t in value)
    if name == "s":
        return _text(value, where)
    if name == "strings":
        return tuple(_text(v, where) for v in value)
    return tuple(value) if name in ("floats", "ints") else value


def _text(value: bytes, where: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"onnx: {where} is no text") from error


def _array(tensor: Any, where: str) -> Array:
    """Return the array of a TensorProto; its size is that of the bytes that are there."""
    if tensor.data_location == 1 or tensor.external_data:
        raise Refused(
            f"onnx: {where} lies in another file", "save the model with its weights inside"
        )
    if tensor.data_type not in _ELEMENTS:
        raise Refused(f"onnx: {where} has elements of type {tensor.data_type}, not supported")
    name, kind, field = _ELEMENTS[tensor.data_type]
    dims = tuple(tensor.dims)
    if len(dims) > MAX_DIMENSIONS or any(d < 0 for d in dims) or prod(dims) > MAX_ELEMENTS:
        raise Refused(f"onnx: {where} has the dimensions {list(dims)[:MAX_DIMENSIONS]}")
    if tensor.HasField("raw_data"):
        there = len(tensor.raw_data)
        if name == "string" or there != prod(dims) * np.dtype(kind).itemsize:
            raise Refused(f"onnx: {where} holds {there} bytes, not {list(dims)} of {name}")
        return np.frombuffer(tensor.raw_data, kind).reshape(dims)
    values = getattr(tensor, field or "int32_data")
    if len(values) != prod(dims):
        raise Refused(f"onnx: {where} holds {len(values)} elements, not {list(dims)}")
    if name == "string":
        text = np.empty(len(values), object)
        text[:] = [_text(v, where) for v in values]
        return text.reshape(dims)
    if name == "float16":
        bits = np.array(values, np.int64)
        if bits.size and not 0 <= bits.min() <= bits.max() < 1 << 16:
            raise Refused(f"onnx: {where} holds numbers that are no {name}")
        return bits.astype("<u2").view("<f2").reshape(dims)
    wide = np.array(values, np.float64 if kind[1] == "f" else np.int64)
    array = wide.astype(kind)
    if kind[1] != "f" and not np.array_equal(array, wide):
        raise Refused(f"onnx: {where} holds numbers that are no {name}")
    return array.reshape(dims)


def _port(value: Any) -> Port:
    kind, name = value.type, _name(value.name)
    if kind.WhichOneof("value") != "tensor_type":
        return Port(name, kind.WhichOneof("value") or "nothing", None)
    tensor = kind.tensor_type
    element = _ELEMENTS.get(tensor.elem_type, (f"type {tensor.elem_type}",))[0]
    if not tensor.HasField("shape"):
        return Port(name, element, None)
    if len(tensor.shape.dim) > MAX_DIMENSIONS:
        raise Refused(f"onnx: {name!r} has {len(tensor.shape.dim)} dimensions")
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return Port(name, element, shape)


def write(graph: Graph) -> bytes:
    """Return the ONNX file of a graph: the inverse of `read`, in the versions of WRITTEN.

    Raises:
        ConfigError: the library is not installed.
    """
    helper = _library().helper
    kinds = {name: number for number, (name, *_) in _ELEMENTS.items()}
    numbers = {np.dtype(kind): number for number, (_, kind, _) in _ELEMENTS.items()}

    def port(p: Port) -> Any:
        dims = ["batch" if d is None else d for d in p.shape or ()]
        return helper.make_tensor_value_info(p.name, kinds[p.element], dims)

    def tensor(name: str, array: Array) -> Any:
        if array.dtype == object:
            return helper.make_tensor(name, kinds["string"], array.shape, list(array.reshape(-1)))
        return helper.make_tensor(
            name, numbers[array.dtype], array.shape, array.tobytes(), raw=True
        )

    nodes = [
        helper.make_node(
            n.op,
            list(n.inputs),
            list(n.outputs),
            domain=n.domain,
            **{
                k: tensor(k, v) if isinstance(v, np.ndarray) else v for k, v in n.attributes.items()
            },
        )
        for n in graph.nodes
    ]
    body = helper.make_graph(
        nodes,
        "mlchain",
        [port(p) for p in graph.inputs],
        [port(p) for p in graph.outputs],
        [tensor(name, array) for name, array in graph.constants.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
    model = helper.make_model(body, opset_imports=opsets, ir_version=WRITTEN_IR)
    model.producer_name = "mlchain"
    data: bytes = model.SerializeToString(deterministic=True)
    return data
