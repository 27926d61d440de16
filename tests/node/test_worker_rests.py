"""A worker that is given segments nobody can train goes on with those that it can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
import trio.testing
from vm.world import World

from mlchain.errors import RejectedProgram
from mlchain.node.chain import Chain
from mlchain.node.spool import Place
from mlchain.node.worker import LONGEST_REST_S, RETRY_S, Worker

WORKER, BAD = "worker-0", 5


class Trying(Worker):
    """Can train the segments of one job; what it tries is noted with the time."""

    good: bytes = b""
    tried: list[tuple[float, bytes]]

    async def _train(self, place: Place) -> Any:
        await trio.lowlevel.checkpoint()
        self.tried.append((trio.current_time() - self.begun, place[0]))
        if place[0] != self.good:
            raise RejectedProgram("the target does not fit the dataset")
        return "commit"

    begun: float = 0.0


def work_for(seconds: float) -> Trying:
    """Give a worker segments of several jobs, the last of which in its order can be trained."""
    world = World(workers=1)
    jobs = sorted(world.running() for _ in range(BAD + 1))
    nothing: Any = None
    outbox: Any = SimpleNamespace(send=lambda payload: None)
    key = world.key(WORKER).public
    chain = Chain(world.store, key, lambda ref, commit: True)
    worker = Trying(key, chain, nothing, nothing, nothing, outbox)
    worker.good, worker.tried = jobs[-1], []

    async def main() -> None:
        worker.begun = trio.current_time()
        with trio.move_on_after(seconds):
            await worker.run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return worker


def test_segments_that_fail_delay_no_other():
    worker = work_for(RETRY_S / 2)
    assert len(worker.tried) == BAD + 1, "each was tried once, and none waited for another's rest"


def test_each_failure_rests_longer():
    worker = work_for(2 * LONGEST_REST_S)
    times = [at for at, job in worker.tried if job != worker.good]
    assert 5 * BAD <= len(times) <= 7 * BAD, "without longer rests it were one a second"
    assert sum(job == worker.good for _, job in worker.tried) == 1
