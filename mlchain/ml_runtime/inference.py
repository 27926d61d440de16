"""Predictions: the program of a plan with its scales fixed, so that a row alone gives its bits.

In training a tensor's scale follows its largest element, so rows of a batch influence each other
in the last bits. A model file fixes the scales once, from the first training rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.ml_runtime import grid
from mlchain.ml_runtime.data import FRACTION
from mlchain.ml_runtime.machine import Backend, NumpyBackend, require_finite
from mlchain.ml_runtime.model import Model
from mlchain.ml_runtime.plan import MAX_STATE_BYTES, Plan
from mlchain.ml_runtime.program import Node, Program, check
from mlchain.ml_runtime.state import State
from mlchain.ml_runtime.tensor import Array, allocate

HEADROOM_BITS = 1
"""Static scales leave this factor of two above what calibration saw."""


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
    raw = tuple(p.tobytes() for p in parameters)
    return Model(program, raw, exponents, plan.outputs, plan.target, ())
