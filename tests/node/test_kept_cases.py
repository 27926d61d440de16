"""Files of fraud are kept up to a number: the newest ones, whatever their names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlchain.crypto import digest
from mlchain.node import prosecution
from mlchain.node.files import SYSTEM
from mlchain.node.prosecution import CaseName, Cases

KEPT = 4


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cases:
    monkeypatch.setattr(prosecution, "MAX_KEPT", KEPT)
    return Cases(SYSTEM, tmp_path)


def add(cases: Cases, folder: Path, numbers: list[int]) -> list[CaseName]:
    """Make a file for each number, at that many seconds of the disk's clock."""
    names = []
    for number in numbers:
        name = CaseName(bytes([255 - number]) * 32, 0, 0, number)  # newer ones come first by name
        cases.add(name, digest("test-case"))
        os.utime(next(folder.glob(f"{name.job.hex()}*.fraud")), (number, number))
        names.append(name)
    return names


def test_the_oldest_go_first(cases: Cases, tmp_path: Path) -> None:
    names = add(cases, tmp_path, [1, 2, 3, 4, 5, 6])
    assert set(cases.names()) == set(names[-KEPT:])


def test_the_same_after_a_restart(cases: Cases, tmp_path: Path) -> None:
    names = add(cases, tmp_path, [1, 2, 3, 4])
    names += add(Cases(SYSTEM, tmp_path), tmp_path, [5, 6])
    assert set(cases.names()) == set(names[-KEPT:])


def test_the_one_just_made_stays_though_the_clock_went_back(cases: Cases, tmp_path: Path) -> None:
    add(cases, tmp_path, [3, 4, 5, 6])
    (newest,) = add(cases, tmp_path, [1])
    assert cases.read(newest) and len(list(cases.names())) == KEPT


def test_to_make_one_again_removes_none(cases: Cases, tmp_path: Path) -> None:
    names = add(cases, tmp_path, [1, 2, 3, 4])
    cases.add(names[0], digest("test-again"))
    assert set(cases.names()) == set(names) and cases.read(names[0]) == digest("test-again")


def test_control_in_name_order_the_one_just_made_goes(cases: Cases, tmp_path: Path) -> None:
    names = add(cases, tmp_path, [1, 2, 3, 4, 5])
    assert names[-1] == min(names) and names[-1] in list(cases.names())
    assert names[-1] not in sorted(names)[-KEPT:]
