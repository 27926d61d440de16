"""Start-up self test: small computations against pinned digests that the oracle computed.

A processor, library or build that gives one different bit is found here, before it casts a vote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlchain import crypto
from mlchain.errors import ConfigError
from mlchain.ml_runtime import functions, grid
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.data import Dataset
from mlchain.ml_runtime.machine import Backend, NumpyBackend, execute
from mlchain.ml_runtime.plan import make_plan
from mlchain.ml_runtime.random import make_key, uniform, words
from mlchain.ml_runtime.tensor import Array, digest, finite, labels
from mlchain.ml_runtime.train import Task, run

SEED = bytes(range(32))


def _numbers(purpose: str, *shape: int) -> Array:
    """Return numbers in [-1, 1) from a stream of their own."""
    count = int(np.prod(shape))
    return uniform(make_key(SEED, purpose, 0), count).reshape(shape) * 2.0 - 1.0


def _words(backend: Backend) -> bytes:
    return crypto.digest(
        "selftest", words(make_key(SEED, "words", 0), 1001).astype("<u8").tobytes()
    )


def _product(backend: Backend) -> bytes:
    b = Builder()
    x, y = b.input(finite(33, 700)), b.input(finite(700, 41))
    program = b.program([b.matmul(x, y)])
    out = execute(program, [_numbers("x", 33, 700), _numbers("y", 700, 41)], backend)
    return digest(finite(33, 41), out[0])


def _functions(backend: Backend) -> bytes:
    """Cover the range of every function, by cubes of uniform numbers."""
    b = Builder()
    x, y = b.input(finite(300, 5)), b.input(labels(5, 300))
    p = b.emit("softmax", x)
    outputs = [p, b.emit("log_loss", p, y), b.emit("tanh", x), b.emit("sigmoid", x)]
    targets = np.arange(300, dtype=np.int64) % 5
    values = execute(b.program(outputs), [_numbers("f", 300, 5) ** 3 * 150, targets], backend)
    kinds = [b.type(r) for r in outputs]
    return crypto.digest("selftest", *map(digest, kinds, values))


def _training(model: str, optimiser: str, **options: Any) -> Callable[[Backend], bytes]:
    def compute(backend: Backend) -> bytes:
        is_class = model != "linear"
        x = _numbers("rows", 40, 7)
        y = np.arange(40) * 7 % 3 if is_class else x[:, :2] * 3
        data = Dataset.from_arrays(x, y, classes=3 if is_class else 0)
        sizes = {"classes": 3} if is_class else {"outputs": 2}
        plan = make_plan(model, features=7, optimiser=optimiser, batch=9, **sizes, **options)
        return run(Task(plan.encode(), 8, 4, 40, 0), data, SEED, backend=backend).digest()

    return compute


CASES: dict[str, Callable[[Backend], bytes]] = {
    "words": _words,
    "product": _product,
    "functions": _functions,
    "linear, sgd": _training("linear", "sgd", rate="0.05", weight_decay="0.01"),
    "softmax, momentum": _training("softmax", "momentum"),
    "mlp, adam": _training("mlp", "adam", hidden=(6, 5), rate="0.01"),
    "mlp tanh, adam": _training("mlp", "adam", hidden=(6,), activation="tanh"),
}

PINNED = {
    "words": "82d7fc396af181b8dc4772bf729bb1ad4792bef32757254f38ec828c433a20de",
    "product": "c6f017eaa68652c50ded5bff020ec4074dd2bbd611ee11d68626996898c798b2",
    "functions": "4d7bb2897965d803be01c53cf1becd2a0dd521d1eba0c1d75034a9abc19986b2",
    "linear, sgd": "08fcb8bf527a20d2761225d3cd33d9da2496778e93e0b394e6310357734852a8",
    "softmax, momentum": "04ef6cf4891fb019b80865558afe25ce306b7d1bd0b892d640f7eba3cf75f54b",
    "mlp, adam": "5e3d2eb126a6ff5c7eabbd75b86d291c973c8a70e353cc53118b6702fab863df",
    "mlp tanh, adam": "b73383a5fee96ec9a71cc049300c4612b99e8edc4918f88ef393695bdc66e90e",
}


def self_test(backend: Backend | None = None) -> None:
    """Return if this process computes what every other node computes. Takes well under a second.

    Raises:
        ConfigError: it does not; names what differs.
    """
    grid.probe()
    if functions.TABLE_DIGEST != functions.PINNED_TABLE_DIGEST:
        raise ConfigError("self test: tables of functions differ", "this build cannot take part")
    for name, compute in CASES.items():
        if compute(backend or NumpyBackend()).hex() != PINNED[name]:
            raise ConfigError(f"self test: {name} differs", "this machine cannot take part")
