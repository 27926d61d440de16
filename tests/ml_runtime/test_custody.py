"""Custody digests: the same on every backend, and not to be had without running the chunk."""

from __future__ import annotations

import numpy as np
import pytest
from ml_factory import SEED, backend_or_skip, make_dataset, make_task

from mlchain.crypto import digest
from mlchain.ml_runtime import NumpyBackend, Trainer, check_plan, make_plan
from mlchain.ml_runtime.backends import BACKENDS
from mlchain.ml_runtime.custody import TILE, WHOLE, Tap, accumulators, exposed_bytes
from mlchain.ml_runtime.machine import plan_arena
from mlchain.ml_runtime.oracle import Oracle
from mlchain.ml_runtime.program import check
from mlchain.ml_runtime.tensor import finite

KEY, OTHER = digest("test-key"), digest("test-other-key")
MODELS = ("softmax", "mlp", "gaussian_nb", "perceptron")
HERE = [name for name in BACKENDS if name not in ("numpy", "torch:cuda")]


def make_trainer(model: str = "mlp", backend=None, steps: int = 24, chunk: int = 12) -> Trainer:
    return Trainer(
        make_task(make_dataset(), model, steps=steps, chunk=chunk), make_dataset(), SEED, backend
    )


def replayed(trainer: Trainer, key: bytes = KEY, chunk: int = 0) -> tuple[bytes, bytes]:
    after, custody = trainer.replay(chunk, trainer.initial_state(), key)
    return after.digest(), custody


@pytest.mark.parametrize("model", MODELS)
def test_replaying_with_a_key_ends_in_the_same_state_and_two_parties_make_one_digest(model):
    mine, yours = make_trainer(model), make_trainer(model)
    plain = mine.run_chunk(0, mine.initial_state()).digest()
    assert replayed(mine) == replayed(yours)
    assert replayed(mine)[0] == plain == mine.run_chunk(0, mine.initial_state()).digest()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", [*HERE, "oracle"])
def test_every_backend_makes_the_same_digest(name, model):
    backend = Oracle() if name == "oracle" else backend_or_skip(name)
    assert replayed(make_trainer(model, backend, 6, 3)) == replayed(make_trainer(model, None, 6, 3))


def test_key_chunk_and_start_each_change_it():
    trainer = make_trainer()
    states = [trainer.initial_state()]
    states.append(trainer.run_chunk(0, states[0]))
    found = {
        trainer.replay(chunk, state, key)[1]
        for chunk in (0, 1)
        for state in states
        for key in (KEY, OTHER)
    }
    assert len(found) == 8


class Off(NumpyBackend):
    """Gets one accumulator of one step wrong by a unit in the last place, and no state."""

    def bind(self, program, inputs, outputs, trace=None):
        run = super().bind(program, inputs, outputs, trace)

        def wrong() -> None:
            run()
            if len(outputs) > len(program.inputs) - 1:  # accumulators are in view
                flat = outputs[-1].reshape(-1)
                flat[:] = np.nextafter(flat, np.inf)

        return wrong


def test_states_alone_do_not_make_it():
    """Who has every state that is served, and the last bit of one accumulator wrong, is found."""
    right, wrong = replayed(make_trainer()), replayed(make_trainer(backend=Off()))
    assert right[0] == wrong[0] and right[1] != wrong[1]


def test_control_a_digest_of_the_end_state_needs_no_run():
    """What a chunk ends in is served: keyed over that, a digest would show nothing."""
    trainer = make_trainer()
    served = trainer.run_chunk(0, trainer.initial_state())
    assert digest("test", KEY, served.digest()) == digest("test", KEY, replayed(trainer)[0])


def test_the_last_step_is_always_taken_and_of_the_others_one_in_eight():
    taken = [Tap(digest(str(i)), 0, 99).wants(step) for i in range(50) for step in range(100)]
    assert all(taken[99::100])
    assert abs(sum(taken) - 50 - 50 * 99 / TILE) < 4 * (50 * 99 / TILE) ** 0.5


def test_an_eighth_of_a_large_accumulator_goes_in_and_the_key_says_which():
    kind = finite(8 * WHOLE)
    value = np.arange(kind.elements, dtype="<f8")

    def made(key: bytes, changed: int = -1) -> bytes:
        tap, other = Tap(key, 0, 0), value.copy()
        if changed >= 0:
            other[changed] += 1
        tap.absorb(0, [5], [kind], [other])
        return tap.digest()

    sets = []
    for key in map(digest, "abcdefgh"):
        seen = {i for i in range(kind.elements) if made(key, i) != made(key)}
        assert len(seen) == kind.elements // TILE
        sets.append(frozenset(seen))
    assert len(set(sets)) > 1


def test_the_sign_of_zero_and_the_payload_of_nan_are_no_part_of_it():
    one, two = np.array([0.0, np.nan]), np.array([-0.0, -np.nan])
    assert one.tobytes() != two.tobytes()
    taps = [Tap(KEY, 0, 0), Tap(KEY, 0, 0)]
    for tap, value in zip(taps, (one, two), strict=True):
        tap.absorb(0, [1], [finite(2)], [value])
    assert taps[0].digest() == taps[1].digest()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_leaves_sums_behind(model):
    checked = check(make_trainer(model).plan.step)
    assert all(checked.types[r].kind == "F" for r in accumulators(checked))
    assert exposed_bytes(checked) > 0


def test_the_memory_for_them_is_counted_before_anything_runs():
    plan = make_plan("mlp", features=700, classes=3, batch=8)
    checked = check(plan.step)
    assert check_plan(plan).arena_bytes >= plan_arena(checked)[1] + exposed_bytes(checked)
