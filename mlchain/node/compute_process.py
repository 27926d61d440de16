"""The running ML process and the conversation with it, one request at a time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TypeVar

import trio

from mlchain.errors import MlchainError
from mlchain.ml_runtime.backends import DEFAULT
from mlchain.node.child import child_environment, describe_end
from mlchain.node.compute_wire import (
    HEADER,
    Answered,
    AskModel,
    Chunk,
    Digest,
    Failed,
    Load,
    Loaded,
    LoadModel,
    Measured,
    ModelIs,
    ModelLoaded,
    Question,
    Reply,
    Request,
    RunChunks,
    Searched,
    StateIs,
    Trapped,
    Unknown,
    body_size,
    pack,
    revive,
    unpack,
)

READ_BYTES = 1 << 20
"""Most bytes read from the process at one time."""

R = TypeVar(
    "R", Loaded, StateIs, Chunk, Digest, Measured, ModelIs, Searched, ModelLoaded, Answered
)  # fmt: skip


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


class Process:
    """A running ML process and the pipes to it. `owed` counts the replies still to come."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None and process.stdout is not None, "opened with pipes"
        self._process = process
        self._to, self._from = process.stdin, process.stdout
        self._buffer = bytearray()
        self.owed = 0

    @classmethod
    async def start(cls, executor: str = "", backend: str = DEFAULT) -> Process:
        """Start the process; what it prints goes to our stderr."""
        command = [sys.executable, "-P", "-m", "mlchain.node.compute_child"]
        command += [backend, executor]
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs still."""
        return self._process.poll() is None

    @property
    def fate(self) -> str:
        """How the process ended, in words."""
        return describe_end(self._process.returncode)

    async def send(self, request: Request, replies: int) -> None:
        """Send a request that so many replies answer."""
        header, body = pack(request)
        self.owed = replies
        try:
            await self._to.send_all(header)
            await self._to.send_all(body)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
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

    async def ask_model(self, question: AskModel, model: bytes) -> Answered:
        """Send a question about a model file, loading it first if need be; return the reply."""
        await self.send(question, 1)
        reply = await self._receive_any()
        if isinstance(reply, Unknown):
            await self.send(LoadModel(question.identity, model), 1)
            await self.receive(ModelLoaded)
            await self.send(question, 1)
            reply = await self._receive_any()
        assert isinstance(reply, Answered), f"the ML process answered {type(reply).__name__}"
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
            try:
                data = await self._from.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise await self._died() from error
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


class ChunkStream:
    """The answers to one `RunChunks`."""

    def __init__(self, process: Process, handle: Handle, request: RunChunks) -> None:
        self._process, self._handle, self._request = process, handle, request
        self._is_asked = False

    def __aiter__(self) -> ChunkStream:
        return self

    async def __anext__(self) -> Chunk | Trapped:
        if not self._is_asked and self._request.count:
            self._is_asked = True
            return await self._process.ask(self._handle, self._request, Chunk, self._request.count)
        if not self._process.owed:
            raise StopAsyncIteration
        return await self._process.receive(Chunk)
