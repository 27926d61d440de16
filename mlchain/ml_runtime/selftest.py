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
from mlchain.ml_runtime.planner import make_plan
from mlchain.ml_runtime.random import make_key, uniform, words
from mlchain.ml_runtime.tensor import Array, digest, finite, labels, stored
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


def _subnormals(backend: Backend) -> bytes:
    """Products far below the normal numbers: a device that flushes them to zero is found."""
    b = Builder()
    x, y = b.input(finite(64)), b.input(finite(64))
    least = b.emit("multiply", x, y)
    program = b.program([least, b.emit("scale", least, factor=2.0**100)])
    small = np.ldexp(_numbers("s", 64), -500 - np.arange(64))  # products from 2^-1010 to nothing
    outs = execute(program, [small, np.full(64, 2.0**-510)], backend)
    return crypto.digest("selftest", *(digest(finite(64), out) for out in outs))


def _updates(backend: Backend) -> bytes:
    """Update rules where sums nearly cancel: a product and a sum contracted into one rounding
    show in a few of 512 elements, though state keeps only 24 bits."""
    seen: list[bytes] = []

    def update(name: str, first: int, *values: Array, **attributes: float) -> list[Array]:
        b = Builder()
        kinds = (finite(512) if v.dtype == np.float64 else stored(*v.shape) for v in values)
        results = b.emit_all(name, *(b.input(kind) for kind in kinds), **attributes)[first:]
        outs = execute(b.program(results), values, backend)
        seen.extend(digest(stored(512), out) for out in outs)
        return outs

    g, x, zero = _numbers("g", 512), _numbers("p", 512).astype("<f4"), np.zeros(512, "<f4")
    plain = {"rate": 0.3, "decay": 0.0}
    update("sgd", 0, -update("sgd", 0, zero, g, **plain)[0], g, **plain)
    against = -(x * 0.3).astype("<f4").astype(np.float64)  # g + decay p almost 0
    update("sgd", 0, x, against, rate=2.0**24, decay=0.3)
    update("momentum", 0, zero, x, against, rate=0.3, mu=0.3, decay=0.0)
    update("momentum", 0, x, zero, against, rate=0.3, mu=0.9, decay=0.3)
    moved = update("momentum", 0, zero, x, g, rate=0.3, mu=0.9, decay=0.0)[0]
    update("momentum", 0, -moved, x, g, rate=0.3, mu=0.9, decay=0.0)
    betas = {"beta1": 0.9, "beta2": 0.7, "epsilon": 1e-8, "decay": 0.0}
    powers = np.array([0.5, 0.25], "<f4")
    m, v = (g * (0.1 / -0.9)).astype("<f4"), (g * g * (0.3 / -0.7)).astype("<f4")
    update("adam", 1, zero, m, v, g, powers, rate=0.3, **betas)  # both moments cancel
    moved = update("adam", 0, zero, x, abs(x), g, powers, rate=0.3, **betas)[0]
    update("adam", 0, -moved, x, abs(x), g, powers, rate=0.3, **betas)
    betas["decay"] = 0.3
    update("adam", 0, x, zero, zero, against, powers, rate=0.3, **betas)
    return crypto.digest("selftest", *seen)


def _functions(backend: Backend) -> bytes:
    """Cover the range of every function, by cubes of uniform numbers."""
    b = Builder()
    x, y = b.input(finite(300, 5)), b.input(labels(5, 300))
    p = b.emit("softmax", x)
    outputs = [p, b.emit("log_loss", p, y), b.emit("tanh", x), b.emit("sigmoid", x)]
    targets = np.arange(300, dtype=np.int64) % 5
    numbers = _numbers("f", 300, 5)
    cubes = numbers * numbers * numbers  # no power: libm's last bits are each processor's own
    values = execute(b.program(outputs), [cubes * 150, targets], backend)
    kinds = [b.type(r) for r in outputs]
    return crypto.digest("selftest", *map(digest, kinds, values))


def _training(model: str, optimiser: str, **options: Any) -> Callable[[Backend], bytes]:
    def compute(backend: Backend) -> bytes:
        is_class = model != "linear"
        x = _numbers("rows", 40, 7)
        y = np.arange(40) * 7 % 3 if is_class else x[:, :2] * 3
        data = Dataset.from_arrays(x, y, classes=3 if is_class else 0)
        sizes: dict[str, Any] = {"classes": 3} if is_class else {"outputs": 2}
        plan = make_plan(model, features=7, optimiser=optimiser, batch=9, **sizes, **options)
        return run(Task(plan.encode(), 8, 4, 40, 0), data, SEED, backend=backend).digest()

    return compute


CASES: dict[str, Callable[[Backend], bytes]] = {
    "words": _words,
    "product": _product,
    "subnormals": _subnormals,
    "updates": _updates,
    "functions": _functions,
    "linear, sgd": _training("linear", "sgd", rate="0.05", weight_decay="0.01"),
    "softmax, momentum": _training("softmax", "momentum"),
    "mlp, adam": _training("mlp", "adam", hidden=(6, 5), rate="0.01"),
    "mlp tanh, adam": _training("mlp", "adam", hidden=(6,), activation="tanh"),
}

PINNED = {
    "words": "82d7fc396af181b8dc4772bf729bb1ad4792bef32757254f38ec828c433a20de",
    "product": "cdc9ebf1c998391a944b15ee1d535d6bedbe331677cb2c4c2b96b84c78352047",
    "subnormals": "aa9160c0aceb7b08257d02f65bb12d0e6ac44de81204a707c65d06dd25a9d272",
    "updates": "aac0c9ede0c03909e772414e35f647a8eb43b7a3b358074af9d364ec00fb14d9",
    "functions": "3e67c48cbff98ba18a2f81c92f56ad4a6b67bfb927fac5130a0883483623b983",
    "linear, sgd": "583642695694107e93ed6699d108115f6593630a1563c712e5881f375344e506",
    "softmax, momentum": "4c58e8c53bd4a4e13130094b814ec219f6103f34bca5b54440a283eacc48d1b3",
    "mlp, adam": "4caacad0ad58392a8cb9de62c14d05be2979a439026dde2675700e16952ca326",
    "mlp tanh, adam": "dad80c81577ae72e1baac1b0c0bdc256f3e9934946cc635271f04c0973546687",
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
