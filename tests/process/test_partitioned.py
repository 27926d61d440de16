"""Partitioned training typed at real processes: a table, its parts, a job on each, one model.

With Boston housing as docs/partitions.md has it, if MLCHAIN_BOSTON names the file; else with rows
made here.
"""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from cli.strict_schema import complaints
from click.testing import CliRunner
from process_network import Network

from mlchain.cli import main
from mlchain.cli.schema import by_name
from mlchain.client.sources import load_table, split
from mlchain.ml_runtime.model import load_model

JOB = """
[job]
name = "in parts"
tier = "audited"
fee = 300_000

[data]
source = "{cid}"

[model]
kind = "ridge"
alpha = 0.000001

[training]
batch = {batch}
epochs = 1
chunk = 1
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    made = Network(tmp_path_factory.mktemp("network"), 2, 1, block_interval_ms=200)
    try:
        made.start()
        made.wait_ready()
        yield made
    finally:
        made.stop()


def make_table(folder: Path) -> Path:
    """Boston housing, or 225 rows with a target that is nearly a sum of their columns."""
    if given := os.environ.get("MLCHAIN_BOSTON"):
        return Path(given)
    rng = np.random.default_rng(5)
    x = np.round(rng.random((225, 4)) * [1, 10, 100, 1], 3)
    y = np.round(x @ [3, -0.2, 0.05, 1] + rng.normal(0, 0.2, 225), 2)
    lines = [",".join(map(str, [*row, value])) for row, value in zip(x.tolist(), y, strict=True)]
    path = folder / "made.csv"
    path.write_text("a,b,c,d,y\n" + "\n".join(lines) + "\n")
    return path


def test_parts_are_added_trained_on_and_merged_to_the_model_of_all_rows(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLCHAIN_URL", network.net.url)
    signed = ("--key", "alice", "--keys-dir", str(network.folder / "keys"), "--timeout", "300")
    table = make_table(tmp_path)
    kept: dict[str, dict] = {}

    def type_(*line: str) -> dict:
        result = CliRunner().invoke(main, [*line, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        document = json.loads(result.stdout)
        kept[document["schema"].split(".")[1].split("/")[0]] = document
        return document["data"]

    added = type_("data", "add", str(table), "--partitions", "3", *signed)
    draw = added["draw"]
    assert draw["state"] == "named" and len(draw["seed"]) == 64
    rows = [part["rows"] - draw["test_rows"] for part in draw["named"]]
    assert len(rows) == 3 and max(rows) - min(rows) <= 1
    for part in draw["named"]:
        assert type_("data", "show", part["cid"])["whole"], "the node made it itself"

    batch = next(b for b in (60, 27) if rows[0] % b == 0)
    (tmp_path / "job.toml").write_text(JOB.format(cid=added["cid"], batch=batch))
    merged = type_("submit-job", "job.toml", "--partitions", "3", "--model", "m.model", *signed)
    assert merged["draw"]["id"] == draw["id"], "the draw that stands is taken"
    assert merged["draw"]["merges"][0]["standing"]
    assert len(merged["parts"]) == 3 and all(row["metrics"] for row in merged["parts"])
    another = type_("data", "partition", draw["dataset"], "2", *signed)
    assert another["parts"] == 2 and another["seed"] != draw["seed"]
    shown = type_("data", "show", draw["dataset"])
    assert [found["id"] for found in shown["draws"]] == [another["id"], draw["id"]]
    assert complaints("partitioned", by_name()["partitioned"][0], kept["partitioned"]) == []
    assert complaints("merged", by_name()["merged"][0], kept["merged"]) == []
    assert complaints("draw", by_name()["draw"][0], kept["draw"]) == []

    data = split(load_table(table.name, table.parent, "", False), Decimal("0.2"))
    n, ones = data.train_rows, np.ones((len(data.target), 1))
    x = np.hstack([data.features, ones])
    weights = np.linalg.lstsq(x[:n], data.target[:n], rcond=None)[0]
    errors = x[n:] @ weights - data.target[n:]
    spread = data.target_scaling.spread[0]
    assert merged["error"] == pytest.approx(np.sqrt(np.mean(errors**2)) * spread, rel=1e-4)
    model = load_model(tmp_path / "m.model")
    assert np.allclose(model.scores(data.features[n:])[:, 0], x[n:] @ weights, atol=1e-3)
