"""The ML process of a node, as the node sees it: ask, await, and never stall consensus.

The event loop that votes must not train. So each user of ML in a node (the worker, the auditor)
has a `Compute`, a process of its own at low priority. It is started when first needed, and again
after it died. A call that is cancelled kills it: training that nobody waits for is stopped at once,
and the next call starts anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

import structlog
import trio

from mlchain.crypto import digest, digest_bulk
from mlchain.errors import CodecError
from mlchain.ml_runtime import Metrics
from mlchain.ml_runtime.backends import DEFAULT
from mlchain.ml_runtime.proof import ChunkClaim, Move
from mlchain.node.compute_process import ChunkStream, ComputeFailed, Handle, Process, R
from mlchain.node.compute_wire import (
    MAX_BLOB_BYTES,
    AnswerClaim,
    Answered,
    AskModel,
    Chunk,
    Digest,
    Evaluate,
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
    Question,
    Replay,
    RunChunks,
    Searched,
    StateIs,
    Trapped,
)

__all__ = ["Chunk", "Compute", "ComputeFailed", "Digest", "Handle", "Trapped"]

log = structlog.get_logger("compute")


class Compute:
    """One ML process. Use it as an async context manager; its calls wait for one another.

    Every call raises what the runtime raises (RejectedProgram, CodecError, ...) and ComputeFailed.
    States are canonical bytes, digests 32 bytes, chunks count from 0. `executor` says where the
    steps of training run (`executor_address`), if not in the process itself; `backend` names what
    computes them there (`ml_runtime.backends`).
    """

    def __init__(self, executor: str = "", backend: str = DEFAULT) -> None:
        self._executor, self._backend = executor, backend
        self._lock = trio.Lock()
        self._process: Process | None = None
        self._is_closed = False

    async def __aenter__(self) -> Compute:
        """Start nothing yet."""
        self._is_closed = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process; a call under way fails, and so do later ones."""
        self._is_closed = True
        await self._end()

    @property
    def pid(self) -> int | None:
        """The process id, None while there is no process."""
        return self._process.pid if self._process else None

    async def load(self, task: bytes, dataset: bytes, seed: bytes) -> Handle:
        """Check and prepare a job.

        Args:
            task: an encoded `ml_runtime.Task`.
            dataset: an encoded `ml_runtime.Dataset`.
            seed: the 32-byte order seed.
        """
        for name, data in (("task", task), ("dataset", dataset)):
            if len(data) > MAX_BLOB_BYTES:
                raise CodecError(f"{name}: {len(data)} bytes, at most {MAX_BLOB_BYTES} allowed")
        if len(seed) != 32:
            raise CodecError(f"seed: {len(seed)} bytes, not 32")
        identity = digest("mlchain/compute", task, digest_bulk("mlchain/compute", dataset), seed)
        async with self._conversation() as process:
            await process.send(Load(identity, task, dataset, seed), 1)
            loaded = await process.receive(Loaded)
        assert isinstance(loaded, Loaded), "loading runs no step"
        return Handle(identity, task, dataset, seed, loaded.chunks)

    async def initial_state(self, handle: Handle) -> tuple[bytes, bytes]:
        """Return the state before the first step, and its digest."""
        reply = await self._ask(handle, InitialState(handle.identity), StateIs)
        return reply.state, reply.digest

    def run_chunks(
        self, handle: Handle, first: int, count: int, state: bytes
    ) -> AbstractAsyncContextManager[AsyncIterator[Chunk | Trapped]]:
        """Train `count` chunks from chunk `first`, which starts at `state`.

        Gives an iterator of `Chunk`s as they are done; a `Trapped` ends it early. The process
        works ahead of a slow reader by one chunk and what a pipe holds. Leaving early stops it.

            async with compute.run_chunks(handle, 0, 4, state) as chunks:
                async for chunk in chunks: ...
        """
        return self._run_chunks(handle, RunChunks(handle.identity, first, count, state))

    async def replay(
        self, handle: Handle, index: int, state: bytes, key: bytes = b""
    ) -> Digest | Trapped:
        """Return the digest of the state after chunk `index`, which starts at `state`.

        With a `key` of 32 bytes comes the custody digest that it makes of the chunk.
        """
        async with self._conversation() as process:
            return await process.ask(handle, Replay(handle.identity, index, state, key), Digest)

    async def evaluate(self, handle: Handle, state: bytes) -> Metrics:
        """Return what a state is worth on the job's test rows.

        Raises:
            Trap: a prediction left the exact range.
        """
        return (await self._ask(handle, Evaluate(handle.identity, state), Measured)).metrics

    async def model(self, handle: Handle, state: bytes) -> bytes:
        """Return the encoded model file of a state.

        Raises:
            Trap: a value left the exact range while the scales were taken.
        """
        return (await self._ask(handle, MakeModel(handle.identity, state), ModelIs)).model

    async def merge(
        self, handle: Handle, states: tuple[bytes, ...], rows: tuple[int, ...]
    ) -> bytes:
        """Return the encoded model file of the states of parties (`ml_runtime.merging`).

        Raises:
            RejectedProgram: models of this kind are not merged.
            Trap: a value left the exact range.
        """
        return (await self._ask(handle, MergeStates(handle.identity, states, rows), ModelIs)).model

    async def answer_claim(
        self,
        handle: Handle,
        index: int,
        state: bytes,
        theirs: ChunkClaim | None,
        moves: tuple[Move, ...],
    ) -> Searched:
        """Trace chunk `index` as the accused; answer the last of the accuser's `moves`."""
        return await self._ask(
            handle, AnswerClaim(handle.identity, index, state, theirs, moves), Searched
        )

    async def make_proof(
        self,
        handle: Handle,
        index: int,
        state: bytes,
        theirs: ChunkClaim,
        party: bytes,
        moves: tuple[Move, ...],
    ) -> Searched:
        """Trace chunk `index` as the accuser; `moves` are the answers of the accused so far.

        Raises:
            VerificationFailed: the answers do not fit what the accused claims, or it is right.
        """
        return await self._ask(
            handle, MakeProof(handle.identity, index, state, theirs, party, moves), Searched
        )

    async def load_model(self, model: bytes) -> ModelLoaded:
        """Examine a model file, make it ready, and return what it is."""
        async with self._conversation() as process:
            await process.send(LoadModel(_model_identity(model), model), 1)
            loaded = await process.receive(ModelLoaded)
        assert isinstance(loaded, ModelLoaded), "loading runs no step"
        return loaded

    async def ask_model(
        self, model: bytes, data: bytes, rows: int, is_evaluation: bool = False
    ) -> Answered:
        """Return what a model file says about `rows` rows, a JSON text (`ml_runtime.serving`).

        Or, as an evaluation, what it is worth on the last rows of an encoded dataset.
        """
        question = AskModel(_model_identity(model), data, rows, is_evaluation)
        async with self._conversation() as process:
            return await process.ask_model(question, model)

    async def _ask(self, handle: Handle, question: Question, kind: type[R]) -> R:
        async with self._conversation() as process:
            reply = await process.ask(handle, question, kind)
        assert not isinstance(reply, Trapped), "only chunks trap as a result"
        return reply

    @asynccontextmanager
    async def _run_chunks(
        self, handle: Handle, request: RunChunks
    ) -> AsyncIterator[AsyncIterator[Chunk | Trapped]]:
        async with self._conversation() as process:
            yield ChunkStream(process, handle, request)

    @asynccontextmanager
    async def _conversation(self) -> AsyncIterator[Process]:
        """Have the process alone. It ends here if it still owes an answer afterwards."""
        async with self._lock:
            if self._process is not None and not self._process.is_alive:
                log.warning("compute-ended-idle", how=self._process.fate)
                await self._end()
            if self._process is None and not self._is_closed:
                self._process = await Process.start(self._executor, self._backend)
            if self._is_closed:
                await self._end()
                raise ComputeFailed("the ML process was shut down")
            process = self._process
            assert process is not None
            try:
                yield process
            finally:
                if process.owed:
                    await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.end()


def _model_identity(model: bytes) -> bytes:
    return digest_bulk("mlchain/model-file", model)
