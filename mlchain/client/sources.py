"""Rows to train on: from scikit-learn's bundled sets, from a file, or by content id.

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

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

from mlchain import crypto
from mlchain.client.scaling import Scaling, min_max, unscaled
from mlchain.client.tables import SUFFIXES, Floats, Table, Wanted, read_table
from mlchain.client.userfile import read_file
from mlchain.errors import ConfigError

__all__ = ["Split", "Table", "load_table", "split"]

SKLEARN_SETS = ("digits", "iris", "wine", "breast_cancer", "diabetes")
MAX_SOURCE_BYTES = 256 << 20

Fetch = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Split:
    """Shuffled and scaled rows: the first `train_rows` train, the rest test."""

    features: Floats
    target: Floats
    classes: tuple[str, ...]
    train_rows: int
    scaling: Scaling
    target_scaling: Scaling | None
    """What was done to features, and to a quantity; None for classes and groups."""

    @property
    def test_rows(self) -> int:
        """Rows kept for the final score."""
        return len(self.target) - self.train_rows


def load_table(
    source: str,
    folder: Path,
    target: str,
    is_class: bool,
    has_target: bool = True,
    fetch: Fetch | None = None,
) -> Table:
    """Read the rows that `source` names; a path is relative to `folder`.

    Without `has_target`, for rows to be grouped, all are of one class. The column that `target`
    names, the target of a bundled set and the y of an archive are no features all the same.
    `fetch` gives the bytes of a content id.

    Raises:
        ConfigError: no such source, or something in it is not a number; says where.
    """
    if not has_target:
        table = _load(source, folder, Wanted(target, bool(target), not target), fetch)
        return Table(table.features, np.zeros(len(table.features)), ("",))
    return _load(source, folder, Wanted(target, is_class, False), fetch)


def is_content_id(source: str) -> bool:
    """Tell whether a source is named by its content id."""
    return source.startswith(("bafkrei", "bafybei"))


def fetch_source(source: str, fetch: Fetch | None) -> bytes:
    """Return the bytes of a source that is named by its content id.

    Raises:
        ConfigError: there is no node to ask.
    """
    if fetch is None:
        raise ConfigError(f"source {source}: a content id needs a node", "give --url")
    return fetch(source)


def _load(source: str, folder: Path, wanted: Wanted, fetch: Fetch | None) -> Table:
    if source.startswith("sklearn:"):
        return _from_sklearn(source.removeprefix("sklearn:"), wanted.is_class)
    if is_content_id(source):
        return read_table(fetch_source(source, fetch), source, wanted)
    path = folder / source
    if not any(path.name.endswith(suffix) for suffix in SUFFIXES):
        raise ConfigError(
            f"source {source!r}: unknown kind of data",
            "sklearn:"
            + ", sklearn:".join(SKLEARN_SETS)
            + ", a content id, or a file that ends in "
            + ", ".join(SUFFIXES),
        )
    return read_table(_read(path), str(path), wanted, lambda name: _read(path.with_name(name)))


def _read(path: Path) -> bytes:
    return read_file(path, MAX_SOURCE_BYTES)


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
    features, target, of_target = table.features[order], table.target[order], None
    scaling = unscaled(features.shape[1]) if tokens else min_max(features[:train_rows])
    if not table.classes:
        of_target = min_max(target[:train_rows, None])
        target = of_target.apply(target[:, None])[:, 0]
    features = np.ascontiguousarray(scaling.apply(features))
    return Split(features, target, table.classes, train_rows, scaling, of_target)


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
