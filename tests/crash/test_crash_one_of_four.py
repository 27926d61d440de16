"""One of four validators loses its power at every call to its disk, while the others go on."""

from collections import deque
from collections.abc import Callable

import pytest
from crash_lab import CLOCK, Life, World, complaints, small_genesis
from harness import key
from simulated_disk import Disk, Machine, PowerFailure, distinct, outcomes

from mlchain import codec
from mlchain.errors import NotFound
from mlchain.p2p.transport import Channel

GENESIS = small_genesis(4)
NAMES = sorted((f"validator-{i}" for i in range(4)), key=lambda name: key(name).public)
VICTIM = NAMES[1]
"""The first to propose."""
TICK_MS = 100
PATIENCE_TICKS = 600


class Four:
    """Four validators, driven step by step; one's machine can fail.

    `reboot` None: it stays off until somebody starts it; else it starts at once, after this.
    """

    def __init__(self, machine: Machine, reboot: Callable[[], None] | None = None) -> None:
        self.reboot = reboot
        self._later: deque[tuple[Life, bytes, object]] = deque()
        self.world = World()
        self.machines = {name: Machine() for name in NAMES} | {VICTIM: machine}
        self.lives: dict[str, Life] = {}
        self._mail: deque[tuple[bytes, bytes, bytes]] = deque()
        self.crashed = False
        for name in NAMES:
            self.guard(name, self.boot, name)

    def boot(self, name: str) -> None:
        life = Life(GENESIS, self.machines[name], self.world, name, waits=True)
        self.lives[name] = life
        life.agreement._transport = Postman(self, life)
        life.agreement._on_behind = lambda peer, height: self.fetch(life, height)
        life.start()

    def post(self, sender: bytes, receiver: bytes, frame: bytes) -> None:
        self._mail.append((sender, receiver, frame))

    def guard(self, name: str, act: Callable[..., object], *args: object) -> None:
        """Do something with one of them, whose power may fail in it."""
        try:
            act(*args)
        except PowerFailure:
            self.lives.pop(name, None)
            self.crashed = True
            if self.reboot is not None:
                self.reboot()

    def fetch(self, life: Life, height: int) -> None:
        """Block sync, without a network."""
        for other in [*self.lives.values()]:
            try:
                while other is not life:
                    store = other.node.chain.store
                    block, commit = store.block(height), store.commit(height)
                    self._later.append((life, codec.encode(block), commit))
                    height += 1
            except NotFound:
                continue

    def tick(self) -> None:
        """Let time pass, and deliver everything."""
        CLOCK.now += TICK_MS
        for name, life in [*self.lives.items()]:
            self.guard(name, fire, life)
        while self._mail or self._later:
            if self._mail:
                sender, receiver, frame = self._mail.popleft()
                for name, life in [*self.lives.items()]:
                    if life.node.keys.peer.public == receiver:
                        self.guard(name, life.agreement.receive, sender, frame)
            else:
                life, block, commit = self._later.popleft()
                if life.name in self.lives:
                    self.guard(life.name, life.agreement.synced, block, commit)

    def until(self, condition, what: str) -> None:
        for _ in range(PATIENCE_TICKS):
            if condition():
                return
            self.tick()
        raise AssertionError(f"never came true: {what}")

    def block(self, nonces=()) -> None:
        """Everybody wants a block, and whoever runs gets it."""
        before = max(life.node.chain.height for life in self.lives.values())
        for name, life in [*self.lives.items()]:
            self.guard(name, life.block, nonces)

        def is_made() -> bool:
            for name, life in [*self.lives.items()]:
                self.guard(name, life.block)
            return all(life.node.chain.height > before for life in self.lives.values())

        self.until(is_made, f"block {before + 1}")


class Postman:
    """What agreement needs of a transport."""

    def __init__(self, four: Four, life: Life) -> None:
        self._four, self._own = four, life.node.keys.peer.public

    def send(self, peer: bytes, channel: Channel, frame: bytes) -> bool:
        self._four.post(self._own, peer, frame)
        return True


def fire(life: Life) -> None:
    due = life.agreement._driver.next_timer()
    if due is not None and due <= CLOCK.now:
        life.agreement._driver.handle_timer(CLOCK.now)
        life.agreement._pump()


def crash(
    at: int, draw: int, at_once: bool = False, is_deaf: bool = False, count: list[int] | None = None
) -> list[str]:
    """One run: one validator's power fails at call `at`, and comes back; return what is wrong.

    It comes back on the `draw`-th disk that the crash may leave; `count` is told how many there
    are.
    """
    names = []

    def restart() -> None:
        machine = four.machines[VICTIM]
        every = distinct(outcomes(machine.disk, at, 4))
        if count is not None:
            count.append(len(every))
        name, disk = every[draw % len(every)]
        names.append(name)
        four.machines[VICTIM] = machine.after(disk)
        four.boot(VICTIM)

    four = Four(Machine(Disk(is_deaf=is_deaf), fails_at=at), restart if at_once else None)
    for number in range(2):
        four.block([2 * number, 2 * number + 1])
    if not at_once:
        restart()
    four.block([4])
    four.block()
    assert four.crashed
    heads = {life.node.chain.store.head_id for life in four.lives.values()}
    wrong = [text for life in four.lives.values() for text in complaints(life)]
    wrong += ["heads differ"] * (len(heads) > 1)
    return [f"call {at}, {names}: {text}" for text in wrong]


def calls() -> int:
    machine = Machine()
    four = Four(machine)
    four.block([0, 1])
    four.block([2, 3])
    return len(machine.calls)


@pytest.mark.parametrize("at_once", [False, True])
def test_one_of_four_crashes_at_some_calls_comes_back_and_contradicts_nobody(at_once):
    for at in range(14 + at_once, calls(), 17):
        assert crash(at, at, at_once) == []


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [False, True])
def test_one_of_four_crashes_at_every_call_comes_back_and_contradicts_nobody(at_once):
    for at in range(12, calls()):
        disks: list[int] = []
        assert crash(at, 0, at_once, count=disks) == []
        for draw in range(1, disks[0]):
            assert crash(at, draw, at_once) == []


def test_control_on_a_disk_that_only_says_it_synced_it_contradicts_itself():
    runs = (crash(at, 0, True, is_deaf=True) for at in range(20, 32, 2))
    assert any("two signatures" in text for found in runs for text in found)
