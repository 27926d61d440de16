"""mlchain demo: whatever happens, nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from strict_schema import complaints

from mlchain.cli import demo, process
from mlchain.errors import VerificationFailed


@pytest.fixture(autouse=True)
def temporary(home, monkeypatch):
    """Let the demo's folder be made where the test can look."""
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    (home / "job.toml").write_text("")
    return home


@pytest.fixture
def job(monkeypatch, behaviour):
    """Replace what happens between start and stop; return a place to put it."""
    acts = []
    monkeypatch.setattr(demo, "_run_job", lambda *arguments: acts[-1](*arguments))
    return acts


def running(home: Path) -> list[str]:
    return [str(file) for file in home.glob("*/*/pid") if process.running_pid(file)]


def test_a_finished_demo_leaves_no_process_and_no_folder(run, job, home):
    seen = []
    job.append(lambda out, net, path, cheats: seen.append((running(home), cheats)))
    result = run("demo", "--job", "job.toml")
    assert result.exit_code == 0, result.stderr
    (during, cheats) = seen[0]
    assert (len(during), cheats) == (6, {})
    assert (running(home), list(home.glob("mlchain-demo-*"))) == ([], [])


def test_keep_keeps_the_folder_but_no_process(run, job, home):
    job.append(lambda *_: None)
    result = run("demo", "--job", "job.toml", "--keep")
    (folder,) = home.glob("mlchain-demo-*")
    assert str(folder) in result.stderr
    assert running(home) == [] and (folder / "worker-1" / "node.log").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (VerificationFailed("differs"), 7), (SystemExit(143), 143)],
)
def test_a_demo_that_fails_stops_everything_and_keeps_the_logs(run, job, home, error, code):
    def fail(*_):
        raise error

    job.append(fail)
    result = run("demo", "--job", "job.toml")
    assert result.exit_code == code
    assert running(home) == []
    assert "logs and blocks are in" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "cheats"),
    [
        (("--cheat",), {"worker-1": "skip:0.02"}),
        (("--cheat=validator",), {"validator-2": "lie"}),
    ],
)
def test_cheat_names_who_misbehaves(run, job, arguments, cheats):
    seen = []
    job.append(lambda out, net, path, found: seen.append((found, net.nodes)))
    assert run("demo", "--job", "job.toml", *arguments).exit_code == 0
    found, nodes = seen[0]
    assert found == cheats
    assert {node.name: node.adversary for node in nodes if node.adversary} == cheats


def test_the_handlers_of_signals_are_restored(run, job):
    before = signal.getsignal(signal.SIGTERM)
    job.append(lambda *_: None)
    run("demo", "--job", "job.toml")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.parametrize("cheat", [None, "worker", "validator"])
def test_six_real_processes_train_digits_and_prove_it(home, cheat, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(home))
    command = [sys.executable, "-m", "mlchain", "demo", "--json"]
    run = subprocess.run(
        command + ([f"--cheat={cheat}"] if cheat else []),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    document = json.loads(run.stdout)
    data = document["data"]
    assert complaints("demo", demo.Demonstrated, document) == []
    assert data["state"] == "settled"
    assert data["metrics"]["correct"] >= 0.96 * data["metrics"]["total"]
    assert data["verified"]["chunks"] >= 1000
    assert len(data["verified"]["by"]) >= 3
    assert bool(data["found"]) == bool(cheat)
    assert (running(home), list(home.glob("mlchain-demo-*"))) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_demo_that_is_killed_leaves_no_process(home, number, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(home))
    child = subprocess.Popen(
        [sys.executable, "-m", "mlchain", "demo"], stderr=subprocess.DEVNULL, cwd=home
    )
    deadline = time.monotonic() + 60
    while len(running(home)) < 6:
        assert time.monotonic() < deadline, "it did not start"
        time.sleep(0.1)
    os.kill(child.pid, number)
    child.wait(30)
    while running(home):
        assert time.monotonic() < deadline, "processes live on"
        time.sleep(0.1)


def test_the_example_job_is_found_from_anywhere():
    assert demo._example().name == "digits.toml"
