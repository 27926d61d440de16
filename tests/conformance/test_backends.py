"""One suite for every numeric backend: what it computes equals the oracle, bit for bit.

Every backend of the registry is examined where its library is installed. The vectors of
tests/vectors/ml_runtime (test_vectors.py) and the self-test (test_admission.py) are the rest.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_factory import SEED, backend_or_skip, make_dataset, make_program, make_task, observe

from mlchain.errors import RejectedProgram, Trap
from mlchain.ml_runtime import Oracle, ShardedBackend, Trainer, run
from mlchain.ml_runtime import backends as registry
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import Backend, execute
from mlchain.ml_runtime.program import Node, Program
from mlchain.ml_runtime.tensor import finite

BACKENDS = {
    **{name: partial(backend_or_skip, name) for name in registry.BACKENDS},
    "one shard": lambda: ShardedBackend(1),
    "two shards": lambda: ShardedBackend(2),
    "five shards": lambda: ShardedBackend(5),
}
every_backend = pytest.mark.parametrize("name", BACKENDS)
whole_batch = pytest.mark.parametrize("name", registry.BACKENDS)

JOBS = {
    "linear": ("linear", {"optimiser": "sgd", "rate": "0.05"}),
    "softmax": ("softmax", {"optimiser": "momentum"}),
    "mlp": ("mlp", {"hidden": (5, 4)}),
    "mlp tanh": ("mlp", {"hidden": (5,), "activation": "tanh"}),
    "mlp sigmoid": ("mlp", {"hidden": (5,), "activation": "sigmoid", "weight_decay": "0.01"}),
}


def make(name: str) -> Backend:
    return BACKENDS[name]()


@whole_batch
@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_random_programs_give_the_oracle_s_digest_after_every_op(name, seed):
    program, inputs = make_program(seed)
    assert observe(program, inputs, make(name)) == observe(program, inputs, Oracle())


@every_backend
@pytest.mark.parametrize("job", JOBS)
def test_training_gives_the_oracle_s_states(name, job):
    model, options = JOBS[job]
    data = make_dataset(classes=0, outputs=2) if model == "linear" else make_dataset()
    task = make_task(data, model, steps=6, chunk=2, batch=11, **options)
    chains: list[list[bytes]] = [[], []]
    for chain, backend in zip(chains, (Oracle(), make(name)), strict=True):
        run(task, data, SEED, lambda _, s, chain=chain: chain.append(s.digest()), backend)
    assert chains[0] == chains[1]


@every_backend
@pytest.mark.parametrize("value", [np.nan, np.inf, 2.0**500])
def test_what_is_off_the_exact_range_traps(name, value):
    b = Builder()
    x, y = b.input(finite(6, 3)), b.input(finite(6, 3))
    program = b.program([b.mean(b.emit("add", x, y))])
    bad = np.ones((6, 3))
    bad[4, 1] = value
    with pytest.raises(Trap):
        execute(program, [bad, np.ones((6, 3))], make(name))


@every_backend
def test_a_refused_program_does_not_run(name):
    with pytest.raises(RejectedProgram):
        execute(Program((), (Node("exec", (), ()),), (0,)), [], make(name))


@every_backend
def test_inputs_are_not_changed_and_runs_repeat(name):
    data = make_dataset()
    trainer = Trainer(make_task(data, steps=4), data, SEED, make(name))
    state = trainer.initial_state()
    before = state.encode()
    first = trainer.run_chunk(0, state).digest()
    assert trainer.run_chunk(0, state).digest() == first
    assert state.encode() == before
