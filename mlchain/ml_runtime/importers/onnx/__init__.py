"""ONNX files as models of this runtime, and models as ONNX files.

    bytes --file--> Graph --convert--> Model --export--> Graph --file--> bytes

`graph` is what passes between the steps; `values`, `fold`, `trace` and `rules` are the parts of
reading; `elementwise`, `moving`, `windows` and `classic` hold the operators, one rule each, and
`export_rules` those of writing.
"""

from __future__ import annotations

from mlchain.ml_runtime.importers.onnx.convert import convert, supported
from mlchain.ml_runtime.importers.onnx.export import export
from mlchain.ml_runtime.importers.onnx.file import read, write
from mlchain.ml_runtime.model import Model

__all__ = ["from_onnx", "supported", "to_onnx"]


def from_onnx(data: bytes, result: str = "", answer: str = "") -> Model:
    """Return the model of an ONNX file.

    `result` names the output of the graph to compute, by default its first. Where that is labels,
    the model's scores are those they are the best of. `answer` is "class" or "value": what the
    scores of any other output are; by default values.

    Raises:
        ConfigError: damaged, or asks for what is not supported (then `graph.Refused`, which names
            the node); or the library `onnx` is not installed.
    """
    return convert(read(data), result, answer)


def to_onnx(model: Model, element: str = "float") -> bytes:
    """Return the ONNX file of a model, which computes in floats: "float" or "double".

    Raises:
        ConfigError: an op without a counterpart, or rows that depend on each other; or the library
            `onnx` is not installed.
        RejectedProgram: the model is not sound.
    """
    return write(export(model, element))
