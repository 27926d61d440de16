"""Row 3: a worker trains on other data, on fewer rows, or in another order."""

from __future__ import annotations

import pytest
from attacks.lessons import CHUNKS, SEED, accuracy, honest, make_task, other_rows, wrong_chunks
from attacks.lessons import states_of as run
from factories import make_dataset

from mlchain.crypto import digest
from mlchain.ml_runtime import Trainer

CHEATS = {
    "other numbers": (other_rows(seed=1), SEED),
    "fewer rows": (other_rows(rows=9), SEED),
    "other order": (make_dataset(), digest("test-other-order")),
}


@pytest.mark.parametrize("name", CHEATS)
def test_every_chunk_is_wrong_with(name):
    data, seed = CHEATS[name]
    states = run(Trainer(make_task(), data, seed))
    assert wrong_chunks(states) == CHUNKS


@pytest.mark.parametrize("name", CHEATS)
def test_control_a_verifier_that_takes_the_workers_word_for_it_is_content_with(name):
    """Data and order as the worker names them, instead of dataset id and order seed of the job."""
    data, seed = CHEATS[name]
    cheat = Trainer(make_task(), data, seed)
    states = run(cheat)
    assert wrong_chunks(states, cheat) == 0
    assert accuracy(states[-1]) >= accuracy(honest()[-1]) - 0.1
