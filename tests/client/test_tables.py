"""Tables in files of several kinds: the same rows, whatever they are kept in."""

import gzip
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from mlchain.client import tables
from mlchain.client.sources import load_table
from mlchain.client.tables import Wanted, read_table
from mlchain.errors import ConfigError
from mlchain.ledger.unixfs import cid_of, cid_text

X = np.array([[1.0, 2.5], [3.0, -4.0], [0.25, 8.0]])
Y = np.array([3, 1, 3])
CLASS = Wanted("y", True, False)


def as_csv() -> bytes:
    return b"a,b,y\n" + b"".join(
        b"%r,%r,%d\n" % (*x, y) for x, y in zip(X.tolist(), Y, strict=True)
    )


def as_npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=X, y=Y)
    return file.getvalue()


def as_parquet(**columns) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    columns = columns or {"a": X[:, 0], "b": X[:, 1], "y": Y}
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def as_idx(values: np.ndarray, packed: bool = True) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    data = head + values.astype(np.uint8).tobytes()
    return gzip.compress(data, mtime=0) if packed else data


@pytest.mark.parametrize("make", [as_csv, as_npz, as_parquet])
def test_the_same_rows_come_out_of_every_kind_of_file(make):
    table = read_table(make(), "rows", CLASS)
    assert table.features.tolist() == X.tolist()
    assert (table.classes, table.target.tolist()) == (("1", "3"), [1, 0, 1])
    quantity = read_table(make(), "rows", Wanted("", False, False))
    assert (quantity.classes, quantity.target.tolist()) == ((), [3, 1, 3])


@pytest.mark.parametrize("packed", [True, False])
def test_images_are_rows_and_their_labels_stand_beside_them(tmp_path, packed):
    images = np.arange(3 * 2 * 2).reshape(3, 2, 2)
    end = ".gz" if packed else ""
    (tmp_path / f"t-images-idx3-ubyte{end}").write_bytes(as_idx(images, packed))
    (tmp_path / f"t-labels-idx1-ubyte{end}").write_bytes(as_idx(Y, packed))
    table = load_table(f"t-images-idx3-ubyte{end}", tmp_path, "", True)
    assert table.features.tolist() == images.reshape(3, 4).tolist()
    assert table.classes == ("1", "3")


def test_rows_are_read_by_content_id_from_whoever_has_them(tmp_path):
    data = as_csv()
    cid = cid_text(cid_of(data))
    table = load_table(cid, tmp_path, "y", True, fetch={cid: data}.__getitem__)
    assert table.features.tolist() == X.tolist()
    with pytest.raises(ConfigError, match="needs a node"):
        load_table(cid, tmp_path, "y", True)


BOMB = bytes([0, 0, 8, 3]) + b"\x7f\xff\xff\xff" * 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BOMB, "labels beside"),
        (as_npz()[:40], "rows"),
        (b"PAR1" + bytes(20), "rows"),
        (as_parquet(a=[1.0, None], y=[1, 2]), "column 'a' holds missing"),
        (as_parquet(a=["x", "y"], y=[1, 2]), "column 'a' holds something that is no number"),
        (as_parquet(y=[1, 2]), "at least two columns"),
        (as_parquet(a=[1], b=[2]), "no column 'y'"),
        (b"\xff\xfe,1\n", "rows"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(data, reason):
    with pytest.raises(ConfigError, match=reason):
        read_table(data, "rows", CLASS)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (BOMB, as_idx(Y)),
        (gzip.compress(BOMB + bytes(10_000_000), mtime=0), as_idx(Y)),
        (as_idx(np.zeros((2, 2, 2))), as_idx(Y)),
        (as_idx(np.zeros((3, 2, 2)))[:-9], as_idx(Y)),
        (as_idx(np.zeros((3, 2, 2)), False) + b"more", as_idx(Y)),
        (as_idx(np.zeros((3, 2, 2))), b"\0\0\x0d\1" + bytes(16)),
    ],
)
def test_images_that_do_not_fit_their_header_or_labels_are_refused(images, labels):
    with pytest.raises(ConfigError):
        read_table(
            images, "t-images-idx3-ubyte", CLASS, {"t-labels-idx1-ubyte": labels}.__getitem__
        )


def npy_of(shape: tuple[int, ...], body: bytes, descr: str = "|u1") -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + body


def zip_of(x: bytes, y: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", y)
    return file.getvalue()


def peak_of(data: bytes, wanted: Wanted) -> int:
    """Return the most bytes that Python, numpy and arrow held while a file was refused or read."""
    pyarrow = pytest.importorskip("pyarrow")
    before = pyarrow.default_memory_pool().max_memory()
    tracemalloc.start()
    try:
        read_table(data, "rows", wanted)
    except ConfigError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak + pyarrow.default_memory_pool().max_memory() - before


@pytest.mark.parametrize("shape", [(10**12, 4), (3, 1), (1, 2), (2**40, 2**40)])
def test_an_array_whose_header_gives_another_size_than_the_archive_is_refused(shape):
    y = npy_of((2,), bytes([0, 1]))
    assert len(read_table(zip_of(npy_of((2, 2), bytes(4)), y), "rows", CLASS).target) == 2
    with pytest.raises(ConfigError, match="not as long as its header says"):
        read_table(zip_of(npy_of(shape, bytes(4)), y), "rows", CLASS)


def test_an_array_that_would_be_too_large_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 1 << 20)
    size = 8 << 20
    data = zip_of(npy_of((size // 4, 4), bytes(size)), npy_of((size // 4,), bytes(size // 4)))
    with pytest.raises(ConfigError, match="when unpacked"):
        read_table(data, "rows", CLASS)
    assert peak_of(data, CLASS) < 2 << 20


def test_long_texts_that_stand_in_many_rows_are_kept_once():
    pyarrow = pytest.importorskip("pyarrow")
    texts = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0, 1] * 200, pyarrow.int32()), ["x" * (1 << 20), "b"]
    )
    data = as_parquet(a=texts, y=texts)
    assert len(data) < 1 << 20
    assert peak_of(data, CLASS) < 16 << 20, "a feature that is text is refused unread"
    data = as_parquet(a=[1.0] * 400, y=texts)
    assert peak_of(data, CLASS) < 32 << 20, "200 MiB if every row had its own"
    assert len(read_table(data, "rows", CLASS).classes[1]) == 1 << 20


def test_a_parquet_file_of_columns_too_large_or_not_plain_is_refused(monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    for column in ([[1], [2]], [{"a": 1}, {"a": 2}]):
        with pytest.raises(ConfigError, match=r"holds lists|have columns|no number"):
            read_table(as_parquet(a=column, y=[1, 2]), "rows", CLASS)
    data = as_parquet(a=[1.0, 2.0], y=pyarrow.array(["x" * 5000, "y" * 5000]))
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 4000)
    with pytest.raises(ConfigError, match="when unpacked"):
        read_table(data, "rows", CLASS)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("²,1", ("1", "²")),
        ("--1,1", ("--1", "1")),
        ("٣,1", ("1", "٣")),
        ("10,9,-1", ("-1", "9", "10")),
        ("9" * 5000 + ",1", ("1", "9" * 5000)),
    ],
)
def test_only_what_is_a_whole_number_sorts_as_one(labels, classes):
    data = "a,y\n" + "".join(f"1,{label}\n" for label in labels.split(","))
    assert read_table(data.encode(), "rows", CLASS).classes == classes
