"""ONNX files as models of this runtime, and models as ONNX files.

    bytes --file--> Graph --convert--> Model --export--> Graph --file--> bytes

`graph` is what passes between the steps; `values`, `fold`, `trace` and `rules` are the parts of
reading; `elementwise`, `moving`, `windows` and `classic` hold the operators, one rule each.
"""

from __future__ import annotations

from mlchain.ml_runtime.importers.onnx.convert import convert, supported
from mlchain.ml_runtime.importers.onnx.file import read
from mlchain.ml_runtime.model import Model

__all__ = ["from_onnx", "supported"]


def from_onnx(data: bytes, output: str = "", answer: str = "") -> Model:
    """Return the model of an ONNX file.

    `output` names the output of the graph to compute, by default its first. Where that is labels,
    the model's scores are those they are the best of. `answer` is "class" or "value": what the
    scores of any other output are; by default values.

    Raises:
        ConfigError: damaged, or asks for what is not supported (then `graph.Refused`, which names
            the node); or the library `onnx` is not installed.
    """
    return convert(read(data), output, answer)
