"""Loss and training score along a run: what a chain does not keep, had by running it again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlchain.ml_runtime import State, Trainer
from mlchain.ml_runtime.inference import predict

POINTS = 100
SCORED_ROWS = 2000
"""Scores are of so many training rows at most."""


@dataclass(frozen=True, slots=True)
class Curves:
    """`chunks[i]` slices were done when loss and score were taken. `score` is the accuracy on
    training rows; empty for what has no labels. `chunk` is in steps.
    """

    chunks: tuple[int, ...]
    loss: tuple[float, ...]
    score: tuple[float, ...]
    chunk: int


def run_curves(trainer: Trainer) -> Curves:
    """Return the curves of a run, which is run again for it."""
    total = trainer.task.chunks
    every = -(-total // POINTS)
    state, done, loss, score = trainer.initial_state(), [], [], []
    for index in range(total):
        state = trainer.run_chunk(index, state)
        if (index + 1) % every == 0 or index + 1 == total:
            done.append(index + 1)
            loss.append(trainer.loss)
            if trainer.plan.target == "class":
                score.append(_accuracy(trainer, state))
    return Curves(tuple(done), tuple(loss), tuple(score), trainer.task.chunk)


def _accuracy(trainer: Trainer, state: State) -> float:
    rows = min(trainer.task.train_rows, SCORED_ROWS)
    parameters = state.tensors[: len(trainer.plan.predict.inputs) - 1]
    scores = predict(trainer.plan.predict, parameters, trainer.dataset.x[:rows])
    return float(np.mean(scores.argmax(axis=1) == trainer.dataset.y[:rows]))
