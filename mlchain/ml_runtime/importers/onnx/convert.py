"""From an ONNX graph to a model: every node in turn becomes ops, or a constant, or is refused."""

from __future__ import annotations

from math import prod

import msgspec
import numpy as np

from mlchain.errors import ConfigError, RejectedProgram
from mlchain.ml_runtime.importers.onnx import classic, elementwise, moving, windows
from mlchain.ml_runtime.importers.onnx.fold import FOLDS, work
from mlchain.ml_runtime.importers.onnx.graph import Graph, Node, Port, Refused, live_nodes
from mlchain.ml_runtime.importers.onnx.rules import RULES
from mlchain.ml_runtime.importers.onnx.trace import Trace
from mlchain.ml_runtime.importers.onnx.values import Call, Labels, Tensor, Value
from mlchain.ml_runtime.model import Model, with_batch
from mlchain.ml_runtime.plan import MAX_FEATURES, MAX_OUTPUTS

assert classic and elementwise and moving and windows  # they fill the table of rules

BATCHES = (64, 8)
NUMBERS = ("float", "double", "float16", "int64", "int32")


def supported() -> list[str]:
    """Return the names of the operators that are read."""
    return sorted({*RULES, *FOLDS})


def convert(graph: Graph, result: str = "", answer: str = "") -> Model:
    """Return the model of a graph.

    `result` names the output of the graph to compute, by default its first. Where that is labels,
    the model's scores are those they are the best of. `answer` is "class" or "value": what the
    scores of any other output are; by default values.

    Raises:
        Refused: names the node and says what is not supported.
    """
    port = _chosen(graph, result)
    nodes = live_nodes(graph, [port.name])
    _require_known(nodes)
    values: dict[str, Value] = dict(graph.constants)
    trace, x = _start(graph, nodes, port)
    values[x.name] = trace.place(0, _sizes(x))
    if x.element.startswith("int"):
        trace.whole.add(0)
    for node in nodes:
        where = f"node {next(filter(None, node.outputs))!r} ({node.key})"
        missing = [n for n in node.inputs if n and n not in values]
        if missing:
            raise Refused(f"onnx: {where} reads {missing[0]!r}, a second input of the graph")
        call = Call(
            node,
            where,
            tuple(values[n] if n else None for n in node.inputs),
            graph.opsets.get(node.domain, 0),
        )
        results = _computed(trace, call)
        for name, value in zip(node.outputs, results, strict=False):
            if isinstance(value, np.ndarray):
                trace.spend(value.size, where)
            values[name] = value
    if port.name not in values:
        raise Refused(f"onnx: the output {port.name!r} is not computed")
    return _finish(trace, port, values[port.name], answer)


def _chosen(graph: Graph, result: str) -> Port:
    names = [p.name for p in graph.outputs]
    for port in graph.outputs:
        if not result or port.name == result:
            return port
    raise ConfigError(f"onnx: no output {result!r}", "outputs: " + ", ".join(names))


def _require_known(nodes: list[Node]) -> None:
    unknown = sorted({n.key for n in nodes if n.key not in RULES and n.key not in FOLDS})
    if unknown:
        raise Refused(
            f"onnx: not supported: {', '.join(unknown[:10])}",
            "supported operators: " + ", ".join(supported()),
        )


def _start(graph: Graph, nodes: list[Node], port: Port) -> tuple[Trace, Port]:
    """Return a trace with x declared, and the input of the graph that x is."""
    read = {name for node in nodes for name in node.inputs} | {port.name}
    used = [p for p in graph.inputs if p.name in read]
    if len(used) != 1:
        names = ", ".join(p.name for p in used)
        raise Refused(f"onnx: {len(used)} inputs ({names}); one tensor of features is supported")
    (x,) = used
    if x.element not in NUMBERS:
        raise Refused(f"onnx: the input {x.name!r} is {x.element}, not numbers")
    features = prod(_sizes(x))
    if not 1 <= features <= MAX_FEATURES:
        raise Refused(f"onnx: {features} features, 1 to {MAX_FEATURES} are supported")
    return Trace(features), x


def _sizes(x: Port) -> tuple[int, ...]:
    """Return the shape of the input for one row."""
    if not x.shape:
        raise Refused(f"onnx: the file does not say what shape the input {x.name!r} has")
    batch, *rest = x.shape
    if any(d is None or d < 1 for d in rest):
        raise Refused(
            f"onnx: the input {x.name!r} is {list(x.shape)}; only the first dimension may be open",
            "export the model with all dimensions but the batch fixed",
        )
    if batch not in (None, 0, 1):
        raise Refused(
            f"onnx: the input {x.name!r} holds {batch} rows; models are read for one row",
            "export the model with a dynamic batch, or a batch of 1",
        )
    return (1, *(d for d in rest if d is not None))


def _computed(trace: Trace, call: Call) -> tuple[Value, ...]:
    """Return what a node makes."""
    op = call.node.key
    is_constant = not any(isinstance(v, Tensor | Labels) for v in call.values)
    try:
        if is_constant and op in FOLDS:
            trace.work(work(call), call.where)
            result: Value | tuple[Value, ...] = FOLDS[op](call)
        elif op in RULES and not is_constant:
            result = RULES[op](trace, call)
        else:
            raise call.refuse(
                "of constants is not supported" if is_constant else "of a row is not supported"
            )
    except RejectedProgram as error:
        raise call.refuse(f"the runtime refuses it: {error.message}", error.hint) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise call.refuse(f"its inputs or attributes do not fit: {error}") from error
    return result if isinstance(result, tuple) else (result,)


def _finish(trace: Trace, port: Port, value: Value, answer: str) -> Model:
    classes: tuple[int | str, ...] = ()
    if isinstance(value, np.ndarray):
        raise Refused(f"onnx: the output {port.name!r} does not depend on the input")
    if isinstance(value, Labels):
        if answer not in ("", "class"):
            raise ConfigError(f"onnx: the output {port.name!r} is a class, not a {answer}")
        classes, value, answer = value.classes, value.scores, "class"
        if classes == tuple(range(prod(value.shape))):
            classes = ()
    answer = answer or "value"
    if answer not in ("class", "value"):
        raise ConfigError(f"onnx: answer {answer!r}", "class or value")
    outputs = prod(value.shape)
    if not 1 <= outputs <= MAX_OUTPUTS:
        raise Refused(f"onnx: {outputs} columns of scores, 1 to {MAX_OUTPUTS} are supported")
    scores = trace.rows(value, 1, outputs)
    if trace.builder.type(scores).kind != "F":
        scores = trace.builder.emit("scale", scores, factor=1.0)
    return _in_batches(trace.writer.model(scores, answer, classes))


def _in_batches(model: Model) -> Model:
    """Return the model for runs of as many of BATCHES rows as memory allows; read it was for one.

    The answers are the same. What a row costs is what it costs in company.
    """
    for rows in BATCHES:
        try:
            wider = msgspec.structs.replace(model, predict=with_batch(model.predict, rows))
            wider.check()
        except RejectedProgram:
            continue
        return wider
    return model
