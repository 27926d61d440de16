"""Bringing fitted models of other libraries into the runtime, as programs with their weights.

Each file reads the public attributes of one library's models and writes a `Model`; nothing of that
library runs afterwards, and no pickle is ever read. `writer` holds what they share.
"""

from __future__ import annotations

from typing import Any

from mlchain.ml_runtime.model import Model

__all__ = ["from_onnx", "from_sklearn", "to_onnx"]


def from_onnx(data: bytes, result: str = "", answer: str = "") -> Model:
    """Return the model of an ONNX file; see `importers.onnx.from_onnx`."""
    from mlchain.ml_runtime.importers import onnx

    return onnx.from_onnx(data, result, answer)


def from_sklearn(estimator: Any, batch: int = 64) -> Model:
    """Return a fitted scikit-learn estimator, or pipeline of them, as a model of this runtime.

    `batch` is the number of rows of one run that the model file states; `Predictor` may take
    others.

    Raises:
        ConfigError: not fitted, or of a kind or with an option that is not supported; names it.
    """
    from mlchain.ml_runtime.importers import sklearn

    return sklearn.convert(estimator, batch)


def to_onnx(model: Model, element: str = "float") -> bytes:
    """Return the ONNX file of a model; see `importers.onnx.to_onnx`."""
    from mlchain.ml_runtime.importers import onnx

    return onnx.to_onnx(model, element)
