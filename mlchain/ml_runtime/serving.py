"""What a model says about rows that come as text, as bytes that every machine makes alike.

Rows are a JSON array: of numbers, one row, or of such arrays. The answer is a JSON array with one
entry a row: a label, the number of a cluster, a value, or a list of values; numbers are written in
the shortest form that reads back to the same bits.
"""

from __future__ import annotations

import json
import re
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

PIECE_BYTES = 1 << 20
"""Of a text of rows that is decoded at a time, about."""
_SPACE = b" \t\n\r"
_AFTER_ROW = re.compile(rb"\][ \t\n\r]*,")


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
    # Neither stands in a number: how many there are is known before memory is taken for them.
    cells, lists = data.count(b",") + 1, data.count(b"[")
    rows = cells // features
    found = None
    if cells == rows * features and 1 <= rows <= MAX_ROWS and lists in (1, rows + 1):
        found = _decode(data, rows, features, lists == 1)
    if found is None:
        raise CodecError(f"rows: not 1 to {MAX_ROWS} rows of {features} numbers")
    return found


def count_rows(data: bytes, features: int) -> int:
    """Return the number of rows of a JSON text. Raises as `decode_rows`."""
    return len(decode_rows(data, features))


def encode_rows(rows: Array) -> bytes:
    """Return rows x features as the text that `decode_rows` reads back to the same bits."""
    rows = np.asarray(rows, np.float64)
    step = max(1, PIECE_BYTES // (8 * max(1, rows.shape[-1])))
    pieces = (_write(rows[i : i + step].tolist())[1:-1] for i in range(0, len(rows), step))
    return b"[%b]" % b",".join(pieces)


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


def _decode(data: bytes, rows: int, features: int, is_bare: bool) -> Array | None:
    """Return the rows of a text, or of a bare row, None if it is another text.

    A piece at a time: as objects, numbers take several times the memory of their text.
    """
    text = data.strip(_SPACE)
    if not (text.startswith(b"[") and text.endswith(b"]")):
        return None
    start: int | None
    start, end = (0, len(text)) if is_bare else (1, len(text) - 1)
    found, done = np.empty((rows, features)), 0
    while start is not None:
        cut = _AFTER_ROW.search(text, start + PIECE_BYTES, end)
        stop = cut.start() + 1 if cut else end
        try:
            piece = msgspec.json.decode(b"[%b]" % text[start:stop], type=list[list[float]])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        if not 0 < len(piece) <= rows - done or any(len(row) != features for row in piece):
            return None
        found[done : done + len(piece)] = piece
        done += len(piece)
        start = cut.end() if cut else None
    return found if done == rows else None


def _write(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
