"""Child processes that compute: what they inherit, and how they ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import mlchain

_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


def child_environment() -> dict[str, str]:
    """Return the environment of a process that computes: this package, and one thread."""
    package = str(Path(mlchain.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return {**os.environ, **_ONE_THREAD, "PYTHONPATH": path}


def describe_end(status: int | None) -> str:
    """Return in words how a process ended."""
    if status is None:
        return "closed its pipe"
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
