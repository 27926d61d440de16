"""Rows from files and bundled sets, shuffled and scaled by fixed rules."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from mlchain.client.jobfile import load_job_file
from mlchain.client.sources import Table, load_table, split
from mlchain.client.training import prepare
from mlchain.errors import CodecError, ConfigError
from mlchain.ledger.unixfs import cid_of, cid_text
from mlchain.ml_runtime import Dataset, Trainer, run

EXAMPLES = Path(__file__).parents[2] / "examples"


def write(folder: Path, text: str) -> None:
    (folder / "rows.csv").write_text(text)


def load(folder: Path, target: str = "", is_class: bool = True) -> Table:
    return load_table("rows.csv", folder, target, is_class)


def test_a_csv_file_with_names_gives_features_and_numbered_classes(tmp_path):
    write(tmp_path, "a,kind,b\n1,yes,2\n3,no,4.5\n\n")
    table = load(tmp_path, "kind")
    assert table.features.tolist() == [[1, 2], [3, 4.5]]
    assert (table.classes, table.target.tolist()) == (("no", "yes"), [1, 0])


def test_without_names_the_last_column_is_the_target(tmp_path):
    write(tmp_path, "1,2,10\n3,4,9\n5,6,10\n")
    assert load(tmp_path).features.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert load(tmp_path).classes == ("9", "10"), "whole numbers sort as numbers"
    assert load(tmp_path, is_class=False).target.tolist() == [10, 9, 10]


@pytest.mark.parametrize(
    ("text", "target", "is_class", "reason"),
    [
        ("a,b\n1,x\n2\n", "", True, "line 3: 1 cells, expected 2"),
        ("a,b\n1,x\n?,y\n", "", True, "line 3: '\\?' is not a number"),
        ("a,b\n1,x\nnan,y\n", "", True, "line 3: 'nan' is not a number"),
        ("a,b\n1,x\n2,y\n", "", False, "line 2: 'x' is not a number"),
        ("a,b\n1,x\n2,y\n", "c", True, "no column 'c'"),
        ("1,0\n2,1\n", "b", True, "no column 'b'"),
        ("a,b\n1,x\n2,x\n", "", True, "the target has 1 classes"),
        ("a,b\n", "", True, "no rows"),
        ("", "", True, "needs a line per row"),
        ("a\n1\n", "", True, "at least two columns"),
        ('a,b\n"1', "", True, "rows.csv"),
    ],
)
def test_a_csv_file_that_cannot_be_used_says_where(tmp_path, text, target, is_class, reason):
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=reason):
        load(tmp_path, target, is_class)


@pytest.mark.parametrize("source", ["none.csv", "rows.txt", "sklearn:faces", "rows"])
def test_a_source_that_is_not_there_or_not_known_is_refused(tmp_path, source):
    (tmp_path / "rows.txt").write_text("1,2\n")
    with pytest.raises(ConfigError):
        load_table(source, tmp_path, "", True)


def test_a_file_beyond_the_bound_is_not_read(tmp_path, monkeypatch):
    write(tmp_path, "1,0\n2,1\n")
    monkeypatch.setattr("mlchain.client.sources.MAX_SOURCE_BYTES", 7)
    with pytest.raises(CodecError, match="larger than 7 bytes"):
        load(tmp_path)


def test_an_npz_file_holds_x_and_y(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.eye(3), y=np.array([2, 0, 1]))
    assert load_table("rows.npz", tmp_path, "", True).classes == ("0", "1", "2")
    assert load_table("rows.npz", tmp_path, "", False).target.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.eye(3)},
        {"x": np.eye(3), "y": np.arange(2)},
        {"x": np.arange(3), "y": np.arange(3)},
        {"x": np.full((2, 2), np.inf), "y": np.arange(2)},
        {"x": np.array([["a"], ["b"]]), "y": np.arange(2)},
        {"x": np.array([[{}], [{}]]), "y": np.arange(2)},  # objects would need pickle
    ],
)
def test_an_npz_file_that_cannot_be_used_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(ConfigError):
        load_table("rows.npz", tmp_path, "", True)


def table(rows: int) -> Table:
    x = np.stack([np.arange(rows) * 2.0 - 7, np.full(rows, 3.0)], axis=1)
    return Table(x, np.arange(rows) * 10.0, ())


def test_the_order_is_a_fixed_permutation_and_the_last_rows_test():
    parts = split(table(20), Decimal("0.2"))
    assert (parts.train_rows, parts.test_rows) == (16, 4)
    order = [round(float(value) * 19) for value in _unscaled(parts.features[:, 0])]
    assert sorted(order) == list(range(20))
    assert order[:6] == [8, 9, 11, 4, 19, 10], "the same on every machine and for ever"


def _unscaled(column):
    """Return values from 0 to 1 over all rows, whatever the training rows spanned."""
    return (column - column.min()) / (column.max() - column.min())


def test_training_rows_span_0_to_1_and_constant_columns_become_0():
    parts = split(table(20), Decimal("0.2"))
    train = parts.features[: parts.train_rows]
    assert (train[:, 0].min(), train[:, 0].max()) == (0, 1)
    assert not parts.features[:, 1].any()
    target = parts.target[: parts.train_rows]
    assert (target.min(), target.max()) == (0, 1), "a quantity is scaled too"


def test_too_few_rows_to_divide_are_refused():
    with pytest.raises(ConfigError, match="leave 0 for testing"):
        split(table(2), Decimal("0.2"))


PINNED = {
    "iris": ("bafkreifkh5ibh4pwqicew43gwtrz23nuf3g5zcl5vk464ee3nnqzxbutha", 120, 30),
    "digits": ("bafkreigupn6f3zjagj7svzethdpjvamox7bzkwt5amszlg2n7qkaat6gja", 1438, 359),
}


@pytest.mark.parametrize("name", PINNED)
def test_the_examples_give_the_same_content_id_on_every_machine(name):
    job = prepare(load_job_file(EXAMPLES / f"{name}.toml"))
    assert (cid_text(cid_of(job.dataset)), job.train_rows, job.test_rows) == PINNED[name]


def test_the_iris_example_learns():
    job = prepare(load_job_file(EXAMPLES / "iris.toml"))
    dataset = Dataset.decode(job.dataset)
    seed = bytes(32)
    score = Trainer(job.task, dataset, seed).evaluate(run(job.task, dataset, seed))
    assert score.value >= Decimal("0.9")
    assert job.task.chunks == 80 and job.segment == 40


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_digits_example_reaches_96_percent_in_a_thousand_chunks(seed):
    job = prepare(load_job_file(EXAMPLES / "digits.toml"))
    dataset = Dataset.decode(job.dataset)
    order = bytes([seed]) * 32
    score = Trainer(job.task, dataset, order).evaluate(run(job.task, dataset, order))
    assert job.task.chunks >= 1000
    assert score.correct >= 0.96 * score.total


def test_epochs_become_steps(tmp_path):
    write(tmp_path, "1,0\n" * 5 + "2,1\n" * 5)
    file = tmp_path / "job.toml"
    file.write_text(
        '[job]\nname = "x"\nfee = 1\n[data]\nsource = "rows.csv"\n[model]\nkind = "softmax"\n'
        "[training]\nrate = 0.1\nbatch = 3\nepochs = 2\nchunk = 2\n"
    )
    assert prepare(load_job_file(file)).steps == 6, "2 epochs of 8 rows in batches of 3"
