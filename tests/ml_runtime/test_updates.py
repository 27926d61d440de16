"""Optimisers: textbook formulas, old state kept, decay for weights only."""

from __future__ import annotations

import numpy as np
import pytest
from ml_factory import SEED, make_dataset, make_task

from mlchain.errors import Trap
from mlchain.ml_runtime import NumpyBackend, Trainer, make_plan
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.op import bits_to_real
from mlchain.ml_runtime.tensor import finite, stored

r = np.random.default_rng(11)
P, M, G = (r.normal(size=(40, 3)) for _ in range(3))
P, M = P.astype(np.float32), M.astype(np.float32)
V = np.square(M)


def run(name, inputs, **attributes):
    b = Builder()
    kinds = [(stored if a.dtype == np.float32 else finite)(*a.shape) for a in inputs]
    outputs = b.emit_all(name, *(b.input(k) for k in kinds), **attributes)
    copies = [a.copy() for a in inputs]
    results = execute(b.program(outputs), inputs, NumpyBackend())
    assert all(np.array_equal(a, c) for a, c in zip(inputs, copies, strict=True))
    assert all(a.dtype == np.float32 for a in results)
    return results


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_goes_down_the_gradient(decay):
    (new,) = run("sgd", [P, G], rate=0.5, decay=decay)
    assert np.allclose(new, P - 0.5 * (G + decay * P), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_momentum_keeps_its_velocity(decay):
    new, velocity = run("momentum", [P, M, G], rate=0.5, mu=0.9, decay=decay)
    expected = 0.9 * M + G + decay * P
    assert np.allclose(velocity, expected, rtol=1e-6, atol=1e-7)
    assert np.allclose(new, P - 0.5 * expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_algorithm_1_of_its_paper(decay):
    t = 7
    powers = np.array([0.9**t, 0.999**t], np.float32)
    attributes = {"rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "decay": decay}
    new, m, v = run("adam", [P, M, V, G, powers], **attributes)
    g = G + decay * P
    em, ev = 0.9 * M + 0.1 * g, 0.999 * V + 0.001 * g * g
    step = 0.01 * (em / (1 - 0.9**t)) / (np.sqrt(ev / (1 - 0.999**t)) + 1e-8)
    for got, expected in ((m, em), (v, ev), (new, P - step)):
        assert np.allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_bias_powers_follow_the_steps():
    task = make_task(make_dataset(), steps=5, chunk=5)
    trainer = Trainer(task, make_dataset(), SEED)
    index = [s.name for s in trainer.plan.state].index("powers")
    before, after = trainer.initial_state(), trainer.run_chunk(0, trainer.initial_state())
    assert before.tensors[index].tolist() == [1, 1]
    assert np.allclose(after.tensors[index], [0.9**5, 0.999**5], rtol=1e-6)


@pytest.mark.parametrize("powers", [[1.0, 0.5], [0.5, 1.0], [-0.5, 0.5], [np.nan, 0.5]])
def test_hostile_bias_powers_trap_instead_of_dividing_by_zero(powers):
    attributes = {"rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "decay": 0.0}
    with pytest.raises(Trap, match="bias power"):
        run("adam", [P, M, V, G, np.array(powers, np.float32)], **attributes)


@pytest.mark.parametrize("optimiser", ["adam", "momentum", "sgd"])
def test_weights_decay_and_biases_do_not(optimiser):
    plan = make_plan("softmax", features=4, classes=2, optimiser=optimiser, weight_decay="0.5")
    decays = {}
    for node in plan.step.nodes:
        if node.op == optimiser:
            kind = plan.step.inputs[node.inputs[0]]
            decays[len(kind.shape)] = bits_to_real(node.attributes[-1])
    assert decays == {2: 0.5, 1: 0.0}


@pytest.mark.parametrize("optimiser", ["adam", "momentum", "sgd"])
def test_moments_too_small_for_binary32_become_zero_the_same_everywhere(optimiser):
    """Below 2^-113 state is flushed by our own rule, so a processor's flushing has nothing left."""
    tiny = np.full((2, 2), 1e-37)
    state = tiny.astype(np.float32)
    if optimiser == "sgd":
        (new,) = run("sgd", [state, tiny], rate=0.1, decay=0.0)
    elif optimiser == "momentum":
        _, new = run(
            "momentum", [tiny.astype(np.float32)] * 2 + [tiny], rate=0.1, mu=0.9, decay=0.0
        )
    else:
        powers = np.array([0.9, 0.999], np.float32)
        attributes = {"rate": 0.1, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "decay": 0.0}
        _, new, _ = run("adam", [state, state, state, tiny, powers], **attributes)
    assert new.tolist() == [[0, 0], [0, 0]]
