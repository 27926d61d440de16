"""Makers of tests of the runtime: datasets, tasks, random programs with inputs from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from ml_attributes import FITTING

from mlchain.errors import ConfigError, RejectedProgram, Trap
from mlchain.ml_runtime import Dataset, Task, make_plan
from mlchain.ml_runtime.backends import BACKENDS, make_backend
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.grid import peak, quantise, round_state
from mlchain.ml_runtime.machine import Backend, execute
from mlchain.ml_runtime.op import OPS, Attribute, Op
from mlchain.ml_runtime.program import Program
from mlchain.ml_runtime.tensor import Array, Type, allocate, finite, grid, labels, stored

SEED = b"\x07" * 32


MAY_BE_MISSING = {"torch"}
"""Extras that the gate does not install. A backend of any other has to work, or a test fails."""


def backend_or_skip(name: str) -> Backend:
    """Return a backend; skip the test if it needs what neither gate nor machine has to have."""
    try:
        return make_backend(name)
    except ConfigError as error:
        if BACKENDS[name].extra in MAY_BE_MISSING:
            pytest.skip(str(error))
        raise


def make_dataset(rows: int = 60, features: int = 7, classes: int = 3, outputs: int = 0) -> Dataset:
    """Learnable data: labels and values depend on x linearly."""
    r = np.random.default_rng(5)
    x = r.normal(size=(rows, features))
    values = x @ r.normal(size=(features, classes or outputs))
    return Dataset.from_arrays(x, values.argmax(1) if classes else values, classes=classes)


def make_task(
    dataset: Dataset, model: str = "mlp", steps: int = 10, chunk: int = 4, **options: Any
) -> Task:
    sizes = {"classes" if dataset.kind == "class" else "outputs": dataset.outputs}
    if "clusters" in options:
        sizes = {}
    plan = make_plan(model, features=dataset.features, **sizes, **{"batch": 8, **options})
    train = dataset.rows * 3 // 4
    return Task(plan.encode(), steps, chunk, train, dataset.rows - train)


def make_values(r: random.Random, kind: Type) -> Array:
    """Values of every size the type allows; most tensors ordinary, some extreme."""
    scale = r.choice([1.0, 1.0, 1.0, 30.0, 1e-3, 1e-130, 1e140, 5e-324])
    out = allocate(kind)
    if kind.kind == "I":
        out[...] = np.array([r.randrange(kind.bound) for _ in range(kind.elements)]).reshape(
            kind.shape
        )
        return out
    special = [0.0, -0.0, scale, -scale]
    raw = np.array(
        [
            r.choice(special) if r.random() < 0.1 else scale * r.gauss(0, 1)
            for _ in range(kind.elements)
        ]
    ).reshape(kind.shape)
    if kind.kind == "S":
        with np.errstate(over="ignore"):
            round_state(np.where(np.abs(raw) < 1e38, raw, 1.5), out)
    elif kind.kind == "G":
        try:
            quantise(raw, kind.bound, peak(raw), out)
        except Trap:
            out.fill(0.0)
    else:
        out[...] = raw
    return out


def _attributes(r: random.Random, op: Op) -> dict[str, int | float]:
    values: dict[str, int | float] = {}
    for name, kind in op.attributes.items():
        if kind is Attribute.REAL:
            values[name] = {
                "epsilon": r.choice([1e-8, 1e-3]),
                "decay": r.choice([0.0, 0.01]),
                "mu": 0.9,
                "beta1": r.choice([0.0, 0.9]),
                "beta2": 0.999,
            }.get(name, r.choice([-1.5, 0.1, 3.0, 1e-7, 1e200]))
        else:
            values[name] = {
                "bits": r.choice([2, 8, 16, 32, 48]),
                "exponent": r.randint(-8, 8),
                "relation": r.randrange(3),
                "classes": r.randint(1, 8),
                "count": r.randint(1, 6),
                "trees": r.choice([1, 2, 4]),
                "depth": r.randrange(5),
                "groups": r.choice([1, 1, 2]),
            }.get(name, r.randrange(2))
    return values


UPDATES = {"sgd": 1, "momentum": 2, "adam": 3, "adamw": 3}
"""How many tensors of state an update reads."""


def _candidates(r: random.Random, name: str, arity: int, pool: list[int]) -> list[tuple[int, ...]]:
    """Registers to try an op on; most will be refused."""
    kind, factor = name.removeprefix("scheduled_"), pool[22:23] * name.startswith("scheduled_")
    if kind in UPDATES:
        state, rest = UPDATES[kind], pool[5:6] * kind.startswith("adam")
        tries = range(40)
        return [(*r.choices(pool[6:9], k=state), r.choice(pool), *rest, *factor) for _ in tries]
    if name == "dropout":
        return [(x, pool[16], pool[17]) for x in r.sample(pool, len(pool))]
    if name == "trees":
        return [(x, *pool[18:22]) for x in r.sample(pool, len(pool))]
    if name == "weighted_distances":
        return [(r.choice(pool), *r.choices(pool[:2], k=2)) for _ in range(40)]
    if arity < 3:
        pairs = list(product(pool, repeat=arity))
        return r.sample(pairs, min(len(pairs), 60))
    return [tuple(r.choices(pool, k=arity)) for _ in range(200)]


BACKWARD = {
    "gelu_gradient": ("gelu", lambda x, y, s: (y, x, s)),
    "layer_norm_gradient": ("layer_norm", lambda x, y, r: (x, y, r)),
    "max_pool_gradient": ("max_pool", lambda x, y: (y, x, y)),
    "softmax_gradient": ("causal_softmax", lambda x, y: (x, y)),
}
"""Ops that read what another op filled: that op, and what they read of its input and outputs."""


def _backward(r: random.Random, b: Builder, name: str, pool: list[int]) -> list[int]:
    """Registers filled by an op and its gradient, where some register fits."""
    forward, reads = BACKWARD[name]
    for x in r.sample(pool, len(pool)):
        fit = FITTING.get(forward, lambda r, kind: _attributes(r, OPS[forward]))
        attributes = fit(r, b.type(x))
        try:
            outs = b.emit_all(forward, x, **attributes)
        except RejectedProgram:
            continue
        after = attributes if OPS[name].attributes else {}
        return [*outs, *b.emit_all(name, *reads(x, *outs), **after)]
    return []


def make_program(
    seed: int, length: int = 14, ops: Sequence[str] = ()
) -> tuple[Program, list[Array]]:
    """Return a random program with inputs: any op that fits registers so far may follow.

    Ops named in `ops` are tried first.
    """
    r = random.Random(seed)
    b = Builder()
    n, k = r.randint(1, 6), r.randint(1, 6)
    kinds = [finite(n, k), finite(n, k), grid(16, k, n), labels(k, n), finite(n), stored(2)]
    kinds += [stored(n, k)] * 3 + [stored(k), grid(16, n, k), grid(16, n, n)]
    kinds += [finite(2, n, k), grid(16, 2, k, n), grid(12, 2, 1, n, k)]
    kinds += [finite(1, 4, 5, 2), stored(4), stored()]
    kinds += [labels(k, 7), finite(7), labels(6, 7), finite(7, 2)]  # the nodes of trees
    kinds += [finite()]
    pool = [b.input(kind) for kind in kinds]
    inputs = [make_values(r, kind) for kind in kinds]
    inputs[5][...] = 0.5  # bias powers
    names = sorted(OPS) + ["spread", "matmul"] * 4 + ["softmax_residual"] * 2
    for name in (*ops, *(r.choice(names) for _ in range(length - len(ops)))):
        op = OPS[name]
        if name in BACKWARD:
            pool += _backward(r, b, name, pool)
            continue
        attributes = _attributes(r, op)
        for candidate in _candidates(r, name, op.arity, pool):
            if name in FITTING:
                attributes = FITTING[name](r, b.type(candidate[0]))
            try:
                pool += b.emit_all(name, *candidate, **attributes)
            except RejectedProgram:
                continue
            break
    made = pool[len(kinds) :] or pool[:1]
    return b.program(made[-6:]), inputs


def observe(program: Program, inputs: list[Array], backend: Backend) -> tuple[list[bytes], str]:
    """Return the digest of every op that ran, and the trap if there was one."""
    trace: list[bytes] = []
    try:
        execute(program, inputs, backend, trace)
    except Trap as trap:
        return trace, trap.message
    return trace, ""
