"""What a model says about rows that come as text, as bytes that every machine makes alike.

Rows are a JSON array: of numbers, one row, or of such arrays. The answer is a JSON array with one
entry a row: a label, the number of a cluster, a value, or a list of values; numbers are written in
the shortest form that reads back to the same bits.
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import NamedTuple

import msgspec
import numpy as np

from mlchain import codec
from mlchain.errors import CodecError, ConfigError, Trap
from mlchain.ml_runtime.data import FRACTION, Dataset
from mlchain.ml_runtime.machine import Backend
from mlchain.ml_runtime.metrics import Metrics, accuracy, mean_squared_error
from mlchain.ml_runtime.model import Model, Predictor, is_row_by_row
from mlchain.ml_runtime.tensor import Array

MAX_ROWS = 1 << 17
MAX_ROWS_BYTES = 64 << 20
NUMBER_BYTES = 32
"""Most bytes that one number of a row takes, with what stands around it; more are refused."""


class Outcome(IntEnum):
    """How a request ends; the same on every machine."""

    ANSWERED = 0
    INVALID_ROWS = 1
    """The rows are not what they should be: not JSON, another number of rows or of columns, a
    number outside the range of the model."""
    TRAPPED = 2
    """A score left the exact range."""


class Facts(NamedTuple):
    """What a model file is, for those who do not hold it. `gas` is that of one row."""

    features: int
    outputs: int
    answer: str
    gas: int


def describe_model(model: Model) -> Facts:
    """Return the facts of a model that was examined.

    Raises:
        RejectedProgram: as `Model.check`.
    """
    checked, batch = model.check(), model.predict.inputs[0].shape[0]
    gas = -(-checked.gas // batch) if is_row_by_row(checked) else checked.gas
    return Facts(model.features, model.outputs, model.answer, gas)


def rows_limit(rows: int, features: int) -> int:
    """Return how many bytes so many rows may have."""
    return min(MAX_ROWS_BYTES, 64 + rows * (2 + features) * NUMBER_BYTES)


def decode_rows(data: bytes, features: int) -> Array:
    """Return the rows of a JSON text, rows x features.

    Raises:
        CodecError: another text, or another number of columns. Says no more: the words of the
            decoder depend on its version.
    """
    if len(data) > MAX_ROWS_BYTES:
        raise CodecError(f"rows: {len(data)} bytes, at most {MAX_ROWS_BYTES} allowed")
    rows = _decode(data)
    if any(len(row) != features for row in rows) or len(rows) > MAX_ROWS:
        raise CodecError(f"rows: not 1 to {MAX_ROWS} rows of {features} numbers")
    return np.array(rows, np.float64)


def count_rows(data: bytes, features: int) -> int:
    """Return the number of rows of a JSON text. Raises as `decode_rows`."""
    return len(decode_rows(data, features))


def encode_rows(rows: Array) -> bytes:
    """Return rows x features as the text that `decode_rows` reads back to the same bits."""
    return _write(np.asarray(rows, np.float64).tolist())


def answer_rows(predictor: Predictor, data: bytes, rows: int) -> tuple[Outcome, bytes]:
    """Return the outcome of asking a model about `rows` rows in a text, and the answer's bytes."""
    try:
        x = decode_rows(data, predictor.model.features)
        if len(x) != rows:
            return Outcome.INVALID_ROWS, b""
        return Outcome.ANSWERED, _write(predictor.answers(x).tolist())
    except (CodecError, ConfigError):
        return Outcome.INVALID_ROWS, b""
    except Trap:
        return Outcome.TRAPPED, b""


def evaluate_rows(predictor: Predictor, data: bytes, rows: int) -> tuple[Outcome, bytes]:
    """Return the outcome of measuring a model on the last `rows` rows of an encoded dataset.

    The bytes are encoded `Metrics`. A dataset that does not fit the model gives INVALID_ROWS.
    """
    try:
        metrics = measure(predictor, Dataset.decode(data), rows)
    except (CodecError, ConfigError):
        return Outcome.INVALID_ROWS, b""
    except Trap:
        return Outcome.TRAPPED, b""
    return Outcome.ANSWERED, codec.encode(metrics)


def measure(predictor: Predictor, dataset: Dataset, rows: int) -> Metrics:
    """Return what a model is worth on the last `rows` rows of a dataset.

    Raises:
        ConfigError: they do not fit each other.
        Trap: a score left the exact range.
    """
    model = predictor.model
    wanted = {"class": "class", "value": "value"}.get(model.answer)
    if dataset.kind != wanted or not 0 < rows <= dataset.rows:
        raise ConfigError(f"evaluate: a dataset of kind {dataset.kind} for answers {model.answer}")
    if dataset.features != model.features:
        raise ConfigError(f"evaluate: {dataset.features} features, not {model.features}")
    exponents = np.array(dataset.header.exponents)
    x = np.ldexp(dataset.x[-rows:].astype(np.float64), exponents - FRACTION)
    scores, y = predictor.scores(x), dataset.y[-rows:]
    if wanted == "value":
        if scores.shape[1] != dataset.outputs:
            raise ConfigError("evaluate: another number of columns")
        return mean_squared_error(scores, y)
    if model.outputs == 1:
        scores = np.concatenate([-scores, scores], axis=1)  # two labels for one column
    return accuracy(scores, y)


def load_predictor(data: bytes, backend: Backend | None = None) -> Predictor:
    """Return the model of a file, examined and ready.

    Raises:
        CodecError, RejectedProgram: as `Model.decode`.
    """
    return Predictor(Model.decode(data), backend)


def _decode(data: bytes) -> list[list[float]]:
    """Return the rows of a text, whatever their lengths; one without entries if it has no rows."""
    try:
        found = msgspec.json.decode(data, type=list[list[float] | float])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return [[]]
    rows = [row for row in found if isinstance(row, list)]
    numbers = [number for number in found if isinstance(number, float)]
    return [[]] if rows and numbers else rows or [numbers]


def _write(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
