"""The API against its own description: schemathesis makes requests, a served chain answers them."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from factories import make_chain
from web_harness import open_web

CONFIG = Path(__file__).with_name("schemathesis.toml")


def run_schemathesis(url: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Try every operation with valid and invalid requests, the same ones each time."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    command += [f"{url}/openapi.json", "--seed", "1", "--generation-deterministic"]
    command += ["--continue-on-failure", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd=folder)


def try_api(folder: Path, *more: str) -> tuple[int, str]:
    chain = make_chain(4, 2)
    chain.run_job()

    async def main() -> tuple[int, str]:
        async with open_web(chain) as web:
            run = partial(run_schemathesis, f"http://127.0.0.1:{web.port}", folder, *more)
            done = await trio.to_thread.run_sync(run)
            return done.returncode, done.stdout

    return trio.run(main)


def test_what_the_description_says_of_every_operation_holds(tmp_path):
    code, said = try_api(tmp_path, "--phases", "coverage")
    assert code == 0, said
    assert "36 selected / 37 total" in said, said


@pytest.mark.slow
def test_it_holds_for_many_random_requests(tmp_path):
    code, said = try_api(tmp_path, "--phases", "coverage,fuzzing", "-n", "100")
    assert code == 0, said


@pytest.mark.slow
def test_control_an_answer_that_the_description_does_not_know_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("mlchain.node.query.Query.workers", lambda self: [{"name": 7}])
    code, said = try_api(tmp_path, "--phases", "coverage", "--include-path", "/v1/workers")
    assert code == 1 and "Response violates schema" in said, said
