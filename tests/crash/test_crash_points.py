"""A validator loses its power at every call to the disk; whatever the disk then holds, it goes on.

The fast tests try every point with a few of the disks it may leave; the slow one tries many.
"""

import errno

import pytest
from crash_lab import Life, World, complaints, small_genesis
from simulated_disk import Disk, Machine, PowerFailure, distinct, outcomes

from mlchain.errors import StoreCorrupted
from mlchain.node import wal

GENESIS = small_genesis(1)
BLOCKS = 3


@pytest.fixture(autouse=True)
def short_log(monkeypatch):
    """The log is written anew within the few blocks of a test."""
    monkeypatch.setattr(wal, "MAX_DECIDED_BYTES", 5000)


def live(machine: Machine, world: World, transfers: int = 2) -> Life:
    """One life of the validator: some blocks with transfers."""
    life = Life(GENESIS, machine, world)
    for _ in range(BLOCKS):
        nonce = life.nonce()
        life.block(range(nonce, nonce + transfers))
    return life


def every_point(disk: Disk | None = None, transfers: int = 2):
    """Return (machine, world) as they were before each call to the disk, and after the last."""
    machine, world, points = Machine(disk or Disk()), World(), []
    machine.before_each = lambda: points.append((machine.copy(), world.copy()))
    live(machine, world, transfers)
    points.append((machine.copy(), world.copy()))
    return points


def restart(machine: Machine, world: World) -> list[str]:
    """Start on what a crash left; return what is wrong with it."""
    try:
        life = Life(GENESIS, machine, world)
    except StoreCorrupted as error:
        return [f"does not start: {error.message}"]
    before = life.node.chain.height
    life.block([life.nonce()])
    if life.node.chain.height <= before:
        return ["makes no block"]
    return complaints(life)


def crash_everywhere(points, draws: int, step: int = 1) -> tuple[list[int], list[str]]:
    """Crash at every call, with every `step`-th of the disks it may leave.

    Return how many different disks each call left, and what was wrong.
    """
    tried, wrong = [], []
    for number, (machine, world) in enumerate(points):
        some = list(outcomes(machine.disk, number, draws))[number % step :: step]
        different = distinct(some)
        tried.append(len(different))
        for name, disk in different:
            for complaint in restart(machine.after(disk), world.copy()):
                wrong.append(f"call {number} ({machine.calls[-1:]}), {name}: {complaint}")
    return tried, wrong


def test_after_a_crash_at_any_call_it_goes_on_and_nothing_final_is_lost_or_contradicted():
    points = every_point()
    tried, wrong = crash_everywhere(points, draws=3, step=4)
    assert wrong == []
    calls = points[-1][0].calls
    assert len(tried) == len(calls) + 1 and min(tried) > 0, "before each call, and after the last"
    assert calls.count("replace /home/wal/log") > 1, "the log was written anew on the way"


@pytest.mark.slow
def test_after_a_crash_at_any_call_with_many_disks_it_goes_on():
    """The blocks are of many sectors, any of which a disk may have written."""
    points = every_point(transfers=12)
    tried, wrong = crash_everywhere(points, draws=60)
    assert wrong == []
    calls = points[-1][0].calls
    torn = [n for n, call in zip(tried[1:], calls, strict=True) if call == "append /home/wal/log"]
    assert min(torn) > 5, "gone, there, zeros, and torn in several ways"
    assert max(torn) > 20, "the draws differ where a block was written"


def test_a_second_crash_while_it_recovers_from_the_first():
    """The second start is cut off at each of its calls, too."""
    points = every_point()
    for number in range(5, len(points), 45):
        machine, world = points[number]
        for name, disk in list(outcomes(machine.disk, number, 1))[::4]:
            second, seen = machine.after(disk), []
            second.before_each = lambda m=second, w=world, s=seen: s.append((m.copy(), w.copy()))
            Life(GENESIS, second, world.copy())
            for at, (again, known) in enumerate(seen):
                left = list(outcomes(again.disk, at, 1))[-1][1]
                assert restart(again.after(left), known) == [], f"{number} ({name}), then {at}"


def test_control_on_a_disk_that_only_says_it_synced_something_is_lost_or_contradicted():
    _, wrong = crash_everywhere(every_point(Disk(is_deaf=True)), draws=0, step=3)
    assert any("final at" in text for text in wrong), "a transfer that was final is gone"
    assert any("two signatures" in text for text in wrong), "and something was signed twice"


# ---- a disk that says no --------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_call_is_named_and_later_nothing_is_missing(error):
    calls = len(every_point()) - 1
    named = set()
    for at in range(calls):
        machine, world = Machine(fails_at=at, error=error), World()
        try:
            live(machine, world)
        except StoreCorrupted as raised:
            assert "cannot write" in raised.message and raised.hint
            named.add(raised.message.split(":")[0].split()[-1])
        said = list(world.said)
        # it is repaired; meanwhile the power fails, or does not
        for name, disk in list(outcomes(machine.disk, at, 1))[at % 8 :: 8]:
            assert restart(machine.after(disk), world.copy()) == [], f"{at} {name}"
        assert said == world.said
    assert {"/home/wal/log", "/home/wal/last-sign.new", "chain"} <= named


def test_nothing_leaves_after_a_write_that_failed():
    for at in range(10, len(every_point()) - 1, 3):
        machine, world = Machine(fails_at=at, error=errno.EIO), World()
        seen = []
        machine.before_each = lambda m=machine, w=world, s=seen: s.append(len(w.said))
        with pytest.raises(StoreCorrupted):
            live(machine, world)
        assert len(world.said) == seen[at]


def test_control_who_tries_a_failed_sync_again_and_trusts_it_contradicts_itself(monkeypatch):
    from simulated_disk import SimulatedFile

    def again(self) -> None:
        try:
            sync(self)
        except StoreCorrupted:
            sync(self)

    sync = SimulatedFile.sync
    monkeypatch.setattr(SimulatedFile, "sync", again)
    wrong = []
    for at in range(len(every_point()) - 1):
        machine, world = Machine(fails_at=at, error=errno.EIO, until=at + 1), World()
        try:
            live(machine, world)
        except StoreCorrupted:
            continue
        wrong += restart(machine.after(machine.disk.crashed(lambda i: i.platter, [])), world)
    assert wrong, "the platter lacks what the second sync did not write"


def test_control_the_power_failure_is_one():
    machine = Machine(fails_at=7)
    with pytest.raises(PowerFailure):
        live(machine, World())
    assert len(machine.calls) == 8
