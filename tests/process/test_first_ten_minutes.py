"""The page for data scientists, typed as it stands, against real validators and a real worker."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from process_network import Network
from sklearn.utils.estimator_checks import check_estimator

from mlchain.client.estimators.receipts import ChainReceipt, Verified
from mlchain.sklearn import ChainClassifier

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sdk.md").read_text()
WRITTEN = "http://127.0.0.1:8645"


NOTEBOOK = json.loads((ROOT / "examples" / "iris.ipynb").read_text())


def programs() -> list[str]:
    """The programs of the page, in their order."""
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    made = Network(tmp_path_factory.mktemp("network"), 2, 1, block_interval_ms=200)
    try:
        made.start()
        made.wait_ready()
        yield made
    finally:
        made.stop()


@pytest.fixture
def desk(network: Network, tmp_path, monkeypatch):
    """Where somebody sits: an empty folder, a key folder with alice and bob, no screen."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    (tmp_path / "data" / "mlchain").mkdir(parents=True)
    (tmp_path / "data" / "mlchain" / "keys").symlink_to(network.folder / "keys")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    pyplot.close("all")


def run(program: str, network: Network) -> tuple[dict[str, object], list[object]]:
    """Type a program line by line; return its names, and what each bare expression showed."""
    names: dict[str, object] = {}
    shown = []
    for statement in ast.parse(program.replace(WRITTEN, network.net.url)).body:
        if isinstance(statement, ast.Expr):
            shown.append(eval(compile(ast.Expression(statement.value), "page", "eval"), names))
        else:
            exec(compile(ast.Module([statement], []), "page", "exec"), names)
    return names, shown


def test_the_first_ten_minutes_are_as_the_page_says(network, desk):
    (program,) = (text for text in programs() if "receipt_" in text)
    names, shown = run(program, network)
    fitted, score, verified, search, figure = shown[:5]
    clf = names["clf"]
    assert isinstance(clf, ChainClassifier) and fitted is clf
    assert isinstance(clf.receipt_, ChainReceipt)
    assert clf.receipt_.validators[1] == 2 and len(clf.receipt_.attested) > 50
    assert score > 0.9
    assert isinstance(verified, Verified) and (verified.equal, verified.chunks) == (100, 100)
    assert search.best_score_ > 0.9
    assert len(figure.axes) == 2
    assert (desk / "iris.receipt").stat().st_size > 1000
    assert (desk / "iris.onnx").stat().st_size > 100


def test_the_notebook_runs_and_the_chain_gives_the_bytes_of_this_process(network, desk):
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells), "nothing of one machine is kept"
    names, _ = run("\n".join("".join(cell["source"]) for cell in cells), network)
    here, there = names["here"], names["clf"]
    assert isinstance(there.receipt_, ChainReceipt)
    assert here.state_digest_ == there.state_digest_
    assert np.array_equal(there.predict(names["X_test"]), here.predict(names["X_test"]))
    assert there.receipt_.strip == "█" * there.receipt_.chunks, "all were run again"


def test_the_lines_without_a_chain_run_too(network, desk, capsys):
    (program,) = (text for text in programs() if "learning_rate" in text)
    names, _ = run(program, network)
    assert names["search"].best_score_ > 0.9
    assert names["clf"].state_digest_ in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # checks warn on purpose
@pytest.mark.timeout(3600)
def test_every_check_of_scikit_learn_passes_on_real_processes(network, desk):
    estimator = ChainClassifier(
        network=network.net.url, key="alice", epochs=60, learning_rate=0.05, chunk=20
    )
    results = check_estimator(estimator, on_skip=None)
    assert Counter(result["status"] for result in results) == {"passed": 54, "skipped": 1}
