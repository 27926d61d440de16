"""A library that switches subnormal numbers off: the runtime refuses, our own process recovers."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform

import numpy as np
import pytest

from mlchain.errors import ConfigError
from mlchain.ml_runtime import Dataset, Task, Trainer, get_backend, make_plan, train
from mlchain.node.rounding import restore_rounding

FLUSH = 0x8040  # flush to zero, and subnormal operands are zero
SEED = bytes(32)

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
    reason="sets the mode as glibc keeps it on x86-64",
)


@pytest.fixture
def flushing():
    """Switch subnormal numbers off in this thread, as torch.set_flush_denormal(True) does."""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    environment = (ctypes.c_uint32 * 8)()  # seven words of the x87, then MXCSR
    assert libm.fegetenv(environment) == 0
    environment[7] |= FLUSH
    assert libm.fesetenv(environment) == 0
    yield
    assert restore_rounding()


def is_flushing() -> bool:
    return bool(np.float64(2.0**-1022) * np.float64(0.5) == 0.0)


def make_trainer() -> Trainer:
    r = np.random.default_rng(0)
    data = Dataset.from_arrays(r.random((40, 6)), np.arange(40) % 3, classes=3)
    plan = make_plan("mlp", features=6, classes=3, batch=8, hidden=(5,))
    return Trainer(Task(plan.encode(), 20, 20, 40, 0), data, SEED)


def test_the_runtime_refuses_to_compute(flushing):
    assert is_flushing(), "the control: the mode is switched"
    with pytest.raises(ConfigError, match="flushed to zero"):
        make_trainer()
    with pytest.raises(ConfigError, match="flushed to zero"):
        train.probe()


def test_no_backend_is_admitted(flushing, monkeypatch):
    monkeypatch.setattr("mlchain.ml_runtime.backends._admitted", set())
    with pytest.raises(ConfigError, match="flushed to zero"):
        get_backend("numpy")


def test_a_mode_switched_behind_the_probe_does_not_change_an_ordinary_training(monkeypatch):
    """Grids, functions and state keep far from subnormals: the second line of defence."""
    trainer = make_trainer()
    expected = trainer.run_chunk(0, trainer.initial_state()).digest()
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    environment = (ctypes.c_uint32 * 8)()
    libm.fegetenv(environment)
    environment[7] |= FLUSH
    libm.fesetenv(environment)
    try:
        assert is_flushing()
        assert trainer.run_chunk(0, trainer.initial_state()).digest() == expected
    finally:
        restore_rounding()


def test_the_mode_can_be_put_back(flushing):
    assert is_flushing()
    assert restore_rounding()
    assert not is_flushing()
    make_trainer()
