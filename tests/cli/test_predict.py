"""mlchain predict: what is asked of whom, and what a person sees."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlchain.client.predictions import read_rows
from mlchain.errors import CodecError, ConfigError
from mlchain.ml_runtime.importers.writer import Writer


def make(path) -> None:
    w = Writer(2, 8)
    scores = w.linear(w.x, np.array([[-1.0, 1.0], [-1.0, 1.0]]), 0.0)
    w.model(scores, "class", ("no", "yes")).save(path)


def test_a_model_file_answers_here_without_anybody(run_json, run, home):
    make(home / "m.model")
    (home / "rows.csv").write_text("1,1\n-1,-1\n")
    status, document = run_json("predict", "--model", "m.model", "--rows", "rows.csv", "--local")
    assert (status, document["data"]["answers"]) == (0, ["yes", "no"])
    shown = run("predict", "--model", "m.model", "--row", "1,1", "--local").stdout
    assert "answer    yes" in shown and "by nobody" in shown


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (("--row", "1", "--local"), 2, "rows of 2 numbers"),
        (("--row", "x,y", "--local"), 2, "not rows of numbers"),
        (("--rows", "none.json", "--local"), 2, "No such file"),
        (("--local",), 2, "give one of"),
        (("--row", "1,1", "--evaluate", "3"), 2, "needs --data"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(run, home, arguments, status, words):
    make(home / "m.model")
    result = run("predict", "--model", "m.model", *arguments)
    assert result.exit_code == status
    assert words in result.stderr


def test_rows_of_either_file_are_the_same_bytes(tmp_path):
    (tmp_path / "a.csv").write_text("1,2.5\n3,4\n")
    (tmp_path / "a.json").write_text(json.dumps([[1.0, 2.5], [3.0, 4.0]], separators=(",", ":")))
    assert read_rows(str(tmp_path / "a.csv")) == read_rows(str(tmp_path / "a.json"))
    (tmp_path / "b.csv").write_text("age,weight\n1,2\n")
    with pytest.raises(ConfigError):
        read_rows(str(tmp_path / "b.csv"))


@pytest.mark.parametrize("text", ["1," + "1" * 200_000, "1,2\n3\n", "1,²\n", "1,\0\n", "\xff"])
def test_a_csv_file_of_something_else_says_so(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="not rows of numbers"):
        read_rows(str(tmp_path / "a.csv"))


def test_a_file_of_rows_that_is_too_long_is_not_read(tmp_path):
    for name in ("a.csv", "a.json"):
        with (tmp_path / name).open("wb") as file:
            file.truncate((64 << 20) + 1)
        with pytest.raises(CodecError, match="larger than 67108864 bytes"):
            read_rows(str(tmp_path / name))
