"""The ML process of a node, as the node sees it: ask, await, and never stall consensus.

The event loop that votes must not train. So each user of ML in a node (the worker, the auditor)
has a `Compute`, a process of its own at low priority. It is started when first needed, and again
after it died. A call that is cancelled kills it: training that nobody waits for is stopped at once,
and the next call starts anew.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import trio

import mlchain
from mlchain.crypto import digest, digest_bulk
from mlchain.errors import CodecError, MlchainError
from mlchain.ml_runtime import Metrics
from mlchain.node.compute_wire import (
    HEADER,
    MAX_BLOB_BYTES,
    Chunk,
    Digest,
    Evaluate,
    Failed,
    InitialState,
    Load,
    Loaded,
    MakeModel,
    Measured,
    ModelIs,
    Question,
    Replay,
    Reply,
    Request,
    RunChunks,
    StateIs,
    Trapped,
    Unknown,
    body_size,
    pack,
    revive,
    unpack,
)

__all__ = ["Chunk", "Compute", "ComputeFailed", "Handle", "Trapped"]

log = logging.getLogger("mlchain.compute")

READ_BYTES = 1 << 20
"""Most bytes read from the process at one time."""

_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}

R = TypeVar("R", Loaded, StateIs, Chunk, Digest, Measured, ModelIs)


class ComputeFailed(MlchainError):
    """The ML process ended before it answered, or met a bug of ours. Asking again may help."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A job that can be computed: all its inputs, so that any process can take it up again."""

    identity: bytes
    task: bytes
    dataset: bytes
    seed: bytes
    chunks: int


class Compute:
    """One ML process. Use it as an async context manager; its calls wait for one another.

    Every call raises what the runtime raises (RejectedProgram, CodecError, ...) and ComputeFailed.
    States are canonical bytes, digests 32 bytes, chunks count from 0.
    """

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._process: _Process | None = None

    async def __aenter__(self) -> Compute:
        """Start nothing yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
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

    async def replay(self, handle: Handle, index: int, state: bytes) -> bytes | Trapped:
        """Return the digest of the state after chunk `index`, which starts at `state`."""
        async with self._conversation() as process:
            reply = await process.ask(handle, Replay(handle.identity, index, state), Digest)
        return reply if isinstance(reply, Trapped) else reply.digest

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
            yield _ChunkStream(process, handle, request)

    @asynccontextmanager
    async def _conversation(self) -> AsyncIterator[_Process]:
        """Have the process alone. It ends here if it still owes an answer afterwards."""
        async with self._lock:
            if self._process is not None and not self._process.is_alive:
                log.warning("the ML process ended while idle (%s)", self._process.fate)
                await self._end()
            if self._process is None:
                self._process = await _Process.start()
            process = self._process
            try:
                yield process
            finally:
                if process.owed:
                    await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.end()


class _ChunkStream:
    """The answers to one `RunChunks`."""

    def __init__(self, process: _Process, handle: Handle, request: RunChunks) -> None:
        self._process, self._handle, self._request = process, handle, request
        self._is_asked = False

    def __aiter__(self) -> _ChunkStream:
        return self

    async def __anext__(self) -> Chunk | Trapped:
        if not self._is_asked and self._request.count:
            self._is_asked = True
            return await self._process.ask(self._handle, self._request, Chunk, self._request.count)
        if not self._process.owed:
            raise StopAsyncIteration
        return await self._process.receive(Chunk)


class _Process:
    """A running ML process and the pipes to it. `owed` counts the replies still to come."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None and process.stdout is not None, "opened with pipes"
        self._process = process
        self._to, self._from = process.stdin, process.stdout
        self._buffer = bytearray()
        self.owed = 0

    @classmethod
    async def start(cls) -> _Process:
        """Start the process; what it prints goes to our stderr."""
        package = str(Path(mlchain.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-P", "-m", "mlchain.node.compute_child"]
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def fate(self) -> str:
        """How the process ended, in words."""
        status = self._process.returncode
        if status is None:
            return "closed its pipe"
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    async def send(self, request: Request, replies: int) -> None:
        """Send a request that so many replies answer."""
        header, body = pack(request)
        self.owed = replies
        try:
            await self._to.send_all(header)
            await self._to.send_all(body)
        except trio.BrokenResourceError as error:
            raise await self._died() from error

    async def receive(self, kind: type[R]) -> R | Trapped:
        """Return the next reply, which is to be a `kind`.

        Raises:
            MlchainError: the request raised it, or ComputeFailed.
        """
        reply = await self._receive_any()
        assert isinstance(reply, kind | Trapped), f"the ML process answered {type(reply).__name__}"
        return reply

    async def ask(
        self, handle: Handle, question: Question, kind: type[R], replies: int = 1
    ) -> R | Trapped:
        """Send a question about a job, loading the job again if need be; return the first reply."""
        await self.send(question, replies)
        reply = await self._receive_any()
        if isinstance(reply, Unknown):
            await self.send(Load(handle.identity, handle.task, handle.dataset, handle.seed), 1)
            await self.receive(Loaded)
            await self.send(question, replies)
            reply = await self._receive_any()
        assert isinstance(reply, kind | Trapped), f"the ML process answered {type(reply).__name__}"
        return reply

    async def end(self) -> None:
        """Kill the process and wait until it is gone, even when cancelled."""
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()
            await self._to.aclose()
            await self._from.aclose()

    async def _receive_any(self) -> Reply:
        header = await self._read(HEADER.size)
        reply: Reply = unpack(Reply, await self._read(body_size(header)))
        is_last = isinstance(reply, Failed | Unknown | Trapped)
        self.owed = 0 if is_last else self.owed - 1
        if isinstance(reply, Failed):
            raise revive(reply) or ComputeFailed(f"the ML process failed: {reply.message}")
        return reply

    async def _read(self, size: int) -> bytes:
        buffer = self._buffer
        while len(buffer) < size:
            data = await self._from.receive_some(READ_BYTES)
            if not data:
                raise await self._died()
            buffer += data
        part = bytes(memoryview(buffer)[:size])
        del buffer[:size]
        return part

    async def _died(self) -> ComputeFailed:
        with trio.move_on_after(1):
            await self._process.wait()
        return ComputeFailed(
            f"the ML process ended before it answered ({self.fate})",
            "if it happens again, look for lack of memory",
        )
