"""The oracle's machine: interprets a program op by op over lists of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.ml_runtime.machine import Run, Trace
from mlchain.ml_runtime.oracle.arithmetic import TWINS, Numbers, Operands
from mlchain.ml_runtime.program import Checked, Program, check
from mlchain.ml_runtime.tensor import Array, Type, digest, storage


class Oracle:
    """A backend of plain Python; see `machine.Backend`."""

    name = "oracle"

    def bind(
        self,
        program: Program,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        trace: Trace | None = None,
    ) -> Run:
        """Bind a program; see `machine.Backend`."""
        checked = check(program)

        def run() -> None:
            registers = [array.reshape(-1).tolist() for array in inputs]
            _interpret(checked, registers, trace)
            for register, array in zip(program.outputs, outputs, strict=True):
                array.reshape(-1)[:] = registers[register]

        return run


def _interpret(checked: Checked, registers: list[Numbers], trace: Trace | None) -> None:
    types = checked.types
    for step in checked.steps:
        operands = Operands(
            [registers[r] for r in step.inputs],
            [types[r].shape for r in step.inputs],
            step.attrs,
            types[step.outputs[0]].shape,
        )
        results = TWINS[step.op.name](operands)
        registers.extend(results)
        if trace is not None:
            for register, values in zip(step.outputs, results, strict=True):
                trace.append(_digest(types[register], values))


def _digest(kind: Type, values: Numbers) -> bytes:
    with np.errstate(over="ignore"):
        return digest(kind, np.array(values, storage(kind)).reshape(kind.shape))
