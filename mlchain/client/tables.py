"""Tables in files: CSV, NPZ, Parquet, and images as idx, told apart by their first bytes.

A reader takes the bytes of a file, so that a table is the same from a disk and by content id. What
becomes of the numbers is said in `sources.py`.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mlchain.errors import ConfigError

SUFFIXES = (".csv", ".npz", ".parquet", "-ubyte", "-ubyte.gz")
"""How the names of files end whose rows can be read; `-ubyte` are images as idx."""
MAX_CLASSES = 1000
MAX_TABLE_BYTES = 4 << 30
"""Most bytes a table may have when it is unpacked, as binary64."""

_PARQUET_NUMBERS = ("BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_UNREADABLE = (
    ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What reading a damaged or encrypted zip raises."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as they come. `features` is (rows, columns); `target` (rows,) holds a quantity, or the
    number of a class whose name is `classes[number]`; `classes` is empty for a quantity.
    """

    features: Floats
    target: Floats
    classes: tuple[str, ...]


class Wanted(NamedTuple):
    """What is asked of a table: `target` names a column (CSV, Parquet; "": the last one).

    `is_class`: the target is a class. `all_features`: there is no target, all columns are features.
    """

    target: str
    is_class: bool
    all_features: bool


Reader = Callable[[bytes, str, Wanted], Table]
Beside = Callable[[str], bytes]


def read_table(data: bytes, where: str, wanted: Wanted, beside: Beside | None = None) -> Table:
    """Read the table in a file named `where`; `beside` gives the bytes of a file next to it.

    Raises:
        ConfigError: it cannot be read, or something in it is not a number; says where.
    """
    if data[:4] == b"PAR1":
        return _from_parquet(data, where, wanted)
    if data[:4] == b"PK\x03\x04":
        return _from_npz(data, where, wanted)
    if data[:2] == b"\x1f\x8b" or data[:3] == b"\0\0\x08":
        return _from_idx(data, where, wanted, beside)
    return _from_csv(data, where, wanted)


def _from_idx(data: bytes, where: str, wanted: Wanted, beside: Beside | None) -> Table:
    """Read images of bytes, a row each, and their labels from the file beside them."""
    name = where.rpartition("/")[2]
    labels = name.replace("images-idx3", "labels-idx1")
    if beside is None or labels == name:
        raise ConfigError(
            f"{where}: images need a file of labels beside them",
            "name them as in train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz",
        )
    images = _read_idx(data, where)
    target = _read_idx(beside(labels), labels)
    if images.ndim < 2 or target.ndim != 1 or len(images) != len(target) or not len(images):
        raise ConfigError(f"{where}: {len(images)} images, {len(target)} labels")
    features = images.reshape(len(images), -1).astype(np.float64)
    if wanted.is_class:
        values, classes = _class_array(target, labels)
        return Table(features, values, classes)
    return Table(features, target.astype(np.float64), ())


def _read_idx(data: bytes, where: str) -> NDArray[np.uint8]:
    """Return the array of an idx file of unsigned bytes, gzip or not (yann.lecun.com/exdb/mnist).

    Its size is known from its first bytes, and no more is unpacked.
    """
    try:
        with gzip.open(io.BytesIO(data)) if data[:2] == b"\x1f\x8b" else io.BytesIO(data) as file:
            head = file.read(4)
            axes = head[3] if len(head) == 4 and head[:3] == b"\0\0\x08" else 0
            sizes = [int.from_bytes(file.read(4), "big") for _ in range(axes)]
            size = int(np.prod(np.array(sizes, object))) if 1 <= axes <= 4 else 0
            if not 0 < size <= MAX_TABLE_BYTES // 8:
                raise ConfigError(f"{where}: not an idx file of unsigned bytes")
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{where}: {error}") from error
    if len(body) != size:
        raise ConfigError(f"{where}: its header says {size} bytes, it has others")
    return np.frombuffer(body, np.uint8).reshape(sizes)


def _from_parquet(data: bytes, where: str, wanted: Wanted) -> Table:
    try:
        import pyarrow  # type: ignore[import-untyped]  # an extra, for those who have such files
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            f"{where}: Parquet needs pyarrow", "pip install 'mlchain[parquet]'"
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        rows, names = file.metadata.num_rows, file.schema_arrow.names
        if rows < 1 or len(names) < 2 or len(set(names)) < len(names):
            raise ConfigError(f"{where}: needs rows, and at least two columns of different names")
        last = "" if wanted.all_features else names[-1]
        target = wanted.target or last
        if target and target not in names:
            raise ConfigError(f"{where}: no column {target!r}", "columns: " + ", ".join(names))
        label = target if wanted.is_class else ""
        _check_parquet(file.metadata, names, label, where)
        # Texts stay numbers of a dictionary, or a short one in many rows would be long together.
        file = pyarrow.parquet.ParquetFile(
            io.BytesIO(data), read_dictionary=[label] if label else None
        )

        def read(name: str) -> Any:
            return file.read([name], use_threads=False).column(0)

        features = np.empty((rows, len(names) - bool(target)))
        for place, name in enumerate(n for n in names if n != target):
            features[:, place] = _column(read(name), name, where)
        if not target:
            return Table(features, np.zeros(rows), ("",))
        if label:
            return Table(features, *_label_column(read(label), where))
        return Table(features, _column(read(target), target, where), ())
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_parquet(metadata: Any, names: list[str], label: str, where: str) -> None:
    """Compare what a Parquet file says of its columns with what may be read of it.

    Numbers take as many bytes as there are rows; texts, which only labels may be, as many as their
    pages have before they are packed.

    Raises:
        ConfigError: it is too large, or a column is no plain column.
    """
    _check_size(metadata.num_rows * len(names) * 8, where)
    if metadata.num_columns != len(names):
        raise ConfigError(f"{where}: holds columns that have columns")
    for place in range(metadata.num_columns):
        column, name = metadata.schema.column(place), names[place]
        if column.max_repetition_level or column.max_definition_level > 1:
            raise ConfigError(f"{where}: column {name!r} holds lists")
        is_text = name == label and column.physical_type == "BYTE_ARRAY"
        if column.physical_type not in _PARQUET_NUMBERS and not is_text:
            raise ConfigError(f"{where}: column {name!r} holds something that is no number")
        groups = [metadata.row_group(n).column(place) for n in range(metadata.num_row_groups)]
        if sum(group.num_values for group in groups) != metadata.num_rows:
            raise ConfigError(f"{where}: column {name!r} has another number of rows")
        _check_size(sum(group.total_uncompressed_size for group in groups), where)


def _check_size(size: int, where: str) -> None:
    if not 0 <= size <= MAX_TABLE_BYTES:
        raise ConfigError(f"{where}: more than {MAX_TABLE_BYTES} bytes when unpacked")


def _label_column(column: Any, where: str) -> tuple[Floats, tuple[str, ...]]:
    """Return class numbers and names of a column of labels, in memory for each label once."""
    if column.null_count:
        raise ConfigError(f"{where}: the target holds missing values")
    coded = column.dictionary_encode().unify_dictionaries()
    distinct = coded.chunk(0).dictionary
    _check_classes(len(distinct), where)
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in coded.chunks])
    return _name_classes([str(v) for v in distinct.to_pylist()], numbers, where)


def _column(column: Any, name: str, where: str) -> Floats:
    try:
        values = np.asarray(column.to_numpy(), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: column {name!r} holds something that is no number") from error
    if not np.isfinite(values).all():
        raise ConfigError(f"{where}: column {name!r} holds missing or infinite values")
    return values


def _from_npz(data: bytes, where: str, wanted: Wanted) -> Table:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if not {"x.npy", "y.npy"} <= set(archive.namelist()):
                raise ConfigError(f"{where}: needs the arrays x and y", "np.savez(path, x=…, y=…)")
            x, y = _read_npy(archive, "x.npy", where), _read_npy(archive, "y.npy", where)
    except _UNREADABLE as error:
        raise ConfigError(f"{where}: {error}") from error
    if x.dtype.kind not in "fiub" or x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise ConfigError(f"{where}: x must be rows x features of numbers, y one value per row")
    if wanted.is_class:
        target, classes = _class_array(y, where)
    elif y.dtype.kind in "fiub":
        target, classes = y.astype(np.float64), ()
    else:
        raise ConfigError(f"{where}: y must hold numbers")
    features = x.astype(np.float64)
    if not (np.isfinite(features).all() and np.isfinite(target).all()):
        raise ConfigError(f"{where}: holds values that are not finite")
    return Table(features, target, classes)


def _read_npy(archive: zipfile.ZipFile, name: str, where: str) -> NDArray[Any]:
    """Return one array of an archive, of the size that its header and the archive both give.

    Raises:
        ConfigError: they give different ones, or too large a one.
        ValueError: no array, or one of objects.
    """
    said = archive.getinfo(name).file_size
    with archive.open(name) as file:
        head = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(
            npy.read_magic(file)
        )
        if head is None:
            raise ConfigError(f"{where}: {name} is of a version that holds no numbers")
        shape, _, dtype = head(file)
        count = math.prod(shape)
        if file.tell() + count * dtype.itemsize != said:
            raise ConfigError(f"{where}: {name} is not as long as its header says")
    _check_size(count * max(8, dtype.itemsize), where)
    with archive.open(name) as file:
        return np.asarray(npy.read_array(file, allow_pickle=False))


def _from_csv(data: bytes, where: str, wanted: Wanted) -> Table:
    """Read a CSV file whose first line may name the columns."""
    try:
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
        lines = [(n, row) for n, row in enumerate(csv.reader(text), 1) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if not lines or len(lines[0][1]) < 2:
        raise ConfigError(f"{where}: needs a line per row and at least two columns")
    names = [cell.strip() for cell in lines[0][1]]
    has_header = not any(_is_number(name) for name in names)
    column = -1 if wanted.all_features else len(names) - 1
    target = wanted.target
    if target:
        if not has_header or target not in names:
            raise ConfigError(
                f"{where}: no column {target!r}",
                "columns: " + ", ".join(names) if has_header else "its first line names no columns",
            )
        column = names.index(target)
    features: list[list[float]] = []
    labels: list[str] = []
    for number, row in lines[1:] if has_header else lines:
        if len(row) != len(names):
            raise ConfigError(f"{where}, line {number}: {len(row)} cells, expected {len(names)}")
        features.append([_number(cell, where, number) for i, cell in enumerate(row) if i != column])
        labels.append(row[column].strip())
        if not wanted.is_class:
            _number(row[column], where, number)
    if not features:
        raise ConfigError(f"{where}: no rows")
    if wanted.is_class:
        values, classes = _number_classes(labels, where)
    else:
        values, classes = np.array([float(label) for label in labels]), ()
    return Table(np.array(features, dtype=np.float64), values, classes)


def _number_classes(labels: Sequence[str], where: str) -> tuple[Floats, tuple[str, ...]]:
    """Return class numbers and names of the labels of rows."""
    place = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return _name_classes(list(place), np.array([place[label] for label in labels]), where)


def _class_array(labels: NDArray[Any], where: str) -> tuple[Floats, tuple[str, ...]]:
    """Return class numbers and names of an array of labels."""
    distinct, numbers = np.unique(labels, return_inverse=True)
    _check_classes(len(distinct), where)
    return _name_classes([str(v) for v in distinct.tolist()], numbers, where)


def _name_classes(
    distinct: list[str], numbers: NDArray[Any], where: str
) -> tuple[Floats, tuple[str, ...]]:
    """Return class numbers and names, where row i has the label `distinct[numbers[i]]`.

    Whole numbers sort as numbers, the rest as text.
    """
    _check_classes(len(set(distinct)), where)
    is_whole = all(_WHOLE.fullmatch(label) for label in distinct)
    names = sorted(set(distinct), key=lambda label: (int(label) if is_whole else 0, label))
    order = {name: i for i, name in enumerate(names)}
    return np.array([order[label] for label in distinct], np.float64)[numbers], tuple(names)


def _check_classes(count: int, where: str) -> None:
    if not 2 <= count <= MAX_CLASSES:
        raise ConfigError(
            f"{where}: the target has {count} classes, allowed are 2 to {MAX_CLASSES}",
            'a quantity needs kind = "linear"',
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, where: str, line: int) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ConfigError(
            f"{where}, line {line}: {cell!r} is not a number", "remove or fill the row"
        )
    return value
