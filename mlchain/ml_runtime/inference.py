"""Predictions: the program of a plan with its scales fixed, so that a row alone gives its bits.

In training a tensor's scale follows its largest element, so rows of a batch influence each other
in the last bits. A model file fixes the scales once, from the first training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from mlchain.codec import Record
from mlchain.errors import ConfigError, RejectedProgram
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.data import FRACTION, Exponent, is_in_range, quantise_rows
from mlchain.ml_runtime.machine import Backend, NumpyBackend, plan_arena, require_finite
from mlchain.ml_runtime.plan import MAX_ARENA_BYTES, MAX_FEATURES, MAX_STATE_BYTES, Plan
from mlchain.ml_runtime.program import Node, Program, check
from mlchain.ml_runtime.state import State
from mlchain.ml_runtime.tensor import Array, allocate, finite
from mlchain.ml_runtime.tensor import grid as grid_type

HEADROOM_BITS = 1
"""Static scales leave this factor of two above what calibration saw."""


class Model(Record, frozen=True):
    """A trained model: the program with static scales, its parameters, the scales of x."""

    predict: Program
    parameters: Annotated[tuple[bytes, ...], Meta(max_length=4096)]
    """Little-endian binary32 elements of each parameter, in order."""
    exponents: Annotated[tuple[Exponent, ...], Meta(min_length=1, max_length=MAX_FEATURES)]
    outputs: Annotated[int, Meta(ge=1)]

    def scores(self, x: Any, backend: Backend | None = None) -> Array:
        """Return the scores of rows of raw features, rows x outputs.

        Raises:
            RejectedProgram: the program is refused, or the parameters are not those it reads.
            ConfigError: another number of features, or a number outside the domain.
            Trap: a score is not finite.
        """
        self._require_sound()
        rows = np.asarray(x, np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.exponents) or not is_in_range(rows):
            raise ConfigError(
                f"predict: x has to be rows of {len(self.exponents)} numbers, 0 or of magnitude"
                " 2^-100 to 2^100"
            )
        kinds = self.predict.inputs[1:]
        tensors = [
            np.frombuffer(raw, "<f4", kind.elements).reshape(kind.shape)
            for raw, kind in zip(self.parameters, kinds, strict=True)
        ]
        return predict(self.predict, tensors, quantise_rows(rows, self.exponents), backend)

    def _require_sound(self) -> None:
        """Reject a file whose parts do not fit together, before its numbers are looked at."""
        checked = check(self.predict)
        x, *parameters = self.predict.inputs or (None,)
        result = checked.types[self.predict.outputs[0]]
        if (
            x is None
            or len(x.shape) != 2
            or x.shape[1] != len(self.exponents)
            or (
                x != grid_type(grid.PRODUCT_BITS, *x.shape)
                or result != finite(x.shape[0], self.outputs)
                or any(p.kind != "S" for p in parameters)
                or [p.bytes for p in parameters] != [len(raw) for raw in self.parameters]
                or plan_arena(checked)[1] > MAX_ARENA_BYTES
            )
        ):
            raise RejectedProgram("model: program, parameters and scales do not fit together")


def predict(
    program: Program,
    parameters: Sequence[Array],
    mantissas: Array,
    backend: Backend | None = None,
) -> Array:
    """Return the scores of int16 rows, batch by batch; the last batch is filled up with zeros."""
    types = check(program).types
    x, scores = allocate(types[0]), allocate(types[program.outputs[0]])
    run = (backend or NumpyBackend()).bind(program, [x, *parameters], [scores])
    batch, rows = len(x), len(mantissas)
    out = np.empty((rows, scores.shape[1]))
    for start in range(0, rows, batch):
        part = mantissas[start : start + batch]
        np.multiply(part, 2.0**-FRACTION, out=x[: len(part)])
        x[len(part) :] = 0.0
        run()
        require_finite([scores])
        out[start : start + batch] = scores[: len(part)]
    return out


def calibrate(plan: Plan, state: State, batches: Sequence[Array], backend: Backend) -> Program:
    """Return the program of predictions with every scale that depends on rows made static.

    Each becomes the power of two above the largest value seen in `batches` of int16 rows, with
    HEADROOM_BITS to spare; larger values saturate. Scales of parameters stay as they are.
    """
    program = plan.predict
    checked = check(program)
    depends = {0}
    found: list[tuple[int, int]] = []  # (node, register that is quantised)
    for i, step in enumerate(checked.steps):
        if depends.intersection(step.inputs):
            depends.update(step.outputs)
            if step.op.name == "quantise":
                found.append((i, step.inputs[0]))
    registers = tuple(r for _, r in found)
    peaks = dict.fromkeys(registers, 0.0)
    if registers:
        probe = Program(program.inputs, program.nodes, registers)
        x = allocate(checked.types[0])
        outputs = [allocate(checked.types[r]) for r in registers]
        parameters = state.tensors[: len(program.inputs) - 1]
        run = backend.bind(probe, [x, *parameters], outputs)
        for rows in batches:
            np.multiply(rows, 2.0**-FRACTION, out=x)
            run()
            for register, array in zip(registers, outputs, strict=True):
                peaks[register] = max(peaks[register], grid.peak(array))
    nodes = list(program.nodes)
    for i, register in found:
        exponent = grid.exponent_of(peaks[register]) + HEADROOM_BITS if peaks[register] else 0
        bits = program.nodes[i].attributes[0]
        nodes[i] = Node("saturate", program.nodes[i].inputs, (bits, max(exponent, -400)))
    return Program(program.inputs, tuple(nodes), program.outputs)


def make_model(plan: Plan, program: Program, state: State, exponents: tuple[int, ...]) -> Model:
    """Return the model file of a calibrated program and the parameters it reads."""
    parameters = state.tensors[: len(program.inputs) - 1]
    assert sum(p.nbytes for p in parameters) <= MAX_STATE_BYTES, "check_plan bounds the state"
    return Model(program, tuple(p.tobytes() for p in parameters), exponents, plan.outputs)
