"""Child processes that outlive the command which started them: start, recognise, stop.

A pid alone proves nothing, since the system gives it away again. So the file beside a process
holds its pid *and* the moment it was started, and a process counts as ours only if both agree.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_S = 10.0
"""Seconds a process has between the polite request to stop and the end."""
_POLL_S = 0.05

_started: dict[int, subprocess.Popen[bytes]] = {}
"""Kept for as long as we run: Python complains about children that are forgotten alive."""


def start(
    command: Sequence[str], pid_file: Path, log_file: Path, env: Mapping[str, str], is_tied: bool
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, with its output appended to `log_file`.

    A tied process gets a pipe as its input; it ends when the pipe closes, so it cannot survive us
    however we end. An untied one goes on after us.
    """
    with log_file.open("ab") as log:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if is_tied else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,  # a ctrl-c in the terminal is for us: we stop the children
        )
    _started[child.pid] = child
    pid_file.write_text(f"{child.pid} {started_at(child.pid)}\n")
    return child


def running_pid(pid_file: Path) -> int | None:
    """Return the pid of the process that `pid_file` names if it still runs; remove a stale file."""
    try:
        pid_text, moment = pid_file.read_text().split(maxsplit=1)
        pid = int(pid_text)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        pid, moment = 0, ""
    if pid > 0 and started_at(pid) == moment.strip() != "":
        return pid
    pid_file.unlink(missing_ok=True)
    return None


def stop(pid_files: Sequence[Path], wait_s: float = STOP_S) -> list[Path]:
    """Stop the processes named by `pid_files`, together; return the files of those that ran."""
    running = {file: pid for file in pid_files if (pid := running_pid(file)) is not None}
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [file for file in running if file.exists()]
        for file in alive:
            if running_pid(file) is not None:
                _signal(running[file], number)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline and any(running_pid(file) for file in alive):
            time.sleep(_POLL_S)
    return list(running)


@contextmanager
def orderly_end() -> Iterator[None]:
    """Within, SIGTERM and a closed terminal end us through `finally`, like ctrl-c."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def started_at(pid: int) -> str:
    """Return when a process was started, in the system's own words; "" if it does not run."""
    try:
        if pid in _started:
            _started[pid].poll()  # collects a child of ours that has ended
        # The name, second field, may hold spaces and brackets; the rest follows the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if Path("/proc/self").exists():
        return ""
    answer = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
