"""Shards in processes of this machine, over pipes; see `executor`."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import time
from contextlib import suppress

from mlchain.errors import CodecError
from mlchain.node.child import child_environment, describe_end
from mlchain.node.compute_wire import HEADER, body_size
from mlchain.node.executor import ExecutorFailed, Link, Lost, Message
from mlchain.node.shard_wire import Buffer

PIPE_BYTES = 1 << 20
"""What a pipe holds: the fewer pauses the better, a process has parameters of megabytes to say."""
SEND_S = 60.0
"""A process that reads nothing for so long is stuck."""


class ProcessEngine:
    """Starts processes that run shards."""

    def __init__(self, shards: int, module: str = "mlchain.node.shard_child") -> None:
        self.name, self.shards, self._module = f"processes:{shards}", shards, module

    def start(self) -> Link:
        """Start one."""
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=child_environment(),
            )
        except OSError as error:
            raise Lost(f"cannot start a process: {error.strerror}") from error
        return ProcessLink(process)

    def close(self) -> None:
        """Nothing is left to let go of."""


class ProcessLink:
    """The pipes to one process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None, "opened with pipes"
        self.process, self.name = process, f"process {process.pid}"
        self._to, self._from = process.stdin.fileno(), process.stdout.fileno()
        for pipe in (self._to, self._from):
            os.set_blocking(pipe, False)
            with suppress(OSError):  # the system's limit is lower
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def send(self, request: Message) -> None:
        """Send the pieces of a request."""
        end = time.monotonic() + SEND_S
        for piece in (HEADER.pack(sum(map(len, request))), *request):
            rest = memoryview(piece)
            while rest:
                self._wait(self._to, select.POLLOUT, end)
                try:
                    rest = rest[os.write(self._to, rest) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise self._died() from error

    def receive(self, seconds: float) -> Buffer:
        """Return the answer."""
        end = time.monotonic() + seconds
        try:
            size = body_size(bytes(self._read(HEADER.size, end)))
        except CodecError as error:
            raise ExecutorFailed(f"{self.name}: the answer is no message") from error
        return self._read(size, end)

    def close(self) -> None:
        """Kill the process and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None, "opened with pipes"
            pipe.close()

    def _read(self, size: int, end: float) -> bytearray:
        buffer = bytearray(size)
        rest = memoryview(buffer)
        while rest:
            self._wait(self._from, select.POLLIN, end)
            try:
                count = os.readv(self._from, [rest])
            except BlockingIOError:
                continue
            if not count:
                raise self._died()
            rest = rest[count:]
        return buffer

    def _wait(self, pipe: int, event: int, end: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise Lost(f"{self.name} is silent")

    def _died(self) -> Lost:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        return Lost(f"{self.name} ended ({describe_end(self.process.returncode)})")
