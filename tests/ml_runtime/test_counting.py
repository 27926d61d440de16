"""Models that count: totals that stay exact, whatever the order of rows and the size of a batch."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from ml_factory import SEED, make_dataset, make_task
from sklearn import datasets
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import NearestCentroid

from mlchain.ml_runtime import Dataset, NumpyBackend, Task, Trainer, make_plan, run
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


def test_a_perceptron_with_a_batch_of_one_is_that_of_the_books_to_the_last_bit():
    data = make_dataset(rows=80, classes=2)
    trainer = Trainer(make_task(data, "perceptron", steps=200, chunk=200, batch=1), data, SEED)
    state = trainer.run_chunk(0, trainer.initial_state())
    weights, bias = np.zeros(7), 0.0
    for step in range(200):
        x, y = trainer.load(step)
        side = 2.0 * y[0] - 1
        if side * (x[0] @ weights + bias) <= 0:
            weights, bias = weights + side * x[0], bias + side
    near, rest, near_bias, _ = (t.astype(float) for t in state.tensors)
    assert np.array_equal((near + rest)[:, 1], weights)
    assert np.array_equal((near + rest)[:, 0], -weights)
    assert near_bias.tolist() == [-bias, bias]


def make_documents(rows: int, words: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of words in long documents of two classes that differ by little."""
    r = np.random.default_rng(4)
    chances = r.dirichlet(np.ones(words) * 5)
    other = chances * r.uniform(0.8, 1.25, words)
    both = np.array([chances, other / other.sum()])
    y = np.arange(rows) % 2
    return np.array([r.multinomial(length, both[c]) for c in y], float), y


def test_long_documents_do_not_underflow():
    x, y = make_documents(300, 300, 3000)
    data = Dataset.from_arrays(x, y, classes=2)
    unit = 2.0 ** data.header.exponents[0]
    plan = make_plan("multinomial_nb", features=300, classes=2, batch=200, unit=unit)
    trainer = Trainer(Task(plan.encode(), 1, 1, 200, 100), data, SEED)
    state = trainer.run_chunk(0, trainer.initial_state())
    right = trainer.evaluate(state).value
    assert right > 0.9
    peer = MultinomialNB().fit(x[:200], y[:200])
    assert right == Fraction(int((peer.predict(x[200:]) == y[200:]).sum()), 100)
    chances = np.exp(peer.feature_log_prob_)
    products = np.array([np.prod(chances**row, axis=1) for row in x[200:]])
    assert not products.any()  # control: the product of probabilities is 0 for all, so it guesses
    assert np.mean(products.argmax(1) == y[200:]) == 0.5


@pytest.mark.parametrize("name", ["iris", "wine"])
@pytest.mark.parametrize(
    ("model", "peer"),
    [
        ("gaussian_nb", GaussianNB),
        ("multinomial_nb", MultinomialNB),
        ("nearest_centroid", NearestCentroid),
    ],
)
def test_every_row_gets_the_class_that_scikit_learn_gives_it(name, model, peer):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = (x - x.min(0)) / (x.max(0) - x.min(0))
    data = Dataset.from_arrays(x, y, classes=3)
    rounded = data.x * 2.0**-15  # what is trained on; a nearest row of ours is theirs as well
    plan = make_plan(model, features=x.shape[1], classes=3, batch=len(x))
    trainer = Trainer(Task(plan.encode(), 1, 1, len(x), 0), data, SEED)
    scores = trainer.model(trainer.run_chunk(0, trainer.initial_state())).scores(x)
    assert np.array_equal(scores.argmax(1), peer().fit(rounded, y).predict(rounded))


def test_ridge_has_the_weights_that_scikit_learn_finds():
    x, y = datasets.load_diabetes(return_X_y=True)
    data = Dataset.from_arrays(x, y)
    rounded, unit = data.x * 2.0**-15, 2.0 ** data.header.exponents[0]
    plan = make_plan("ridge", features=10, outputs=1, batch=len(x), alpha="0.5", unit=unit)
    trainer = Trainer(Task(plan.encode(), 1, 1, len(x), 0), data, SEED)
    weights, bias, *_ = trainer.run_chunk(0, trainer.initial_state()).tensors
    peer = Ridge(alpha=0.5 / unit**2).fit(rounded, y)
    assert weights[:, 0] == pytest.approx(peer.coef_, rel=1e-5)
    assert bias[0] == pytest.approx(peer.intercept_, rel=1e-5)
