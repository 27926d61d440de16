"""Training: chunks anyone can repeat, agreed order, agreed traps, and a net that learns digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_factory import SEED, make_dataset, make_task
from sklearn.datasets import load_digits

from mlchain import codec
from mlchain.errors import RejectedProgram, Trap
from mlchain.ml_runtime import Dataset, NumpyBackend, Oracle, Task, Trainer, make_plan, replay, run
from mlchain.ml_runtime.train import Order

DATA = make_dataset()
VALUES = make_dataset(classes=0, outputs=2)


def digests(task: Task, dataset: Dataset, **options) -> list[bytes]:
    found: list[bytes] = []
    run(task, dataset, SEED, lambda _, state: found.append(state.digest()), **options)
    return found


def test_a_network_learns_the_digits_within_4000_steps():
    x, y = load_digits(return_X_y=True)
    shuffled = np.random.default_rng(0).permutation(len(x))
    data = Dataset.from_arrays(x[shuffled], y[shuffled], classes=10)
    plan = make_plan("mlp", features=64, classes=10, hidden=(64,), batch=32, rate="0.001")
    task = Task(plan.encode(), 4000, 1000, 1437, 360)
    trainer = Trainer(task, data, SEED)
    state = trainer.initial_state()
    first = trainer.evaluate(state)
    for index in range(task.chunks):
        state = trainer.run_chunk(index, state)
    last = trainer.evaluate(state)
    assert last.total == 360
    assert first.value < 0.3
    assert last.value >= 0.97
    assert trainer.loss < 0.1


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 3))
def test_every_epoch_is_a_permutation_of_all_rows(rows, batch, seed):
    order = Order(bytes([seed]) * 32, rows, batch)
    steps = -(-3 * rows // batch)
    stream = np.concatenate([order.batch(s) for s in range(steps)])[: 3 * rows]
    epochs = stream.reshape(3, rows)
    assert all(sorted(epoch.tolist()) == list(range(rows)) for epoch in epochs)
    assert rows < 10 or len({tuple(epoch.tolist()) for epoch in epochs}) == 3


def test_the_order_of_a_step_does_not_depend_on_the_steps_asked_for_before():
    walked = Order(SEED, 20, 7)
    batches = [walked.batch(s).tolist() for s in range(12)]
    assert [Order(SEED, 20, 7).batch(s).tolist() for s in reversed(range(12))] == batches[::-1]


@pytest.mark.parametrize("backend", [NumpyBackend, Oracle])
def test_any_chunk_replayed_alone_gives_the_state_of_the_run(backend):
    task = make_task(DATA, steps=11, chunk=3, hidden=(4,))
    trainer = Trainer(task, DATA, SEED)
    states = [trainer.initial_state()]
    for index in range(task.chunks):
        states.append(trainer.run_chunk(index, states[-1]))
    for index in (2, 0, 3, 1):
        again = replay(task, DATA, SEED, index, states[index], backend())
        assert again.digest() == states[index + 1].digest()


def test_a_chunk_replayed_from_a_changed_state_gives_another():
    """Control of the test above: one bit of one weight is enough."""
    task = make_task(DATA, steps=4, chunk=2)
    trainer = Trainer(task, DATA, SEED)
    state = trainer.initial_state()
    honest = trainer.run_chunk(0, state).digest()
    state.tensors[0].view(np.uint32)[0, 0] ^= 1
    assert trainer.run_chunk(0, state).digest() != honest


@pytest.mark.parametrize("chunk", [1, 2, 5, 12, 100])
def test_the_size_of_chunks_does_not_change_the_result(chunk):
    reference = digests(make_task(DATA, steps=12, chunk=12), DATA)
    task = make_task(DATA, steps=12, chunk=chunk)
    assert digests(task, DATA)[-1:] == reference
    assert [s for i in range(task.chunks) for s in task.chunk_steps(i)] == list(range(12))


def test_seed_data_rate_and_optimiser_all_show_in_the_state():
    base = make_task(DATA, steps=4)
    others = [
        make_task(DATA, steps=4, rate="0.0010000001"),
        make_task(DATA, steps=4, optimiser="momentum"),
        make_task(DATA, steps=4, batch=9),
    ]
    results = [digests(task, DATA)[-1] for task in [base, *others]]
    results.append(run(base, DATA, b"other".ljust(32)).digest())
    changed = DATA.x.copy()
    changed[0] += 1
    results.append(run(base, Dataset(DATA.header, changed, DATA.y), SEED).digest())
    assert len(set(results)) == 6


def test_a_running_chunk_leaves_the_state_it_got_unchanged():
    task = make_task(DATA, steps=4)
    trainer = Trainer(task, DATA, SEED)
    state = trainer.initial_state()
    before = state.encode()
    after = trainer.run_chunk(0, state)
    kept = after.encode()
    trainer.run_chunk(0, state)
    assert state.encode() == before
    assert after.encode() == kept


def test_every_step_can_be_watched():
    task = make_task(DATA, steps=6, chunk=3)
    trainer = Trainer(task, DATA, SEED)
    seen = []
    state = trainer.run_chunk(0, trainer.initial_state(), lambda s, t: seen.append((s, t.digest())))
    trainer.run_chunk(1, state, lambda s, t: seen.append((s, t.digest())))
    single = digests(make_task(DATA, steps=6, chunk=1), DATA)
    assert seen == list(enumerate(single))


@given(
    st.sampled_from(["1e20", "1e60", "1e100", "1e150", "1e300"]),
    st.sampled_from(["sgd", "momentum", "adam"]),
    st.sampled_from(["linear", "mlp"]),
)
@settings(max_examples=25, deadline=None)
def test_a_job_that_overflows_fails_at_one_agreed_step(rate, optimiser, model):
    options = {"hidden": (3,)} if model == "mlp" else {}
    task = make_task(VALUES, model, steps=8, chunk=8, rate=rate, optimiser=optimiser, **options)
    outcomes = []
    for backend in (NumpyBackend(), Oracle()):
        try:
            outcomes.append(("ends", digests(task, VALUES, backend=backend)))
        except Trap as trap:
            assert trap.message.startswith(f"step {trap.step}: ")
            outcomes.append((trap.message, trap.step))
    assert outcomes[0] == outcomes[1]


def test_a_rate_beyond_binary32_traps():
    """Control of the test above: the overflow does happen."""
    task = make_task(VALUES, "linear", steps=8, chunk=8, rate="1e60", optimiser="sgd")
    with pytest.raises(Trap) as caught:
        digests(task, VALUES)
    assert caught.value.step == 1


def test_a_trap_leaves_the_trainer_usable():
    task = make_task(DATA, steps=4)
    trainer = Trainer(task, DATA, SEED)
    good = trainer.run_chunk(0, trainer.initial_state()).digest()
    broken = trainer.initial_state()
    broken.tensors[0][...] = np.inf
    with pytest.raises(Trap):
        trainer.run_chunk(0, broken)
    assert trainer.run_chunk(0, trainer.initial_state()).digest() == good


def changed(task: Task, **fields: object) -> Task:
    values = {name: getattr(task, name) for name in task.__struct_fields__} | fields
    return Task(**values)


def test_a_task_that_does_not_fit_its_data_is_refused():
    task = make_task(DATA)
    for other in (
        changed(task, plan=b"\x00"),
        changed(task, plan=task.plan + b"\x00"),
        changed(task, train_rows=55, test_rows=6),
        make_task(VALUES),
        make_task(make_dataset(features=6)),
        make_task(make_dataset(classes=2)),
    ):
        with pytest.raises(RejectedProgram):
            Trainer(other, DATA, SEED)


def test_data_with_fewer_classes_than_the_plan_is_welcome():
    Trainer(make_task(make_dataset(classes=5)), DATA, SEED)


def test_a_task_without_test_rows_cannot_be_evaluated():
    trainer = Trainer(changed(make_task(DATA), test_rows=0), DATA, SEED)
    with pytest.raises(RejectedProgram, match="no test rows"):
        trainer.evaluate(trainer.initial_state())


def test_a_task_has_one_encoding():
    task = make_task(DATA)
    assert codec.decode(Task, codec.encode(task)) == task


def test_more_rows_in_a_batch_than_in_the_data_are_welcome():
    task = make_task(DATA, steps=2, batch=100)
    assert digests(task, DATA) == digests(task, DATA, backend=Oracle())
