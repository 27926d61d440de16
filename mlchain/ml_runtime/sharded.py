"""Splitting a batch over shards without changing a bit.

Each shard computes on its own rows. Where the whole batch meets, shards exchange two things: the
largest element before a tensor is rounded, so that all round onto one grid, and partial sums,
which are integers on that grid, so the order of adding them cannot matter. Everything else is
row by row. Here the shards run one after the other; the exchange is the same over a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import reduce

import numpy as np

from mlchain.errors import ConfigError
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.machine import Run, Trace
from mlchain.ml_runtime.op import Call, require
from mlchain.ml_runtime.program import Checked, Program, Step, check
from mlchain.ml_runtime.tensor import Array, Type, allocate, digest

Parts = list[Array]


class ShardedBackend:
    """A backend that splits the rows of the first two inputs, x and y, over `shards` parts."""

    name = "sharded"

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self._scratch = Scratch()

    def bind(
        self,
        program: Program,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        trace: Trace | None = None,
    ) -> Run:
        """Bind a program; see `machine.Backend`.

        Raises:
            ConfigError: more shards than rows.
        """
        checked = check(program)
        if not 1 <= self.shards <= len(inputs[0]):
            raise ConfigError(f"shards: {self.shards} for a batch of {len(inputs[0])} rows")

        def run() -> None:
            registers: list[Parts] = [
                np.array_split(array, self.shards) if i < 2 else [array]
                for i, array in enumerate(inputs)
            ]
            with np.errstate(all="ignore"):
                for step in checked.steps:
                    results = self._step(checked, step, registers)
                    registers.extend(results)
                    if trace is not None:
                        for r, parts in zip(step.outputs, results, strict=True):
                            trace.append(digest(checked.types[r], _join(parts)))
            for register, array in zip(program.outputs, outputs, strict=True):
                np.copyto(array, _join(registers[register]))

        return run

    def _step(self, checked: Checked, step: Step, registers: list[Parts]) -> list[Parts]:
        """Return the parts of every output of one op."""
        ins = [registers[r] for r in step.inputs]
        types = [checked.types[r] for r in step.outputs]
        split = [len(parts) > 1 for parts in ins]
        if not any(split):
            return [[out] for out in self._forward(step, types, [p[0] for p in ins])]
        whole = tuple(checked.types[r] for r in step.inputs)
        rule = step.op.sharding(split, step.attrs, whole)
        if rule == "peak":
            return [self._quantise(step, types[0], ins[0])]
        results = []
        for k in range(self.shards):
            local = [parts[k] if s else parts[0] for parts, s in zip(ins, split, strict=True)]
            first = split.index(True)
            share = Fraction(len(local[first]), whole[first].shape[0])
            kinds = types if rule == "sum" else [_share_of(t, share) for t in types]
            results.append(self._forward(step, kinds, local))
        columns = [list(column) for column in zip(*results, strict=True)]
        return [[reduce(np.add, c)] for c in columns] if rule == "sum" else columns

    def _forward(self, step: Step, types: list[Type], ins: list[Array]) -> list[Array]:
        outs = [allocate(t) for t in types]
        step.op.forward(Call(outs, ins, step.attrs, self._scratch))
        return outs

    def _quantise(self, step: Step, kind: Type, parts: Parts) -> Parts:
        largest = reduce(_larger, (grid.peak(p) for p in parts))
        outs = [allocate(_with_rows(kind, len(p))) for p in parts]
        for part, out in zip(parts, outs, strict=True):
            grid.quantise(part, int(step.attrs[0]), largest, out)
        return outs


def _larger(a: float, b: float) -> float:
    return a if a != a or a > b else b


def _share_of(kind: Type, share: Fraction) -> Type:
    """Return the type of a shard's part of a tensor: that share of its rows."""
    rows = kind.shape[0] * share if kind.shape else Fraction(1, 2)
    require(rows.denominator == 1, f"{kind} cannot be split by rows")
    return _with_rows(kind, int(rows))


def _with_rows(kind: Type, rows: int) -> Type:
    return Type(kind.kind, kind.bound, (rows, *kind.shape[1:]))


def _join(parts: Parts) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
