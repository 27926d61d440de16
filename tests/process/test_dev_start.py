"""The first ten minutes: the page's commands, typed as they stand, against `mlchain dev`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from cli.strict_schema import complaints

from mlchain.cli.dev import DevChain

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "start.md").read_text()
START_S = 120


def typed() -> list[str]:
    """The commands of the page, in their order."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("mlchain ")]


def test_the_front_page_begins_with_commands_of_the_page():
    """What stands first is typed below, as it stands there."""
    front = (ROOT / "README.md").read_text().split("```")[3]
    lines = [line.split("  #")[0].rstrip() for line in front.splitlines()]
    assert [line for line in lines if line.startswith("mlchain ")] == typed()[:3]


class Desk:
    """Where somebody sits: a home of their own, the examples, and `mlchain` on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        shim = folder / "bin" / "mlchain"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlchain "$@"\n')
        shim.chmod(0o755)
        (folder / "examples").symlink_to(ROOT / "examples")
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("MLCHAIN", "XDG"))}
        self.environ |= {
            "HOME": str(folder), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
            "PATH": f"{folder}/bin:{os.environ['PATH']}", "MLCHAIN_DEV_HTTP_LISTEN": "127.0.0.1:0",
        }  # fmt: skip
        self.chain: subprocess.Popen[str] | None = None
        self.said = folder / "chain.err"

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """Type a line and wait for its end."""
        return subprocess.run(
            ["/bin/sh", "-c", line], cwd=self.folder, env=self.environ, text=True,
            capture_output=True, timeout=900,
        )  # fmt: skip

    def start(self, line: str) -> dict[str, object]:
        """Type `mlchain dev …` in a terminal of its own; return what it says it runs."""
        with self.said.open("w") as said:
            self.chain = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {line} --json"], cwd=self.folder, env=self.environ,
                text=True, stdout=subprocess.PIPE, stderr=said,
            )  # fmt: skip
        assert self.chain.stdout is not None
        line = self.chain.stdout.readline()
        assert line, self.said.read_text()
        document = json.loads(line)
        assert complaints("dev", DevChain, document) == []
        found: dict[str, object] = document["data"]
        self.environ["MLCHAIN_URL"] = str(found["url"])
        return found

    def stop(self) -> int:
        """ctrl-c."""
        assert self.chain is not None
        self.chain.send_signal(signal.SIGINT)
        try:
            self.chain.communicate(timeout=60)
            return self.chain.returncode
        finally:
            self.chain.kill()
            self.chain.wait()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    made = Desk(tmp_path_factory.mktemp("desk"))
    try:
        yield made
    finally:
        if made.chain is not None and made.chain.poll() is None:
            made.stop()


def test_the_commands_of_the_page_do_what_it_says(desk):
    dev, submit, audit, cheat = typed()
    assert (dev, cheat) == ("mlchain dev", "mlchain dev --reset --cheat worker-1")
    found = desk.start(dev)
    assert (found["validators"], found["workers"], found["cheats"]) == (4, 2, {})
    assert [row["name"] for row in found["accounts"]] == ["alice", "bob"]
    done = desk.type(submit)
    assert done.returncode == 0, done.stderr
    verified = r"✓ verified  [34] of 4 validators re-ran 80 of 80 slices: every byte equal"
    assert re.search(verified, done.stdout), "a quorum, or all, as the machine is quick"
    checked = desk.type(audit)
    assert checked.returncode == 0, checked.stderr
    assert "12 of 12 checks hold; re-ran 80 of 80 slices here: every byte equal" in checked.stdout

    for line in ("mlchain dev", "mlchain dev --reset"):
        other = desk.type(line)
        assert other.returncode == 2 and "in use" in other.stderr, "the chain runs already"

    height = httpx.get(f"{found['url']}/v1/status").json()["height"]
    assert desk.stop() == 0
    assert "excepthook" not in desk.said.read_text()
    again = desk.start(dev)
    assert again["genesis"] == found["genesis"]
    assert httpx.get(f"{again['url']}/v1/status").json()["height"] >= height
    listed = json.loads(desk.type("mlchain job list --json").stdout)["data"]["jobs"]
    assert [job["state"] for job in listed] == ["settled"], "state was kept"
    assert desk.stop() == 0


@pytest.mark.slow
def test_a_cheat_is_caught_and_the_job_is_done_all_the_same(desk):
    _, submit, _, cheat = typed()
    found = desk.start(cheat)
    assert found["cheats"] == {"worker-1": "skip:0.1"}
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        done = desk.type(submit)
        assert done.returncode == 0, done.stderr
        if "worker-1  forged" in done.stderr:
            break
    else:
        raise AssertionError("worker-1 was never caught")
    assert "was given to worker-2" in done.stderr
    assert desk.stop() == 0


@pytest.mark.slow
def test_schemathesis_finds_no_fault_with_the_whole_node(desk, tmp_path):
    sys.path.insert(0, str(ROOT / "tests" / "web"))
    from test_schema import run_schemathesis

    found = desk.start("mlchain dev")
    done = run_schemathesis(str(found["url"]), tmp_path, "--phases", "coverage,fuzzing", "-n", "20")
    assert done.returncode == 0, done.stdout
    assert desk.stop() == 0
