"""Trainings that are not the one that was ordered, and two ways to look at them.

`defended` is the verifier of the chain: it re-executes chunks of the pinned task on the pinned data
in the pinned order, and compares bits. The controls use laxer verifiers on the same runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from factories import make_dataset
from msgspec.structs import replace

from mlchain.crypto import digest
from mlchain.ml_runtime import Dataset, State, Task, Trainer, make_plan

SEED = digest("test-order")
CHUNKS, STEPS = 40, 4
"""Chunks of a training, and steps in each of them."""


def make_task(model: str = "softmax", optimiser: str = "sgd", **options: object) -> Task:
    options = {"rate": "0.5", **options}
    plan = make_plan(model, features=4, classes=3, optimiser=optimiser, batch=8, **options)
    return Task(plan.encode(), CHUNKS * STEPS, STEPS, 45, 15)


@cache
def ordered() -> Trainer:
    """The training as the job describes it."""
    return Trainer(make_task(), make_dataset(), SEED)


def states_of(trainer: Trainer, after: Callable[[State], State] = lambda state: state) -> list:
    """All states of a training; `after` changes what each chunk leaves."""
    states = [trainer.initial_state()]
    for chunk in range(trainer.task.chunks):
        states.append(after(trainer.run_chunk(chunk, states[-1])))
    return states


@cache
def honest() -> tuple[State, ...]:
    return tuple(states_of(ordered()))


def wrong_chunks(states: Sequence[State], verifier: Trainer | None = None) -> int:
    """In how many chunks re-execution from the served state gives another digest."""
    trainer = verifier or ordered()
    return sum(
        trainer.run_chunk(chunk, states[chunk]).digest() != states[chunk + 1].digest()
        for chunk in range(trainer.task.chunks)
    )


def distance(one: State, other: State) -> float:
    """Euclidean distance of all parameters."""
    pairs = zip(one.tensors, other.tensors, strict=True)
    return float(sum(np.square(a - b, dtype=np.float64).sum() for a, b in pairs) ** 0.5)


def accuracy(state: State) -> float:
    return float(ordered().evaluate(state).value)


def skip_steps(every: int) -> list[State]:
    """A run that leaves out one step of `every`, scattered over all chunks."""
    single = Trainer(replace(make_task(), chunk=1), make_dataset(), SEED)
    states, state = [single.initial_state()], single.initial_state()
    for chunk in range(CHUNKS):
        for step in range(chunk * STEPS, (chunk + 1) * STEPS):
            if step % every != every - 1:
                state = single.run_chunk(step, state)
        states.append(state)
    return states


def other_rows(rows: int = 0, seed: int = 0) -> Dataset:
    """A dataset like the ordered one: of other numbers, or with fewer different rows."""
    data = make_dataset()
    x, y = data.x.astype(np.float64) * 2.0**-15, data.y
    if rows:
        x, y = x[np.arange(60) % rows], y[np.arange(60) % rows]
    else:
        x = x + np.random.default_rng(seed).normal(0, 1e-3, x.shape)
    return Dataset.from_arrays(x, y, classes=3)
