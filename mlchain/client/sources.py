"""Rows to train on: from scikit-learn's bundled sets, a CSV file or an NPZ file.

Two rules make the bytes of a dataset the same on every machine, so that anybody who has the source
can rebuild the content id that a job names:

- *Order.* Row i is sorted by the digest of i under "mlchain/shuffle". The last `test_rows` rows,
  the nearest whole number to rows x test_fraction, are kept for the final score.
- *Scale.* Each feature, and the target if it is a quantity, becomes (x - low) / (high - low),
  where low and high are its least and greatest value in the training rows; a feature that never
  changes there becomes 0. Each is one correctly rounded operation, so no sum's order matters.
  Token numbers, the features of a transformer, stay as they are.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlchain import crypto
from mlchain.errors import ConfigError

SKLEARN_SETS = ("digits", "iris", "wine", "breast_cancer", "diabetes")
MAX_SOURCE_BYTES = 256 << 20
MAX_CLASSES = 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as they come. `features` is (rows, columns); `target` (rows,) holds a quantity, or the
    number of a class whose name is `classes[number]`; `classes` is empty for a quantity.
    """

    features: Floats
    target: Floats
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Shuffled and scaled rows: the first `train_rows` train, the rest test."""

    features: Floats
    target: Floats
    classes: tuple[str, ...]
    train_rows: int

    @property
    def test_rows(self) -> int:
        """Rows kept for the final score."""
        return len(self.target) - self.train_rows


def load_table(
    source: str, folder: Path, target: str, is_class: bool, has_target: bool = True
) -> Table:
    """Read the rows that `source` names; a path is relative to `folder`.

    Without `has_target`, for rows to be grouped, all are of one class. The column that `target`
    names, the target of a bundled set and the y of an archive are no features all the same.

    Raises:
        ConfigError: no such source, or something in it is not a number; says where.
    """
    if not has_target:
        table = _load(source, folder, target, bool(target), not target)
        return Table(table.features, np.zeros(len(table.features)), ("",))
    return _load(source, folder, target, is_class, False)


def _load(source: str, folder: Path, target: str, is_class: bool, all_features: bool) -> Table:
    if source.startswith("sklearn:"):
        return _from_sklearn(source.removeprefix("sklearn:"), is_class)
    path = folder / source
    try:
        if path.stat().st_size > MAX_SOURCE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_SOURCE_BYTES} bytes")
        if path.suffix == ".csv":
            return _from_csv(path, target, is_class, all_features)
        if path.suffix == ".npz":
            return _from_npz(path, is_class)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    raise ConfigError(
        f"source {source!r}: unknown kind of data",
        "sklearn:" + ", sklearn:".join(SKLEARN_SETS) + ", or a .csv or .npz file",
    )


def split(table: Table, test_fraction: Decimal, tokens: bool = False) -> Split:
    """Shuffle, scale and divide a table by the rules of this module; tokens are not scaled.

    Raises:
        ConfigError: too few rows to divide.
    """
    rows = len(table.target)
    test_rows = int(rows * test_fraction + Decimal("0.5"))
    if not 0 < test_rows < rows:
        raise ConfigError(f"{rows} rows leave {test_rows} for testing", "use more rows")
    order = sorted(
        range(rows), key=lambda i: crypto.digest("mlchain/shuffle", i.to_bytes(8, "little"))
    )
    train_rows = rows - test_rows
    features = np.ascontiguousarray(table.features[order])
    if not tokens:
        features = _scale(features, train_rows)
    target = table.target[order]
    if not table.classes:
        target = _scale(target[:, None], train_rows)[:, 0]
    return Split(features, target, table.classes, train_rows)


def _scale(columns: Floats, train_rows: int) -> Floats:
    low = columns[:train_rows].min(axis=0)
    span = columns[:train_rows].max(axis=0) - low
    constant = span == 0
    scaled = (columns - low) / np.where(constant, 1.0, span)
    return np.ascontiguousarray(np.where(constant, 0.0, scaled))


def _from_sklearn(name: str, is_class: bool) -> Table:
    if name not in SKLEARN_SETS:
        raise ConfigError(
            f"source sklearn:{name}: no such set", "one of " + ", ".join(SKLEARN_SETS)
        )
    import sklearn.datasets  # type: ignore[import-untyped]  # seconds to import, so only for whoever asks for it

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    has_classes = name != "diabetes"
    if is_class and not has_classes:
        raise ConfigError("source sklearn:diabetes: its target is a quantity", 'kind = "linear"')
    classes = tuple(str(c) for c in bunch.target_names) if is_class else ()
    return Table(
        np.asarray(bunch.data, dtype=np.float64), np.asarray(bunch.target, np.float64), classes
    )


def _from_npz(path: Path, is_class: bool) -> Table:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "x" not in archive or "y" not in archive:
                raise ConfigError(f"{path}: needs the arrays x and y", "np.savez(path, x=…, y=…)")
            x, y = np.asarray(archive["x"]), np.asarray(archive["y"])
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if x.dtype.kind not in "fiub" or x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise ConfigError(f"{path}: x must be rows x features of numbers, y one value per row")
    if is_class:
        target, classes = _number_classes([str(v) for v in y.tolist()], str(path))
    elif y.dtype.kind in "fiub":
        target, classes = y.astype(np.float64), ()
    else:
        raise ConfigError(f"{path}: y must hold numbers")
    features = x.astype(np.float64)
    if not (np.isfinite(features).all() and np.isfinite(target).all()):
        raise ConfigError(f"{path}: holds values that are not finite")
    return Table(features, target, classes)


def _from_csv(path: Path, target: str, is_class: bool, all_features: bool) -> Table:
    """Read a CSV file whose first line may name the columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(n, row) for n, row in enumerate(csv.reader(file), 1) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not lines or len(lines[0][1]) < 2:
        raise ConfigError(f"{path}: needs a line per row and at least two columns")
    names = [cell.strip() for cell in lines[0][1]]
    has_header = not any(_is_number(name) for name in names)
    column = -1 if all_features else len(names) - 1
    if target:
        if not has_header or target not in names:
            raise ConfigError(
                f"{path}: no column {target!r}",
                "columns: " + ", ".join(names) if has_header else "its first line names no columns",
            )
        column = names.index(target)
    features: list[list[float]] = []
    labels: list[str] = []
    for number, row in lines[1:] if has_header else lines:
        if len(row) != len(names):
            raise ConfigError(f"{path}, line {number}: {len(row)} cells, expected {len(names)}")
        features.append([_number(cell, path, number) for i, cell in enumerate(row) if i != column])
        labels.append(row[column].strip())
        if not is_class:
            _number(row[column], path, number)
    if not features:
        raise ConfigError(f"{path}: no rows")
    if is_class:
        values, classes = _number_classes(labels, str(path))
    else:
        values, classes = np.array([float(label) for label in labels]), ()
    return Table(np.array(features, dtype=np.float64), values, classes)


def _number_classes(labels: Sequence[str], where: str) -> tuple[Floats, tuple[str, ...]]:
    """Return class numbers and names; whole numbers sort as numbers, the rest as text."""
    distinct = set(labels)
    is_whole = all(label.lstrip("-").isdigit() for label in distinct)
    names = sorted(distinct, key=lambda label: (int(label) if is_whole else 0, label))
    if not 2 <= len(names) <= MAX_CLASSES:
        raise ConfigError(
            f"{where}: the target has {len(names)} classes, allowed are 2 to {MAX_CLASSES}",
            'a quantity needs kind = "linear"',
        )
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[label] for label in labels], dtype=np.float64), tuple(names)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, path: Path, line: int) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ConfigError(
            f"{path}, line {line}: {cell!r} is not a number", "remove or fill the row"
        )
    return value
