"""The ML process itself: reads requests from stdin, computes, writes replies to stdout.

Run as `python -m mlchain.node.compute_child [BACKEND [EXECUTOR]]` by `compute.Compute`, one for
each user of ML in a node. It runs at low priority with one thread, so that voting beside it stays
quick, and it ends as soon as its parent does.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

from mlchain import codec
from mlchain.codec import Record
from mlchain.errors import CodecError, MlchainError, Trap
from mlchain.ml_runtime import Backend, Dataset, NumpyBackend, State, Task, Trainer, get_backend
from mlchain.ml_runtime.backends import DEFAULT
from mlchain.ml_runtime.merging import merge_states
from mlchain.ml_runtime.model import Predictor
from mlchain.ml_runtime.serving import (
    answer_rows,
    describe_model,
    evaluate_rows,
    load_predictor,
)
from mlchain.node.compute_trace import Traces
from mlchain.node.compute_wire import (
    HEADER,
    AnswerClaim,
    Answered,
    AskModel,
    Chunk,
    Digest,
    Evaluate,
    Failed,
    InitialState,
    Load,
    Loaded,
    LoadModel,
    MakeModel,
    MakeProof,
    Measured,
    MergeStates,
    ModelIs,
    ModelLoaded,
    Replay,
    Request,
    RunChunks,
    StateIs,
    Training,
    Trapped,
    Unknown,
    body_size,
    describe,
    pack,
    unpack,
)
from mlchain.node.executor import ExecutorFailed, open_executor
from mlchain.node.rounding import restore_rounding

NICENESS = 10
OUT_OF_MEMORY_SCORE = 500
"""When memory is short, the kernel shall end this process and not the node."""

MAX_JOBS = 4
"""Prepared jobs that are kept."""
MAX_MODELS = 16
MAX_MODELS_BYTES = 256 << 20
"""Models that are kept ready, and what their files may have together."""


class Worker:
    """Prepared jobs, and the answers to requests about them, computed by `make_backend()`."""

    def __init__(self, make_backend: Callable[[], Backend] = NumpyBackend) -> None:
        self._make_backend = make_backend
        self._jobs: OrderedDict[bytes, Trainer] = OrderedDict()  # the latest used stands last
        self._models: OrderedDict[bytes, tuple[int, Predictor]] = OrderedDict()
        self._traces = Traces()

    def answer(self, request: Request) -> Iterator[Record]:
        """Yield the replies to a request.

        Raises:
            MlchainError: what the runtime raises.
        """
        if isinstance(request, Load):
            yield self._load(request)
        elif isinstance(request, LoadModel):
            yield self._load_model(request)
        elif isinstance(request, AskModel):
            yield self._ask_model(request)
        elif request.identity not in self._jobs:
            yield Unknown()
        elif isinstance(request, AnswerClaim):
            yield self._traces.answer(self._jobs[request.identity], self._make_backend(), request)
        elif isinstance(request, MakeProof):
            yield self._traces.prove(self._jobs[request.identity], self._make_backend(), request)
        else:
            self._jobs.move_to_end(request.identity)
            yield from _compute(self._jobs[request.identity], request)

    def _load(self, request: Load) -> Loaded:
        if request.identity not in self._jobs:
            while len(self._jobs) >= MAX_JOBS:
                self._jobs.popitem(last=False)
            task = codec.decode(Task, request.task)
            dataset = Dataset.decode(request.dataset)
            self._jobs[request.identity] = Trainer(
                task, dataset, request.seed, self._make_backend()
            )
        return Loaded(self._jobs[request.identity].task.chunks)

    def _load_model(self, request: LoadModel) -> ModelLoaded:
        if request.identity not in self._models:
            size = len(request.model)
            while self._models and (
                len(self._models) >= MAX_MODELS
                or size + sum(kept for kept, _ in self._models.values()) > MAX_MODELS_BYTES
            ):
                self._models.popitem(last=False)
            self._models[request.identity] = (
                size,
                load_predictor(request.model, self._make_backend()),
            )
        return ModelLoaded(*describe_model(self._models[request.identity][1].model))

    def _ask_model(self, request: AskModel) -> Answered | Unknown:
        if request.identity not in self._models:
            return Unknown()
        self._models.move_to_end(request.identity)
        ask = evaluate_rows if request.is_evaluation else answer_rows
        outcome, data = ask(self._models[request.identity][1], request.data, request.rows)
        return Answered(int(outcome), data)


def _compute(trainer: Trainer, request: Training) -> Iterator[Record]:
    if isinstance(request, InitialState):
        state = trainer.initial_state()
        yield StateIs(state.encode(), state.digest())
        return
    if isinstance(request, MergeStates):
        states = [State.decode(data, trainer.plan) for data in request.states]
        merged = merge_states(trainer.plan, states, request.rows)
        yield ModelIs(trainer.model(merged).encode())
        return
    state = State.decode(request.state, trainer.plan)
    if isinstance(request, Evaluate):
        yield Measured(trainer.evaluate(state))
    elif isinstance(request, MakeModel):
        yield ModelIs(trainer.model(state).encode())
    elif isinstance(request, Replay):
        _require_chunks(trainer, request.index, 1)
        try:
            if request.key:
                after, custody = trainer.replay(request.index, state, request.key)
            else:
                after, custody = trainer.run_chunk(request.index, state), b""
            yield Digest(after.digest(), custody)
        except Trap as trap:
            yield Trapped(trap.step)
    else:
        yield from _run_chunks(trainer, request, state)


def _run_chunks(trainer: Trainer, request: RunChunks, state: State) -> Iterator[Record]:
    _require_chunks(trainer, request.first, request.count)
    for index in range(request.first, request.first + request.count):
        try:
            state = trainer.run_chunk(index, state)
        except Trap as trap:
            yield Trapped(trap.step)
            return
        yield Chunk(index, state.encode(), state.digest(), round(trainer.loss * 1_000_000))


def _require_chunks(trainer: Trainer, first: int, count: int) -> None:
    if first + count > trainer.task.chunks:
        raise CodecError(f"chunks {first} to {first + count - 1} of {trainer.task.chunks}")


def serve(
    requests: Iterator[bytes],
    send: Callable[[Record], None],
    make_backend: Callable[[], Backend] = NumpyBackend,
) -> None:
    """Answer encoded requests one after another until there are no more."""
    worker = Worker(make_backend)
    for request in requests:
        try:
            for reply in worker.answer(unpack(Request, request)):
                send(reply)
        except MlchainError as error:
            send(describe(error))
            if isinstance(error, ExecutorFailed):
                return  # the next process connects anew
        except (OSError, KeyboardInterrupt):
            raise  # the pipe is gone
        except Exception as error:  # ours: the node is told, and this process goes on
            traceback.print_exc()
            send(Failed("", f"{type(error).__name__}: {error}"[:4096], "", -1))


def read_requests(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the encoded requests in a stream until it ends.

    Raises:
        CodecError: a frame that is too large.
    """
    while header := stream.read(HEADER.size):
        if len(header) < HEADER.size:
            return
        size = body_size(header)
        body = stream.read(size)
        if len(body) < size:
            return
        yield body


def main() -> None:
    """Serve stdin and stdout until the parent is gone."""
    requests, replies = take_pipes()
    os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OUT_OF_MEMORY_SCORE))
    restore_rounding()  # whatever our imports did to it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the node, which decides

    def send(record: Record) -> None:
        for part in pack(record):
            replies.write(part)
        replies.flush()

    with suppress(BrokenPipeError):
        serve(read_ahead(requests), send, backend_maker(*sys.argv[1:3]))


def backend_maker(backend: str = DEFAULT, address: str = "") -> Callable[[], Backend]:
    """Return what gives the backend of every job: the named one, or one executor for all.

    Either is made, and a backend tests itself, when first needed: what does not work fails a job,
    not the process.
    """
    if not address:
        return partial(get_backend, backend)

    def tell(line: str) -> None:
        print(f"executor: {line}", file=sys.stderr, flush=True)

    return cache(lambda: open_executor(address, tell, or_whole=True))


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for frames alone: whatever is printed by accident goes to stderr."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def read_ahead(stream: BinaryIO) -> Iterator[bytes]:
    """Yield requests, read by a thread that sees the parent go even in the middle of a chunk."""
    waiting: queue.Queue[bytes] = queue.Queue(1)

    def read() -> None:
        try:
            for request in read_requests(stream):
                waiting.put(request)
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


if __name__ == "__main__":
    main()
