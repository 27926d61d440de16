"""Row 5: proof-of-learning spoofs, which live inside a verifier's tolerance. Here it is zero.

A verifier that allows for rounding must allow more than honest runs on two machines differ, and
measures that against d_ref, the distance of two trainings in different order (Jia 2021). A spoof
keeps each of its steps within the allowance and gets anywhere in many of them (Zhang 2022, Fang
2023): here, in a straight line from a fresh start to a stolen model.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from attacks.lessons import SEED, accuracy, distance, make_task, states_of, wrong_chunks
from factories import make_dataset
from msgspec.structs import replace

from mlchain.crypto import digest
from mlchain.ml_runtime import State, Trainer

ALLOWED = 0.1
"""Of d_ref. Honest runs on two machines that round differently stay far below."""

HONEST_STEPS = 10
"""6 % of the training: the first steps are long, and cheaper to compute than to invent."""


@cache
def ordered() -> Trainer:
    """The training as the job describes it, a state after every step."""
    return Trainer(replace(make_task(), chunk=1), make_dataset(), SEED)


@cache
def honest() -> tuple[State, ...]:
    return tuple(states_of(ordered()))


@cache
def d_ref() -> float:
    other = Trainer(ordered().task, make_dataset(), digest("test-other-order"))
    return distance(states_of(other)[-1], honest()[-1])


@cache
def stolen() -> State:
    """Somebody else's model, trained at another rate and in another order."""
    task = make_task(rate="0.3", weight_decay="0.001")
    return states_of(Trainer(task, make_dataset(), digest("test-somebody")))[-1]


def line() -> list[State]:
    """HONEST_STEPS as ordered, then equal steps to the stolen model, which nobody trains."""
    states = list(honest()[: HONEST_STEPS + 1])
    start, count = states[-1], ordered().task.chunks - HONEST_STEPS
    for i in range(1, count + 1):
        part = np.float32(i / count)
        pairs = zip(start.tensors, stolen().tensors, strict=True)
        states.append(State(tuple(a + (b - a) * part for a, b in pairs)))
    return states


def still() -> list[State]:
    """The stolen model after every step, as if the rate were next to nothing."""
    return [stolen()] * (ordered().task.chunks + 1)


def rounded_elsewhere() -> list[State]:
    """An honest run on a machine that rounds a little differently."""
    return states_of(
        ordered(), lambda state: State(tuple(t * np.float32(1 + 2**-20) for t in state.tensors))
    )


def intolerable(states: list[State]) -> int:
    """Steps that a tolerance verifier refuses."""
    return sum(
        distance(ordered().run_chunk(step, states[step]), states[step + 1]) > ALLOWED * d_ref()
        for step in range(ordered().task.chunks)
    )


def test_a_line_to_a_stolen_model_is_wrong_in_every_step_that_was_not_computed():
    assert wrong_chunks(line(), ordered()) == ordered().task.chunks - HONEST_STEPS


def test_a_rate_of_nothing_is_wrong_in_every_step():
    assert wrong_chunks(still(), ordered()) == ordered().task.chunks


def test_honest_work_is_right_in_every_step():
    assert wrong_chunks(honest(), ordered()) == 0


def test_control_a_tolerance_verifier_accepts_honest_work_and_both_spoofs():
    assert intolerable(rounded_elsewhere()) == 0, "which is what the allowance is for"
    assert intolerable(line()) == 0 and intolerable(still()) == 0
    assert accuracy(line()[-1]) > 0.9, "and the model is worth stealing"
    assert distance(stolen(), honest()[-1]) > ALLOWED * d_ref(), "another model, not this one"
