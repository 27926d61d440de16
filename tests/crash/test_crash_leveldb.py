"""The real LevelDB, the real files: a process is recorded, and crashed at every call it made.

The file system is one with a journal, as ext4, XFS and btrfs: LevelDB does not sync the folder
when it begins a new log, so where a synced file may lose its name (POSIX allows it) it loses data.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import fault_shim
import pytest
from crash_lab import Life, World, complaints, small_genesis
from recorded import MARKS, Replay, calls, is_stored, store
from recorded_child import quick, storage
from simulated_disk import Disk, look, outcomes

from mlchain.errors import StoreCorrupted

CHILD = Path(__file__).with_name("recorded_child.py")

pytestmark = pytest.mark.skipif(bool(fault_shim.missing()), reason=fault_shim.missing())


def child(home: Path, shim: fault_shim.Shim, marks: Path, record: Path | None = None):
    return subprocess.run(
        [sys.executable, str(CHILD), str(home), str(marks)],
        env={**os.environ, **shim.environment(record), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The home of the process, and its calls."""
    folder = tmp_path_factory.mktemp("recorded")
    home = folder / "home"
    home.mkdir()
    shim = fault_shim.Shim(folder / "control", home)
    done = child(home, shim, home / MARKS, folder / "record")
    assert done.returncode == 0, done.stderr
    return home, list(calls((folder / "record").read_bytes()))


def world_of(told: list[dict]) -> World:
    said = [bytes.fromhex(row["said"]) for row in told if "said" in row]
    final = {bytes.fromhex(row["final"]): row["at"] for row in told if "final" in row}
    return World(said, final)


def restart(home: Path, world: World) -> list[str]:
    """Start on what a crash left; return what is wrong with it."""
    try:
        disk = storage(home)
    except StoreCorrupted as error:
        return [f"does not open: {error.message}"]
    try:
        life = Life(small_genesis(1), disk, world)
        before = life.node.chain.height
        life.block([life.nonce()])
        wrong = complaints(life)
        return wrong if life.node.chain.height > before else [*wrong, "makes no block"]
    except StoreCorrupted as error:
        return [f"does not start: {error.message}"]
    finally:
        disk.chain.close()
        disk.content.close()


def crash_at(recorded, points, folder: Path, pick, is_deaf: bool = False) -> tuple[int, list[str]]:
    """Crash at these calls; `pick` chooses among what the disk may hold.

    Return how many disks may be left, and what is wrong. Of equal ones the last is started: by
    then the outside had been told all that it had been told at the others, and more.
    """
    home, made = recorded
    last: dict[bytes, tuple[int, str]] = {}
    tried, wrong = 0, []
    for is_rehearsal in (True, False):
        replay = Replay(Disk(is_deaf=is_deaf))
        for number, call in enumerate([*made, None]):
            every = list(outcomes(replay.disk, number, is_journaled=True))
            for name, disk in pick(every, number) if number in points else ():
                if is_rehearsal:
                    tried += 1
                    last[look(disk, is_stored)] = number, name
                elif last[look(disk, is_stored)] == (number, name):
                    target = folder / f"{number}"
                    store(disk, home, target)
                    for what in restart(target, world_of(replay.told)):
                        wrong.append(f"call {number} ({call and call[0::3]}), {name}: {what}")
                    shutil.rmtree(target, ignore_errors=True)
            if call is not None:
                replay.do(call)
    return tried, wrong


@pytest.fixture
def small_buffers(monkeypatch):
    import plyvel

    monkeypatch.setattr(plyvel, "DB", plyvel.DB)
    quick()


def some_of(every: list, number: int) -> list:
    return Random(number).sample(every, 2)


def test_the_real_store_goes_on_after_a_crash_at_any_of_some_calls(
    recorded, tmp_path, small_buffers
):
    made = recorded[1]
    points = set(Random(1).sample(range(len(made)), 12)) | {len(made)}
    tried, wrong = crash_at(recorded, points, tmp_path, some_of)
    assert wrong == []
    assert tried == 2 * len(points)


@pytest.mark.slow
def test_the_real_store_goes_on_after_a_crash_at_every_call(recorded, tmp_path, small_buffers):
    points = set(range(len(recorded[1]) + 1))
    tried, wrong = crash_at(recorded, points, tmp_path, lambda every, number: every)
    assert wrong == []
    assert tried == len(points) * len(list(outcomes(Disk(), 0))), "whatever each call may leave"


def test_control_without_syncs_the_real_store_loses_what_was_final(
    recorded, tmp_path, small_buffers
):
    points = {len(recorded[1])}
    _, wrong = crash_at(recorded, points, tmp_path, lambda every, number: every[:6], is_deaf=True)
    assert wrong


def test_the_record_tells_what_kill_9_leaves(recorded, tmp_path):
    """The simulated disk against the real one: what was computed is what the process left."""
    home, made = recorded
    replay = Replay(Disk())
    for call in made:
        replay.do(call)
    store(replay.disk, home, tmp_path / "computed")
    for path in sorted((tmp_path / "computed").rglob("*")):
        if path.is_file():
            real = home / path.relative_to(tmp_path / "computed")
            assert path.read_bytes() == real.read_bytes(), path.name


class Failing:
    """Processes whose disk fails, one after the other, each forked from one that waits."""

    def __init__(self, folder: Path) -> None:
        self.home, self.marks = folder / "home", folder / "told"
        self.shim = fault_shim.Shim(folder / "control", self.home)
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD)],
            env={**os.environ, **self.shim.environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def live(self) -> tuple[int, str]:
        """Live in a new home; return how it ended, and what was said."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        self.marks.unlink(missing_ok=True)
        self.shim["calls"] = 0
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([str(self.home), str(self.marks)]) + "\n")
        self.process.stdin.flush()
        said = ""
        while not re.fullmatch(r"-?\d+\n", line := self.process.stdout.readline()):
            assert line, "the process is there"
            said += line
        return int(line), said

    def fail_at(self, at: int, error: int) -> str:
        """Live with a disk that fails from call `at` on; then start on a good one."""
        self.shim["error"], self.shim["fails_at"] = error, at
        ended, said = self.live()
        assert self.shim["calls"] > at, "it was its turn"
        assert ended in (0, 7), said
        if ended == 7:
            assert str(self.home) in said and "check the free space" in said, said
        told = [json.loads(line) for line in self.marks.read_text().splitlines()]
        assert restart(self.home, world_of(told)) == [], (at, said)
        return said


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    made = Failing(tmp_path_factory.mktemp("failing"))
    yield made
    made.process.communicate(timeout=60)


@pytest.mark.parametrize(("at", "error"), [(60, errno.ENOSPC), (61, errno.EIO)])
def test_a_real_disk_that_fails_is_named_and_later_nothing_is_missing(
    failing, small_buffers, at, error
):
    assert failing.fail_at(at, error)


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_real_disk_that_fails_at_any_call_is_named_and_later_nothing_is_missing(
    failing, small_buffers, error
):
    failing.shim["fails_at"] = -1
    assert failing.live()[0] == 0
    points = range(2, failing.shim["calls"] - 1, 3)
    said = [failing.fail_at(at, error).splitlines()[-1] for at in points]
    named = {line.split(":")[0] for line in said if "check the free space" in line}
    assert len(points) > 50 and len(named) > 3
