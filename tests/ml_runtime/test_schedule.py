"""Schedules of the rate, the clock, and dropout as a plan writes them."""

from __future__ import annotations

import numpy as np
import pytest
from ml_factory import SEED, make_dataset, make_task

from mlchain.errors import ConfigError
from mlchain.ml_runtime import NumpyBackend, Oracle, Trainer, decode_plan, make_plan, replay, run
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.network import Network
from mlchain.ml_runtime.schedule import rate_factor
from mlchain.ml_runtime.tensor import finite, stored

DATA = make_dataset()


def factors(steps: int, **options: object) -> list[float]:
    """The factor of each of the first steps."""
    b = Builder()
    n = Network(b, training=True)
    register = rate_factor(n, **options)
    program = b.program([register, *n.aids_after()])
    clock, found = np.zeros((), "<f4"), []
    for _ in range(steps):
        factor, clock = execute(program, [clock], NumpyBackend())
        found.append(float(factor))
    return found


def test_a_constant_rate_writes_nothing():
    plain = make_plan("mlp", features=4, classes=2)
    assert make_plan("mlp", features=4, classes=2, schedule="constant") == plain
    assert "clock" not in [s.name for s in plain.state]


def test_warm_up_is_a_straight_line():
    assert factors(6, warmup=4) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_linear_decay_ends_at_nothing():
    found = factors(9, schedule="linear", warmup=2, decay_steps=8)
    assert found == pytest.approx([1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0])


def test_root_decay_is_one_over_the_square_root():
    found = factors(16, schedule="root", warmup=4)
    assert found == pytest.approx([min(s / 4, (4 / s) ** 0.5) for s in range(1, 17)])


def test_step_decay_falls_at_the_very_step():
    found = factors(148, schedule="step", decay_steps=49, decay_factor="0.5")
    assert found == pytest.approx([0.5 ** (t // 49) for t in range(148)])


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "cosine"},
        {"schedule": "root"},
        {"schedule": "step"},
        {"schedule": "linear", "warmup": 5, "decay_steps": 5},
        {"warmup": -1},
        {"schedule": "step", "decay_steps": 3, "decay_factor": 0},
    ],
)
def test_a_schedule_that_is_none_is_refused(options):
    with pytest.raises(ConfigError):
        make_plan("mlp", features=4, classes=2, **options)


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "adam", "adamw"])
def test_a_factor_of_one_gives_the_plain_update(optimiser):
    attributes = {"rate": 0.1, "decay": 0.01}
    slots = {"sgd": 0, "momentum": 1}.get(optimiser, 2)
    if slots == 1:
        attributes = {"rate": 0.1, "mu": 0.9, "decay": 0.01}
    if slots == 2:
        attributes = {"rate": 0.1, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "decay": 0.01}
    r = np.random.default_rng(1)
    kinds = [stored(3, 2)] * (1 + slots) + [finite(3, 2)] + [stored(2)] * (slots == 2)
    inputs = [
        np.abs(r.normal(size=k.shape)).astype("<f4" if k.kind == "S" else "<f8") for k in kinds
    ]
    if slots == 2:
        inputs[-1][...] = 0.5

    def after(name: str, *factor: float) -> list[np.ndarray]:
        b = Builder()
        reads = [b.input(k) for k in (*kinds, *[finite()] * len(factor))]
        outs = b.emit_all(name, *reads, **attributes)
        return execute(b.program(outs), [*inputs, *map(np.float64, factor)], NumpyBackend())

    plain = after(optimiser)
    assert all(map(np.array_equal, plain, after(f"scheduled_{optimiser}", 1.0)))
    still = after(f"scheduled_{optimiser}", 0.0)[0]
    assert np.array_equal(still, inputs[0])
    assert not np.array_equal(plain[0], still)


def test_decoupled_decay_shrinks_a_weight_that_has_no_gradient():
    b = Builder()
    p, m, v = (b.input(stored(1)) for _ in range(3))
    g, powers = b.input(finite(1)), b.input(stored(2))
    attributes = {"rate": 0.5, "beta1": 0.0, "beta2": 0.5, "epsilon": 1e-8, "decay": 0.25}
    program = b.program(b.emit_all("adamw", p, m, v, g, powers, **attributes)[:1])
    zero, half = np.zeros(1, "<f4"), np.full(2, 0.5, "<f4")
    inputs = [np.ones(1, "<f4"), zero, zero, np.zeros(1), half]
    assert execute(program, inputs, NumpyBackend())[0] == 1 - 0.5 * 0.25


TASK = make_task(
    DATA, steps=6, chunk=3, hidden=(6,), dropout="0.5", schedule="linear", decay_steps=6
)


def test_dropout_and_schedule_train_to_the_oracle_s_state():
    assert run(TASK, DATA, SEED).digest() == run(TASK, DATA, SEED, backend=Oracle()).digest()


def test_a_chunk_can_be_replayed_from_its_state_alone():
    states = []
    run(TASK, DATA, SEED, lambda _, state: states.append(state))
    assert replay(TASK, DATA, SEED, 1, states[0]).digest() == states[1].digest()


def test_the_mask_comes_from_the_job_s_seed():
    plan = decode_plan(TASK.plan)
    noise = [s.name for s in plan.state].index("noise")
    first, other = (Trainer(TASK, DATA, seed).initial_state() for seed in (SEED, b"\x08" * 32))
    assert not np.array_equal(first.tensors[noise], other.tensors[noise])


def test_the_clock_counts_the_steps():
    clock = [s.name for s in decode_plan(TASK.plan).state].index("clock")
    assert run(TASK, DATA, SEED).tensors[clock] == 6


def test_predictions_leave_dropout_out():
    plan = decode_plan(TASK.plan)
    assert "dropout" in [n.op for n in plan.step.nodes]
    assert "dropout" not in [n.op for n in plan.predict.nodes]
    assert len(plan.predict.inputs) == 5  # x and the four parameters


def test_every_dropout_has_its_own_index():
    plan = make_plan("mlp", features=4, classes=2, hidden=(5, 5), dropout=0.3)
    indices = {n.attributes for n in plan.step.nodes if n.op == "dropout"}
    assert len(indices) == 2


@pytest.mark.parametrize("share", [-0.1, 1, 1.5])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ConfigError, match="dropout"):
        make_plan("mlp", features=4, classes=2, dropout=share)
