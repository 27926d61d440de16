"""Training in this process, and the record of it: the same bytes a chain would agree on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlchain.errors import Trap
from mlchain.ml_runtime import Dataset, State, Task, Trainer

Progress = Callable[[int, int], None]
"""Told (chunks done, chunks in all)."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: the last state, the digest after every chunk, the loss at its last step."""

    task: Task
    dataset: Dataset
    seed: bytes
    state: State
    leaves: tuple[bytes, ...]
    losses: tuple[float, ...]


def train_here(
    task: Task, dataset: Dataset, seed: bytes, on_chunk: Progress = lambda done, total: None
) -> Trained:
    """Train a task from its first step to its last.

    Raises:
        Trap: a step left the exact range, as it would on every machine.
    """
    trainer = Trainer(task, dataset, seed)
    state = trainer.initial_state()
    leaves, losses = [], []
    for index in range(task.chunks):
        try:
            state = trainer.run_chunk(index, state)
        except Trap as trap:
            raise Trap(
                f"training left the exact range at {trap.message}",
                "a smaller learning_rate, or fewer epochs",
                trap.step,
            ) from trap
        leaves.append(state.digest())
        losses.append(trainer.loss)
        on_chunk(index + 1, task.chunks)
    return Trained(task, dataset, seed, state, tuple(leaves), tuple(losses))
