"""The record of many seeds: taken up where it was left, and summed up in tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlchain.errors import ConfigError
from mlchain.sim import night
from mlchain.sim.run import run
from mlchain.sim.scenario import Scenario


def test_what_is_recorded_is_read_again_but_for_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    rows = [row for _, row in night.append(map(run, [Scenario(3), Scenario(4)]), path)]
    path.write_bytes(path.read_bytes() + b'{"command": "mlch')
    assert list(night.read(path).values()) == rows
    list(night.append([run(Scenario(5))], path))
    with pytest.raises(ConfigError, match="line 3"):
        night.read(path)  # a torn line in the middle is no accident of ours


def test_a_table_counts_seeds_rounds_and_stalls_by_size_and_by_adversary() -> None:
    rows = [night.make_row(run(Scenario(seed, n))) for seed, n in ((52, 4), (3, 4), (0, 7))]
    tables = night.tabulate(rows)
    assert {n: total["seeds"] for n, total in tables["nodes"].items()} == {"4": 2, "7": 1}
    assert sum(total["seeds"] for total in tables["adversary"].values()) == 3
    stalled = sum(sum(row["stalls"].values()) for row in rows[:2])
    assert tables["nodes"]["4"]["stalls"].total() == stalled > 0
    assert tables["nodes"]["7"]["rounds"] == {rows[2]["rounds"]: 1}
    assert len(night.lines(tables)) == 2 + sum(map(len, tables.values()))


def test_of_five_hundred_seeds_of_the_night_most_are_small_and_one_is_large() -> None:
    sizes = [night.nodes_of(seed) for seed in range(500)]
    assert {n: sizes.count(n) for n in (4, 7, 10, 31)} == {4: 400, 7: 75, 10: 24, 31: 1}
