"""Training in chunks that anyone can repeat: same task, data and seed, same bits.

Chunk j covers steps [j k, min((j+1) k, steps)). A worker runs all chunks and commits to the state
after each; a checker takes the state before one chunk, replays it and compares digests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from msgspec import Meta

from mlchain.codec import Record
from mlchain.errors import RejectedProgram, Trap
from mlchain.ml_runtime import metrics
from mlchain.ml_runtime.custody import Exposed, Tap
from mlchain.ml_runtime.data import MAX_ROWS, Dataset, RowReader
from mlchain.ml_runtime.grid import probe
from mlchain.ml_runtime.inference import calibrate, make_model, predict
from mlchain.ml_runtime.machine import Backend, HostLoop, Loop, NumpyBackend, Run
from mlchain.ml_runtime.metrics import Metrics
from mlchain.ml_runtime.model import Model
from mlchain.ml_runtime.plan import MAX_PLAN_BYTES, Plan, check_plan, decode_plan, input_types
from mlchain.ml_runtime.program import Program
from mlchain.ml_runtime.random import make_key, permutation
from mlchain.ml_runtime.state import State, initial_state
from mlchain.ml_runtime.tensor import Array, allocate

MAX_STEPS = 1 << 32
CALIBRATION_ROWS = 512
"""Training rows from which the static scales of a model are taken, filled up to whole batches."""


class Task(Record, frozen=True):
    """A training job: an encoded plan, how many steps, in chunks of how many, on which rows.

    The first `train_rows` rows of the dataset train, the last `test_rows` test.
    """

    plan: Annotated[bytes, Meta(min_length=1, max_length=MAX_PLAN_BYTES)]
    steps: Annotated[int, Meta(ge=1, le=MAX_STEPS)]
    chunk: Annotated[int, Meta(ge=1, le=MAX_STEPS)]
    train_rows: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    test_rows: Annotated[int, Meta(ge=0, le=MAX_ROWS)]

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.steps // self.chunk)

    def chunk_steps(self, index: int) -> range:
        """Return the steps of a chunk."""
        return range(index * self.chunk, min((index + 1) * self.chunk, self.steps))


class Order:
    """Which rows a step trains on: every epoch is a permutation of all rows, batches follow on.

    A batch may begin in one epoch and end in the next, so no row is ever left out.
    """

    def __init__(self, seed: bytes, rows: int, batch: int) -> None:
        self._seed, self._rows, self._batch = seed, rows, batch
        self._epochs: dict[int, Array] = {}

    def epoch(self, index: int) -> Array:
        """Return the permutation of epoch `index`; the two latest asked for are kept."""
        if index not in self._epochs:
            if len(self._epochs) > 1:
                del self._epochs[min(self._epochs)]
            self._epochs[index] = permutation(make_key(self._seed, "order", index), self._rows)
        return self._epochs[index]

    def batch(self, step: int) -> Array:
        """Return the row numbers of a step."""
        at, stop = step * self._batch, (step + 1) * self._batch
        parts = []
        while at < stop:
            epoch, offset = divmod(at, self._rows)
            part = self.epoch(epoch)[offset : offset + stop - at]
            parts.append(part)
            at += len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@runtime_checkable
class HoldsData(Protocol):
    """A backend whose parts keep the dataset, so that only numbers of rows travel at a step."""

    def bind_rows(
        self,
        program: Program,
        dataset: Dataset,
        rows: Array,
        state: Sequence[Array],
        outputs: Sequence[Array],
    ) -> Run:
        """Bind a step program to row numbers (int64, one batch), and to its state; see `bind`."""


@runtime_checkable
class HoldsState(Protocol):
    """A backend that keeps dataset and state where it computes; the state is had for the asking."""

    def loop(self, program: Program, dataset: Dataset, rows: Array, state: Sequence[Array]) -> Loop:
        """Return a step program as a loop over the dataset's rows that `rows` names at each step.

        `rows` are int64, one batch; `state` are arrays of the state's shapes.
        """


class Trainer:
    """One task ready to run: programs bound to arrays, rows in agreed order.

    `seed` (32 bytes, public) decides order and initial state. Not for two threads at once.

    Raises:
        RejectedProgram: the plan is malformed or refused, or does not fit the dataset.
        ConfigError: this process does not round as IEEE-754 says.
    """

    def __init__(
        self, task: Task, dataset: Dataset, seed: bytes, backend: Backend | None = None
    ) -> None:
        probe()
        self.task, self.dataset, self.seed = task, dataset, seed
        self.plan: Plan = decode_plan(task.plan)
        self.cost = check_plan(self.plan)
        _require_fit(self.plan, task, dataset)
        self.loss = math.nan
        """Loss of the last step that was run; to look at, not to agree on."""
        self._backend = backend or NumpyBackend()
        self._order = Order(seed, task.train_rows, self.plan.batch)
        x, y = (allocate(kind) for kind in input_types(self.plan))
        self._x, self._y = x, y
        self._rows = np.zeros(self.plan.batch, np.int64)
        self._groups = self.plan.target == "cluster"
        if self._groups:  # it is shown each row's place in the batch, and no label
            y[...] = np.arange(self.plan.batch)
        self._read = RowReader(dataset, x, np.empty_like(y) if self._groups else y)
        self._loop = self._make_loop()

    def _make_loop(self) -> Loop:
        """Return the step program as a loop over the rows whose numbers stand in `_rows`."""
        program, data = self.plan.step, self._read.dataset
        state = [np.zeros(spec.shape, "<f4") for spec in self.plan.state]
        if isinstance(self._backend, HoldsState) and not self._groups:
            return self._backend.loop(program, data, self._rows, state)
        return HostLoop(self._bind, state)

    def _bind(self, old: Sequence[Array], outputs: Sequence[Array]) -> Run:
        """Return what runs a step on the rows in `_rows`, from a state into the next and a loss."""
        program = self.plan.step
        if isinstance(self._backend, HoldsData) and not self._groups:
            return self._backend.bind_rows(program, self._read.dataset, self._rows, old, outputs)
        step = self._backend.bind(program, [self._x, self._y, *old], outputs)

        def run() -> None:
            self._read(self._rows)
            step()

        return run

    def initial_state(self) -> State:
        """Return the state before step 0."""
        return initial_state(self.plan, self.seed)

    def replay(self, index: int, state: State, key: bytes) -> tuple[State, bytes]:
        """Return the state after chunk `index`, and its custody digest under `key`.

        Raises: as `run_chunk`.
        """
        tap = Tap(key, index, self.task.chunk_steps(index)[-1])
        after = self.run_chunk(index, state, tap=tap)
        return after, tap.digest()

    @cached_property
    def _exposed(self) -> Exposed:
        return Exposed(self._backend, self.plan.step, self._x, self._y)

    def _step(self, step: int, tap: Tap | None) -> float:
        """Run a step on the rows in `_rows`; return the loss."""
        if tap is None or not tap.wants(step):
            return self._loop.step()
        self._read(self._rows)
        loss = self._exposed.step(self._loop)
        tap.absorb(step, self._exposed.registers, self._exposed.types, self._exposed.values)
        return loss

    def run_chunk(
        self,
        index: int,
        state: State,
        on_step: Callable[[int, State], None] | None = None,
        tap: Tap | None = None,
    ) -> State:
        """Return the state after chunk `index`, given the one before it.

        `on_step` sees (step, state) after every step; that state's arrays do not outlive the call.

        Raises:
            Trap: values left the exact range; `step` of the error says at which step.
        """
        assert 0 <= index < self.task.chunks, "no such chunk"
        self._loop.load(state.tensors)
        step, loss = -1, math.nan
        try:
            for step in self.task.chunk_steps(index):
                self._rows[...] = self._order.batch(step)
                loss = self._step(step, tap)
                if not math.isfinite(loss):
                    raise Trap("loss: not finite")
                if on_step is not None:
                    on_step(step, State(tuple(self._loop.state())))
            after = State(tuple(array.copy() for array in self._loop.state()))
            after.require_finite()
        except Trap as error:
            raise Trap(f"step {step}: {error.message}", step=step) from error
        self.loss = loss
        return after

    def load(self, step: int) -> tuple[Array, Array]:
        """Return x and y of a step, in arrays that the next call fills anew."""
        self._read(self._order.batch(step))
        return self._x, self._y

    def model(self, state: State) -> Model:
        """Return the model file of a state, its scales taken from the first training rows."""
        batch, rows = self.plan.batch, self.task.train_rows
        count = -(-min(CALIBRATION_ROWS, rows) // batch)
        batches = [
            self.dataset.x[np.arange(i * batch, (i + 1) * batch) % rows] for i in range(count)
        ]
        program = calibrate(self.plan, state, batches, self._backend)
        return make_model(self.plan, program, state, self.dataset.header.exponents)

    def evaluate(self, state: State) -> Metrics:
        """Return the metric of a state on the test rows.

        Raises:
            Trap: a prediction left the exact range.
            RejectedProgram: the task names no test rows.
        """
        if not self.task.test_rows:
            raise RejectedProgram("task: no test rows to evaluate on")
        model = self.model(state)
        first = self.dataset.rows - self.task.test_rows
        parameters = state.tensors[: len(model.parameters)]
        scores = predict(model.predict, parameters, self.dataset.x[first:], self._backend)
        return MEASURES[self.plan.target](scores, self.dataset.y[first:])


def run(
    task: Task,
    dataset: Dataset,
    seed: bytes,
    on_chunk: Callable[[int, State], None] | None = None,
    backend: Backend | None = None,
) -> State:
    """Train a task from the beginning to its last step; `on_chunk` sees every chunk's state."""
    trainer = Trainer(task, dataset, seed, backend)
    state = trainer.initial_state()
    for index in range(task.chunks):
        state = trainer.run_chunk(index, state)
        if on_chunk is not None:
            on_chunk(index, state)
    return state


def replay(
    task: Task,
    dataset: Dataset,
    seed: bytes,
    chunk_index: int,
    state: State,
    backend: Backend | None = None,
) -> State:
    """Return the state after one chunk, given the one before it: what a checker compares."""
    return Trainer(task, dataset, seed, backend).run_chunk(chunk_index, state)


MEASURES = {
    "class": metrics.accuracy,
    "value": metrics.mean_squared_error,
    "cluster": metrics.mean_squared_distance,
}
"""By target: how scores are measured against y."""


def _require_fit(plan: Plan, task: Task, dataset: Dataset) -> None:
    fits = {
        "class": dataset.kind == "class" and dataset.outputs <= plan.outputs,
        "value": dataset.kind == "value" and dataset.outputs == plan.outputs,
        "cluster": dataset.kind == "class",
    }
    if dataset.features != plan.features or not fits[plan.target]:
        raise RejectedProgram(
            f"task: the plan learns a {plan.target} from {plan.features} features with"
            f" {plan.outputs} outputs; the dataset holds {dataset.kind}, {dataset.features},"
            f" {dataset.outputs}"
        )
    if task.train_rows + task.test_rows > dataset.rows:
        raise RejectedProgram(
            f"task: {task.train_rows} + {task.test_rows} rows of a dataset of {dataset.rows}"
        )
