"""Datasets: rounded once onto a grid, then canonical bytes that everybody trains on.

Features are 16-bit mantissas with one power of two per column (or one for all columns): column c
of row i is m[i, c] * 2^(exponent[c] - 15). Training sees m * 2^-15, so a power of two takes the
place of scaling by the maximum and costs no accuracy. Targets are class labels or binary64 values.

Bytes: length of the header (4, little-endian), header record, mantissas (int16), targets (int64 or
binary64), all little-endian, row after row. Whoever makes a dataset shuffles it: jobs train on its
first rows and test on its last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Record
from mlchain.errors import CodecError, ConfigError
from mlchain.ml_runtime.grid import PRODUCT_BITS
from mlchain.ml_runtime.plan import MAX_FEATURES, MAX_OUTPUTS
from mlchain.ml_runtime.tensor import Array

MAX_DATASET_BYTES = 4 << 30
MAX_HEADER_BYTES = 16 << 20
MAX_ROWS = 1 << 31
FRACTION = PRODUCT_BITS - 1
_LIMIT = (1 << FRACTION) - 1
_UNIT = np.array(2.0**-FRACTION)
_SMALLEST, _LARGEST = 2.0**-100, 2.0**100

Exponent = Annotated[int, Meta(ge=-100, le=101)]


class DatasetHeader(Record, frozen=True):
    """`outputs`: number of classes for kind "class", of target columns for kind "value"."""

    kind: Annotated[str, Meta(pattern="^(class|value)$")]
    rows: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    outputs: Annotated[int, Meta(ge=1, le=MAX_OUTPUTS)]
    exponents: Annotated[tuple[Exponent, ...], Meta(min_length=1, max_length=MAX_FEATURES)]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """`x`: int16 mantissas, rows x features. `y`: int64 labels, or binary64 rows x outputs."""

    header: DatasetHeader
    x: Array
    y: Array

    @property
    def kind(self) -> str:
        """What there is to learn: "class" or "value"."""
        return self.header.kind

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.header.rows

    @property
    def features(self) -> int:
        """Number of columns of x."""
        return len(self.header.exponents)

    @property
    def outputs(self) -> int:
        """Number of classes, or of target columns."""
        return self.header.outputs

    @staticmethod
    def from_arrays(
        x: Any,
        y: Any = None,
        *,
        classes: int = 0,
        shared_scale: bool = True,
        tokens: bool = False,
    ) -> Dataset:
        """Round arrays into a dataset.

        `x` is rows x features; `y` holds `classes` labels from 0, or values if `classes` is 0.
        Without y, for who groups rows: all rows are of one class.
        `shared_scale`: one power of two for all columns (images, standardised tables), else one
        per column (columns in different units). `tokens`: x holds integers from 0 to 32767, which
        become the mantissas themselves: 2^15 times the number that a program sees.

        Raises:
            ConfigError: wrong shapes, labels out of range, or a number other than 0 whose
                magnitude is outside 2^-100 … 2^100.
        """
        x = np.asarray(x, np.float64)
        if y is None:
            y, classes = np.zeros(len(x), np.int64), 1
        if x.ndim != 2 or not x.size or len(x) != len(y):
            raise ConfigError("dataset: x has to be rows x features, with a target for each row")
        _require_range(x, "x")
        if tokens and not (np.all(x == np.rint(x)) and x.min() >= 0 and x.max() <= _LIMIT):
            raise ConfigError(f"dataset: tokens have to be integers from 0 to {_LIMIT}")
        exponents = (FRACTION,) * x.shape[1] if tokens else column_exponents(x, shared_scale)
        mantissas = quantise_rows(x, exponents)
        if classes:
            targets = np.asarray(y)
            if targets.shape != (len(x),) or np.any(targets != targets.astype(np.int64)):
                raise ConfigError("dataset: labels have to be one integer per row")
            if targets.min() < 0 or targets.max() >= classes:
                raise ConfigError(f"dataset: a label is outside 0 to {classes - 1}")
            header = DatasetHeader("class", len(x), classes, exponents)
            return Dataset(header, mantissas, targets.astype("<i8"))
        values = np.asarray(y, np.float64).reshape(len(x), -1) + 0.0
        _require_range(values, "y")
        header = DatasetHeader("value", len(x), values.shape[1], exponents)
        return Dataset(header, mantissas, values.astype("<f8"))

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        head = codec.encode(self.header)
        return b"".join((len(head).to_bytes(4, "little"), head, self.x.tobytes(), self.y.tobytes()))

    @staticmethod
    def decode(data: bytes) -> Dataset:
        """Return the dataset whose canonical bytes are `data`; the arrays are views of them.

        Raises:
            CodecError: a wrong size, a label outside the classes, a value outside the domain.
        """
        length = int.from_bytes(data[:4], "little")
        if len(data) < 4 + length or length > MAX_HEADER_BYTES or len(data) > MAX_DATASET_BYTES:
            raise CodecError("dataset: size of the header is wrong")
        head = codec.decode(DatasetHeader, data[4 : 4 + length], MAX_HEADER_BYTES)
        rows, features = head.rows, len(head.exponents)
        columns = 1 if head.kind == "class" else head.outputs
        size = 4 + length + 2 * rows * features + 8 * rows * columns
        if len(data) != size:
            raise CodecError(f"dataset: {len(data)} bytes, not {size}")
        x = np.frombuffer(data, "<i2", rows * features, 4 + length).reshape(rows, features)
        start = 4 + length + x.nbytes
        if x.min() < -_LIMIT:
            raise CodecError("dataset: a mantissa is -2^15")
        if head.kind == "class":
            y = np.frombuffer(data, "<i8", rows, start)
            if y.min() < 0 or y.max() >= head.outputs:
                raise CodecError("dataset: a label is outside the classes")
        else:
            y = np.frombuffer(data, "<f8", rows * columns, start).reshape(rows, columns)
            if not is_in_range(y) or np.any(np.signbit(y) & (y == 0)):
                raise CodecError("dataset: a value is outside the domain")
        return Dataset(head, x, y)


class RowReader:
    """Reads rows of a dataset into the arrays x and y of a step program, time and again."""

    def __init__(self, dataset: Dataset, x: Array, y: Array) -> None:
        self.dataset, self._x, self._y = dataset, x, y
        self._mantissas = np.empty(x.shape, "<i2")

    def __call__(self, rows: Array) -> None:
        """Fill x and y with the rows of these numbers, each below the number of rows."""
        np.take(self.dataset.x, rows, 0, self._mantissas, "clip")  # "raise" would buffer them
        np.multiply(self._mantissas, _UNIT, self._x)
        np.take(self.dataset.y, rows, 0, self._y, "clip")


def column_exponents(x: Array, shared: bool) -> tuple[int, ...]:
    """Return for every column the least E with |x| < 2^E, or the largest of them for all."""
    peaks = np.abs(x).max(axis=0)
    if shared:
        peaks = np.full_like(peaks, peaks.max())
    return tuple(math.frexp(p)[1] for p in peaks.tolist())


def quantise_rows(x: Array, exponents: tuple[int, ...]) -> Array:
    """Return the int16 mantissas of rows on given column exponents, saturating at the ends."""
    scaled = np.rint(np.ldexp(x, FRACTION - np.array(exponents)))
    mantissas: Array = np.clip(scaled, -_LIMIT, _LIMIT).astype("<i2")
    return mantissas


def is_in_range(x: Array) -> bool:
    """Whether every element is 0 or of magnitude 2^-100 to 2^100."""
    size = np.abs(x)
    return bool(np.all((size == 0) | ((size >= _SMALLEST) & (size <= _LARGEST))))


def _require_range(x: Array, name: str) -> None:
    if not is_in_range(x):
        raise ConfigError(
            f"dataset: a number of {name} is not 0 and not of magnitude 2^-100 to 2^100",
            "remove infinities and missing values, or rescale",
        )
