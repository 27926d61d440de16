"""An ONNX model as plain values: what the file says, checked for form, without protobuf.

Constants are numpy arrays; text is an array of objects. Attributes are integers, reals, text,
tuples of them, or arrays. Nodes stand in an order in which every value is made before it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlchain.errors import ConfigError
from mlchain.ml_runtime.tensor import Array

MAX_FILE_BYTES = 1 << 30
MAX_NODES = 1 << 16
"""Most nodes of a graph; those that only compute shapes are folded away."""
MAX_DIMENSIONS = 16

MAIN, CLASSIC = "", "ai.onnx.ml"
"""The two domains of operators that are read; "ai.onnx" is another name of the first."""


class Refused(ConfigError):
    """An ONNX file that is damaged, or that asks for what is not supported."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: domain and name, names of what it reads ("" where left out) and makes."""

    domain: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Domain and name as messages and tables write it."""
        return f"{self.domain}.{self.op}" if self.domain else self.op


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the graph: name, element type as ONNX names it, dimensions.

    A dimension is None where the file leaves it open; `shape` is None if it tells no rank.
    """

    name: str
    element: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class Graph:
    """A whole model. `opsets`: the version of each domain."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    opsets: dict[str, int]


def require_order(graph: Graph) -> None:
    """Refuse a graph in which a name is made twice, or read before it is made.

    That also refuses cycles: no order of their nodes would pass.

    Raises:
        Refused: names the value and its node.
    """
    known = {"", *graph.constants}
    for port in graph.inputs:
        known.add(port.name)
    for i, node in enumerate(graph.nodes):
        where = f"node {i} ({node.key})"
        for name in node.inputs:
            if name not in known:
                raise Refused(
                    f"onnx: {where} reads {name!r}, which nothing before it gives",
                    "the file lacks an initializer, or its graph has a cycle or is not in order",
                )
        for name in filter(None, node.outputs):
            if name in known:
                raise Refused(f"onnx: {where} makes {name!r}, which exists already")
            known.add(name)
    for port in graph.outputs:
        if port.name not in known:
            raise Refused(f"onnx: the graph gives {port.name!r}, which nothing makes")


def live_nodes(graph: Graph, outputs: Sequence[str]) -> list[Node]:
    """Return the nodes that `outputs` depend on, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]
