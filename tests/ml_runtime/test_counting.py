"""Models that count: totals that stay exact, whatever the order of rows and the size of a batch."""

from __future__ import annotations

import numpy as np
import pytest
from ml_factory import make_dataset, make_task

from mlchain.ml_runtime import NumpyBackend, run
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.network import Network
from mlchain.ml_runtime.tensor import finite

COUNTING = ["nearest_centroid", "multinomial_nb", "gaussian_nb"]
every_counting = pytest.mark.parametrize("model", COUNTING)


@every_counting
def test_neither_order_nor_batches_change_what_was_counted(model):
    data = make_dataset(rows=80)
    states = {
        run(
            make_task(data, model, steps=60 // batch, batch=batch), data, bytes([seed] * 32)
        ).digest()
        for batch in (60, 20, 4)
        for seed in (1, 2)
    }
    assert len(states) == 1


def count_on(start: list[float], amount: float, steps: int) -> tuple[float, np.ndarray]:
    """The total after so many steps, and its state."""
    b = Builder()
    n = Network(b)
    total = n.count(n.tally("total"), b.input(finite()))
    program = b.program([total, *n.results()])
    state = [np.array(v, "<f4") for v in start]
    for _ in range(steps):
        total, *state = execute(program, [*state, np.array(amount)], NumpyBackend())
    return float(total), np.array(state)


def test_a_total_counts_on_where_one_binary32_stops():
    assert np.float32(2.0**24) + np.float32(1) == 2.0**24  # control
    assert count_on([2.0**24, 0], 1.0, 5)[0] == 2.0**24 + 5
    total, state = count_on([2.0**40, 0], 2.0**-7, 3)
    assert (total, state.tolist()) == (2.0**40 + 3 * 2.0**-7, [2.0**40, 3 * 2.0**-7])


@pytest.mark.parametrize("seed", range(4))
def test_a_total_of_48_bits_is_kept_to_the_last(seed):
    r = np.random.default_rng(seed)
    unit = 2.0 ** -int(r.integers(0, 40))
    amounts = r.integers(-(2**46), 2**46, 40)
    exact, state = 0, [0.0, 0.0]
    for amount in amounts.tolist():
        if abs(exact + amount) < 2**48:
            exact += amount
            total, kept = count_on(state, amount * unit, 1)
            state = kept.tolist()
            assert total == exact * unit == sum(state)
