"""Real training, remembered: a chunk is a function of the job and the state before it.

So it is computed once in the life of this process, however many nodes and seeds run it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import trio

from mlchain import codec
from mlchain.crypto import digest
from mlchain.errors import Trap
from mlchain.ml_runtime import Dataset, Metrics, State, Task, Trainer
from mlchain.node.compute import Chunk, Compute, Handle, Trapped
from mlchain.node.compute_child import Worker
from mlchain.node.compute_process import R
from mlchain.node.compute_wire import Digest, Load, Question, Unknown

CHUNK_S = 0.1
"""What training or replaying one chunk takes."""
MOST_TRAINERS = 64
MOST_RESULTS = 100_000

_trainers: dict[bytes, Trainer] = {}
_results: dict[tuple[bytes, int, bytes], tuple[bytes, bytes] | Trapped] = {}
_handles: dict[tuple[bytes, bytes, bytes], Handle] = {}


def make_handle(task: bytes, dataset: bytes, seed: bytes) -> Handle:
    """Return the handle of a job that is ready to run.

    Raises:
        RejectedProgram, CodecError: it cannot.
    """
    known = _handles.get((task, dataset, seed))
    if known is not None and known.identity in _trainers:
        return known
    trainer = Trainer(codec.decode(Task, task), Dataset.decode(dataset), seed)
    handle = Handle(digest("sim/lesson", task, dataset, seed), task, dataset, seed,
                    trainer.task.chunks)  # fmt: skip
    if len(_trainers) >= MOST_TRAINERS:
        old = next(iter(_trainers))
        del _trainers[old]
    _trainers[handle.identity] = trainer
    if len(_handles) >= 4 * MOST_TRAINERS:
        _handles.clear()
    _handles[task, dataset, seed] = handle
    return handle


def trainer_of(handle: Handle) -> Trainer:
    """Return the trainer of a handle; made again if it was forgotten."""
    if handle.identity not in _trainers:
        make_handle(handle.task, handle.dataset, handle.seed)
    return _trainers[handle.identity]


def initial(handle: Handle) -> tuple[bytes, bytes]:
    """Return the state before the first chunk, and its digest."""
    place = handle.identity, -1, b""
    known = _results.get(place)
    if known is None:
        state = trainer_of(handle).initial_state()
        known = _remember(place, (state.encode(), state.digest()))
    assert not isinstance(known, Trapped), "nothing is computed yet"
    return known


def run_chunk(handle: Handle, chunk: int, before: bytes) -> tuple[bytes, bytes] | Trapped:
    """Return the state after a chunk, and its digest; or at which step it trapped."""
    place = handle.identity, chunk, before
    known = _results.get(place)
    if known is None:
        trainer = trainer_of(handle)
        try:
            state = trainer.run_chunk(chunk, State.decode(before, trainer.plan))
            known = (state.encode(), state.digest())
        except Trap as trap:
            known = Trapped(trap.step)
        _remember(place, known)
    return known


def custody_digest(handle: Handle, chunk: int, before: bytes, key: bytes) -> bytes:
    """Return what a key makes of a chunk's inside. Every key makes another: nothing to remember."""
    trainer = trainer_of(handle)
    return trainer.replay(chunk, State.decode(before, trainer.plan), key)[1]


def _remember(place: tuple[bytes, int, bytes], result: Any) -> Any:
    if len(_results) >= MOST_RESULTS:
        _results.clear()
    _results[place] = result
    return result


class RememberedCompute(Compute):
    """`node.compute.Compute` without a process: it takes invented time, and computes once.

    What is not remembered, the ML process is asked for as ever; but it is in here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._child = Worker()

    async def load(self, task: bytes, dataset: bytes, seed: bytes) -> Handle:
        """Check and prepare a job."""
        await trio.lowlevel.checkpoint()
        return make_handle(task, dataset, seed)

    async def initial_state(self, handle: Handle) -> tuple[bytes, bytes]:
        """Return the state before the first step, and its digest."""
        await trio.lowlevel.checkpoint()
        return initial(handle)

    def run_chunks(
        self, handle: Handle, first: int, count: int, state: bytes
    ) -> AbstractAsyncContextManager[AsyncIterator[Chunk | Trapped]]:
        """Train `count` chunks from chunk `first`, which starts at `state`."""
        return self._train(handle, first, count, state)

    @asynccontextmanager
    async def _train(
        self, handle: Handle, first: int, count: int, state: bytes
    ) -> AsyncIterator[AsyncIterator[Chunk | Trapped]]:
        async def each(state: bytes) -> AsyncGenerator[Chunk | Trapped, None]:
            for chunk in range(first, first + count):
                await trio.sleep(CHUNK_S)
                result = self.run_one(handle, chunk, state)
                if isinstance(result, Trapped):
                    yield result
                    return
                state = result[0]
                yield Chunk(chunk, state, result[1], 0)

        async with aclosing(each(state)) as chunks:
            yield chunks

    def run_one(self, handle: Handle, chunk: int, state: bytes) -> tuple[bytes, bytes] | Trapped:
        """Return what training one chunk gives."""
        return run_chunk(handle, chunk, state)

    async def replay(
        self, handle: Handle, index: int, state: bytes, key: bytes = b""
    ) -> Digest | Trapped:
        """Return the digest of the state after chunk `index`, which starts at `state`."""
        await trio.sleep(CHUNK_S)
        result = run_chunk(handle, index, state)
        if isinstance(result, Trapped):
            return result
        return Digest(result[1], custody_digest(handle, index, state, key) if key else b"")

    async def evaluate(self, handle: Handle, state: bytes) -> Metrics:
        """Return what a state is worth on the job's test rows."""
        await trio.sleep(CHUNK_S)
        trainer = trainer_of(handle)
        return trainer.evaluate(State.decode(state, trainer.plan))

    async def _ask(self, handle: Handle, question: Question, kind: type[R]) -> R:
        await trio.sleep(CHUNK_S)
        reply = next(self._child.answer(question))
        if isinstance(reply, Unknown):
            load = Load(handle.identity, handle.task, handle.dataset, handle.seed)
            next(self._child.answer(load))
            reply = next(self._child.answer(question))
        assert isinstance(reply, kind), f"the ML process answered {type(reply).__name__}"
        return reply
