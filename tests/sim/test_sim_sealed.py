"""A simulated run does not reach the real machine, and a part of a node that does is a bug."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from mlchain.node.compute import Compute
from mlchain.node.progress import Progress
from mlchain.sim.run import run
from mlchain.sim.scenario import Scenario
from mlchain.sim.work.lesson import RememberedCompute
from mlchain.sim.work.machine import SimulatedNode
from mlchain.sim.work.sealed import NotInvented, sealed

REAL: dict[str, Callable[[], Any]] = {
    "urandom": lambda: os.urandom(8),
    "secrets": lambda: secrets.token_bytes(8),
    "thread": lambda: threading.Thread(target=int).start(),
    "process": lambda: subprocess.run(["true"], check=True),
    "socket": lambda: socket.socket().close(),
    "clock": lambda: Progress("blocks", 0, 1),  # ours, and looks at the clock
}


@pytest.mark.parametrize("name", REAL)
def test_what_is_real_is_refused_and_told(name: str):
    told: list[str] = []
    with sealed(told.append), pytest.raises(NotInvented):
        REAL[name]()
    assert len(told) == 1
    REAL[name]()


def test_others_may_look_at_the_clock():
    with sealed(pytest.fail):
        time.monotonic()


@pytest.mark.parametrize("name", ["secrets", "clock"])
def test_a_node_that_uses_what_is_real_breaks_its_run(name: str, monkeypatch: pytest.MonkeyPatch):
    def draw(node: SimulatedNode, size: int) -> bytes:
        REAL[name]()
        return bytes(size)

    monkeypatch.setattr(SimulatedNode, "_random_bytes", draw)
    assert "is real" in run(Scenario(1, 4, "none", world="work", calm=True)).violation


def test_control_a_dispute_in_a_real_process_is_such_a_run(monkeypatch: pytest.MonkeyPatch):
    """So it was: an accuser traced the forged chunk in a real ML process, and waited for it."""
    scenario = Scenario(7, 4, "skip", world="work")
    assert not run(scenario).violation
    monkeypatch.setattr(RememberedCompute, "_ask", Compute._ask)
    assert "is real" in run(scenario).violation
