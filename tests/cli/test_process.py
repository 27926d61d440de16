"""Processes that outlive us: recognised by pid and start, stopped politely, then firmly."""

import subprocess
import sys
import time

import pytest

from mlchain.cli import process

POLITE = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + POLITE


@pytest.fixture
def start(tmp_path):
    children = []

    def make(code: str, is_tied: bool = False):
        pid_file, log = tmp_path / f"{len(children)}.pid", tmp_path / "log"
        log.unlink(missing_ok=True)
        child = process.start([sys.executable, "-c", code], pid_file, log, {}, is_tied)
        children.append(child)
        until(lambda: log.read_text() == "up\n")
        return pid_file, child

    yield make
    for child in children:
        child.kill()
        child.wait()
        if child.stdin:
            child.stdin.close()


def until(condition) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("did not happen in 5 s")


def test_a_running_process_is_found_again_by_its_file(start):
    pid_file, child = start(POLITE)
    assert process.running_pid(pid_file) == child.pid


def test_a_process_that_ended_leaves_a_stale_file_which_is_removed(start):
    pid_file, child = start(POLITE)
    child.kill()
    until(lambda: process.running_pid(pid_file) is None)
    assert not pid_file.exists()


def test_another_process_under_the_same_pid_is_not_ours(start):
    pid_file, child = start(POLITE)
    pid_file.write_text(f"{child.pid} 12345\n")
    assert process.running_pid(pid_file) is None
    assert process.stop([pid_file]) == []
    assert child.poll() is None, "it was left alone"


@pytest.mark.parametrize("text", ["", "x y", "-1 5", "0 0", "\xff"])
def test_a_damaged_file_names_nobody(tmp_path, text):
    file = tmp_path / "pid"
    file.write_text(text)
    assert process.running_pid(file) is None
    assert not file.exists()


def test_stopping_ends_polite_and_stubborn_processes_and_names_those_that_ran(start, tmp_path):
    (polite, one), (stubborn, two) = start(POLITE), start(STUBBORN)
    stopped = process.stop([polite, stubborn, tmp_path / "none"], wait_s=0.3)
    assert stopped == [polite, stubborn]
    assert not polite.exists() and not stubborn.exists()
    assert process.started_at(one.pid) == process.started_at(two.pid) == ""


def test_a_tied_process_sees_its_input_end_when_its_starter_dies(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mlchain.cli import process\n"
        f"process.start([sys.executable, '-c', 'import os; os.read(0, 1)'], Path({str(tmp_path)!r})"
        f" / 'pid', Path({str(tmp_path)!r}) / 'log', {{}}, True)\n"
        "import os; os.kill(os.getpid(), 9)"
    )
    starter = subprocess.run([sys.executable, "-c", code])
    assert starter.returncode == -9
    assert (tmp_path / "pid").exists()
    until(lambda: process.running_pid(tmp_path / "pid") is None)
