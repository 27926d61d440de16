"""A file between real processes over real libp2p, while one holder is killed and one lies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def exchange(folder: Path, *more: str) -> tuple[int, str]:
    """Run the benchmark with a small file; it says whether the file is whole."""
    done = subprocess.run(
        [sys.executable, "benchmarks/data.py", "--size", "20", "--folder", str(folder), *more],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def short(tmp_path_factory) -> Path:
    """A path to a socket has at most 107 characters."""
    return tmp_path_factory.mktemp("x")


@pytest.mark.slow
def test_a_file_arrives_whole_though_one_holder_dies_and_one_lies(short):
    code, said = exchange(short)
    assert code == 0 and "the file is whole; the liar" in said, said


@pytest.mark.slow
def test_control_who_believes_what_comes_has_a_spoilt_file(short):
    code, said = exchange(short, "--believe")
    assert code == 1 and "the file is NOT whole" in said, said
