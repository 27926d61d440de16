"""Row 4: a worker trains with another rate, another optimiser, or in another precision."""

from __future__ import annotations

import numpy as np
import pytest
from attacks.lessons import CHUNKS, SEED, honest, make_task, ordered, states_of, wrong_chunks
from factories import make_dataset

from mlchain.ml_runtime import State, Trainer

OPTIONS = {
    "another rate": {"rate": "0.501"},
    "a rate of nothing": {"rate": "0.000001"},
    "decay": {"weight_decay": "0.0001"},
}
ADAM = {"optimiser": "adam", "rate": "0.05"}


def halves(state: State) -> State:
    """The same numbers in half precision: 11 bits instead of 24."""
    return State(tuple(t.astype(np.float16).astype(np.float32) for t in state.tensors))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_chunk_is_wrong_with(name):
    states = states_of(Trainer(make_task(**OPTIONS[name]), make_dataset(), SEED))
    assert wrong_chunks(states) == CHUNKS


def test_every_chunk_is_wrong_in_another_precision():
    assert wrong_chunks(states_of(Trainer(make_task(), make_dataset(), SEED), halves)) == CHUNKS


def test_another_optimiser_does_not_even_have_the_same_state():
    adam = Trainer(make_task(**ADAM), make_dataset(), SEED)
    state = adam.initial_state()
    assert len(state.tensors) != len(honest()[0].tensors)


@pytest.mark.parametrize("name", [*OPTIONS, "another optimiser"])
def test_control_with_the_workers_own_program_nothing_is_wrong_with(name):
    cheat = Trainer(make_task(**OPTIONS.get(name, ADAM)), make_dataset(), SEED)
    assert wrong_chunks(states_of(cheat), cheat) == 0


def test_control_a_verifier_that_rounds_as_the_worker_does_finds_nothing_wrong():
    """In a precision of its own choice, instead of the one that the program fixes."""
    states, trainer = states_of(ordered(), halves), ordered()
    for chunk in range(CHUNKS):
        again = halves(trainer.run_chunk(chunk, states[chunk]))
        assert again.digest() == states[chunk + 1].digest()
