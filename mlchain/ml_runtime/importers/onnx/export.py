"""From a model to an ONNX graph in ordinary floats, for runtimes that do not need to agree on bits.

Roundings onto grids vanish, so scores differ from ours by what they round. Rows are open: the
batch of the program becomes a dimension of any size. Classes come as two outputs, `label` and
`scores`; everything else as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlchain.errors import ConfigError, RejectedProgram
from mlchain.ml_runtime.importers.onnx.export_rules import EXPORTS, Writing
from mlchain.ml_runtime.importers.onnx.file import WRITTEN
from mlchain.ml_runtime.importers.onnx.graph import Graph, Port
from mlchain.ml_runtime.model import Model, is_row_by_row

ELEMENTS = {"float": "<f4", "double": "<f8"}
_LIMIT = 1.0 - 2.0**-15


def export(model: Model, element: str = "float") -> Graph:
    """Return the graph of a model. `element` is "float" or "double": what it computes in.

    Raises:
        ConfigError: an op that ONNX has no counterpart of here, or rows that depend on each other.
        RejectedProgram: the model is not sound.
    """
    if element not in ELEMENTS:
        raise ConfigError(f"onnx: elements of {element!r}", "float or double")
    checked, tensors = model.check(), model.tensors()
    unknown = sorted({s.op.name for s in checked.steps if s.op.name not in EXPORTS})
    if unknown:
        raise ConfigError(
            f"onnx: {', '.join(unknown)}: not exported", "exported: " + ", ".join(sorted(EXPORTS))
        )
    if not is_row_by_row(checked):
        raise ConfigError("onnx: a row of this model depends on others of its batch")
    w = Writing(checked, ELEMENTS[element])
    w.names[0] = _features(w, model)
    w.rows.add(0)
    for i, tensor in enumerate(tensors, 1):
        w.parameters[i] = np.asarray(tensor)
    for step in checked.steps:
        if w.rows.intersection(step.inputs):
            w.rows.update(step.outputs)
        try:
            made = EXPORTS[step.op.name](w, step)
        except RejectedProgram as error:
            raise ConfigError(f"onnx: {step.op.name}: {error.message}") from error
        w.names.update(zip(step.outputs, made, strict=False))  # none: written where it is read
    outputs = _outputs(w, model, element)
    x = Port("x", element, (None, model.features))
    return Graph((x,), outputs, tuple(w.nodes), w.constants, dict(WRITTEN))


def _features(w: Writing, model: Model) -> str:
    """Write what a model with exponents does to raw features; return the name of the result."""
    if not model.exponents:
        return "x"
    factors = np.ldexp(1.0, -np.array(model.exponents))
    scaled = w.node("Mul", "x", w.constant(factors))
    return w.node("Clip", scaled, w.constant(-_LIMIT), w.constant(_LIMIT))


def _outputs(w: Writing, model: Model, element: str) -> tuple[Port, ...]:
    result = w.name(model.predict.outputs[0])
    if model.answer not in ("class", "cluster"):
        w.node("Identity", result, output="values")
        return (Port("values", element, (None, model.outputs)),)
    scores = w.node("Identity", result, output="scores")
    best = scores
    if model.outputs == 1 and len(model.classes) == 2:  # the second where the score is above 0
        best = w.node("Concat", w.node("Sub", scores, scores), scores, axis=1)
    kind = "string" if any(isinstance(c, str) for c in model.classes) else "int64"
    if model.classes:
        place = w.node("ArgMax", best, axis=1, keepdims=0)
        w.node("Gather", w.raw(_names(model.classes, kind)), place, axis=0, output="label")
    else:
        w.node("ArgMax", best, axis=1, keepdims=0, output="label")
    return Port("label", kind, (None,)), Port("scores", element, (None, model.outputs))


def _names(classes: Sequence[int | str], kind: str) -> Any:
    if kind == "int64":
        return np.array(classes, np.int64)
    names = np.empty(len(classes), object)
    names[:] = [str(c) for c in classes]
    return names
