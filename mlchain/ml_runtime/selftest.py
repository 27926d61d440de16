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
    "product": "1de80a46e5d9f6237a6fc3bf8303e1bad685518977d60fd8b3b6ebd68b0c2146",
    "functions": "fdf1fcb177f479fc3416f085ebfb00840286658238b7dfde29bb3fb38fe4209f",
    "linear, sgd": "f7964093331c6260e4232eabab4e4cdf24339aea1ee258ce880f7fc0c7df93b9",
    "softmax, momentum": "16a1e1f0b49ddda5eafdaf3814dfdc32180c7ce73193b6810cbdaba90f611bc5",
    "mlp, adam": "cf33a5e8bb4e9e8ca81675a5b15381dac49210af32ccae11a84cc43ca5bf9b9f",
    "mlp tanh, adam": "82bb29b183a2b830bb3099061a1fdc497ffbca3b5fee1595f13922822d72343e",
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
