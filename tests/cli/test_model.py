"""mlchain model: what a file is, without running it; and its way in and out."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from mlchain.cli import model as commands
from mlchain.ml_runtime import Model, load_model
from mlchain.ml_runtime.importers.writer import Writer


def make(path, classes=("no", "yes", "perhaps")) -> Model:
    w = Writer(4, 8)
    scores = w.linear(w.x.then("subtract", [1, 2, 3, 4]), np.arange(12.0).reshape(4, 3), 0.5)
    made = w.model(scores, "class", classes)
    made.save(path)
    return made


def test_a_file_is_described_for_people(run, home):
    made = make(home / "m.model")
    text = run("model", "show", "m.model").stdout
    assert f"model m.model  {len(made.encode()):,}".replace(",", " ") in text
    for line in (
        "4 features, as they are",
        "class: no, yes, perhaps",
        "each for itself",
        "bafkrei",
    ):
        assert line in text
    assert "matmul         transpose_a 0, transpose_b 1  F[8, 3]" in text


def test_a_file_is_described_for_programs(run_json, home):
    made = make(home / "m.model", classes=(-3, 2**60, 7))
    status, document = run_json("model", "show", "m.model")
    data = document["data"]
    assert (status, document["schema"]) == (0, "mlchain.model/1")
    assert data["classes"] == [-3, str(2**60), 7]
    assert data["rows_are_independent"] is True
    assert sum(op["gas"] for op in data["ops"]) == made.check().gas
    assert data["gas_per_row"] == -(-made.check().gas // 8)
    assert data["parameters"][0]["type"] == "F[4]"


def test_the_content_id_is_the_one_the_chain_would_give(run_json, home):
    from mlchain.ledger.unixfs import cid_of, cid_text

    make(home / "m.model")
    expected = cid_text(cid_of((home / "m.model").read_bytes()))
    assert run_json("model", "show", "m.model")[1]["data"]["content"] == expected


def test_a_model_file_is_verified_and_saved_again(run, home):
    make(home / "m.model")
    result = run("model", "import", "m.model", "-o", "again.model")
    assert result.exit_code == 0
    assert (home / "again.model").read_bytes() == (home / "m.model").read_bytes()


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (("show", "none.model"), 3, "no such file"),
        (("show", "text.model"), 2, "not a model file"),
        (("show", "cut.model"), 2, "cut.model: Model"),
        (("show", "nan.model"), 2, "parameter 0 holds a number that is not in F[4]"),
        (("import", "nan.model"), 2, "parameter 0"),
        (("export", "good.model", "-o", "m.pickle"), 2, "the format .pickle is unknown"),
        (("export", "good.model"), 2, "Missing option"),
        (("show", "."), 2, "directory"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(run, home, arguments, status, words):
    made = make(home / "good.model")
    (home / "text.model").write_text("hello")
    (home / "cut.model").write_bytes(made.encode()[:-1])
    hostile = (np.full(4, np.nan).tobytes(), *made.parameters[1:])
    fields = [getattr(made, name) for name in made.__struct_fields__]
    Model(fields[0], hostile, *fields[2:]).save(home / "nan.model")
    result = run("model", *arguments)
    assert result.exit_code == status
    assert words in result.stderr
    assert result.stdout == ""


def test_a_format_is_one_line_of_a_table(run, home, monkeypatch):
    made = make(home / "m.model")
    module = types.ModuleType("my_format")
    module.read = lambda data, result, answer: made if data == b"mine" else None
    module.write = lambda model: b"theirs" if model == made else b""
    monkeypatch.setitem(sys.modules, "my_format", module)
    monkeypatch.setitem(commands.FORMATS, ".mine", ("my_format", "read", "write"))
    (home / "x.mine").write_bytes(b"mine")
    assert run("model", "import", "x.mine").exit_code == 0
    assert load_model(home / "x.model") == made
    assert run("model", "export", "x.model", "-o", "y.mine").exit_code == 0
    assert (home / "y.mine").read_bytes() == b"theirs"


def test_a_format_that_is_not_installed_says_so(run, home, monkeypatch):
    monkeypatch.setitem(commands.FORMATS, ".mine", ("not_there_at_all", "read", "write"))
    (home / "x.mine").write_bytes(b"mine")
    result = run("model", "import", "x.mine")
    assert result.exit_code == 2
    assert "install what .mine needs" in result.stderr


def test_a_network_comes_in_and_goes_out_as_onnx(run, run_json, home):
    pytest.importorskip("onnx")
    networks = Path(__file__).parent.parent / "ml_runtime" / "networks"
    (home / "net.onnx").write_bytes((networks / "mlp.onnx").read_bytes())
    assert run("model", "import", "net.onnx", "--answer", "class").exit_code == 0
    assert load_model(home / "net.model").answer == "class"
    assert run("model", "export", "net.model", "-o", "again.onnx").exit_code == 0
    assert run("model", "import", "again.onnx", "--result", "scores").exit_code == 0
    x = np.load(networks / "expected.npz")["mlp.x"].astype(float)
    first, second = (load_model(home / f"{name}.model") for name in ("net", "again"))
    assert np.abs(first.scores(x) - second.scores(x)).max() < 1e-5
    assert run("model", "import", "net.onnx", "--result", "nothing").exit_code == 2
