"""Running a chunk with a trace: the digest of everything its steps compute, in two Merkle trees.

The trace is the same on every backend and for any number of shards. It is made on demand, by a
party that answers or makes an accusation; training itself does not pay for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from mlchain.errors import Trap
from mlchain.ml_runtime import tree
from mlchain.ml_runtime.data import Dataset
from mlchain.ml_runtime.grid import peak
from mlchain.ml_runtime.machine import Backend, NumpyBackend
from mlchain.ml_runtime.machine import Trace as Digests
from mlchain.ml_runtime.op import Types
from mlchain.ml_runtime.program import Program
from mlchain.ml_runtime.proof.claim import ChunkClaim, TracedJob, job_id, traced_job
from mlchain.ml_runtime.proof.layout import ABSENT, ENTRIES, STEPS, Layout
from mlchain.ml_runtime.state import State
from mlchain.ml_runtime.tensor import Array, allocate, digest
from mlchain.ml_runtime.train import Task, Trainer

Entries = list[bytes]


@dataclass(frozen=True)
class ChunkTrace:
    """The entries of every step of a chunk, and the claim they amount to."""

    layout: Layout
    job: TracedJob
    chunk: int
    start: bytes
    """Digest of the state before the chunk."""
    entries: tuple[Entries, ...]

    @property
    def first(self) -> int:
        """Number of the chunk's first step."""
        return self.job.task.chunk_steps(self.chunk).start

    def step_tree(self, index: int) -> tree.Levels:
        """Return the tree over the entries of the chunk's step `index`, counted from 0."""
        return self.layout.tree(self.first + index, self.entries[index])

    @cached_property
    def steps(self) -> tree.Levels:
        """The tree over the roots of the steps."""
        count = self.layout.count
        tops = [self.step_tree(i)[-1][0] for i in range(len(self.entries))]
        return tree.grow(STEPS, [tree.seal(ENTRIES, count, top) for top in tops])

    @cached_property
    def claim(self) -> ChunkClaim:
        """What this trace claims."""
        ends = [entries[-1] for entries in self.entries]
        trap = 1 + self.first + ends.index(ABSENT) if ABSENT in ends else 0
        root = tree.seal(STEPS, len(ends), self.steps[-1][0])
        job = job_id(self.job)
        return ChunkClaim(job, self.chunk, self.start, ends[-1], trap, len(ends), root)


class Tracer:
    """Traces chunks of one task. Not for two threads at once.

    Raises: as `Trainer`.
    """

    def __init__(
        self, task: Task, dataset: Dataset, seed: bytes, backend: Backend | None = None
    ) -> None:
        self.trainer = Trainer(task, dataset, seed, backend)
        self.job = traced_job(task, dataset, seed)
        self.layout = Layout(self.trainer.plan)
        self._backend = backend or NumpyBackend()

    def trace(self, chunk: int, start: State) -> ChunkTrace:
        """Return the trace of a chunk that begins in the state `start`."""
        found: list[Entries] = []
        for entries, _, _ in self._walk(chunk, start):
            found.append(entries)
        missing = len(self.trainer.task.chunk_steps(chunk)) - len(found)
        found += [[ABSENT] * self.layout.count for _ in range(missing)]
        return ChunkTrace(self.layout, self.job, chunk, start.digest(), tuple(found))

    def registers(self, chunk: int, start: State, index: int, wanted: Sequence[int]) -> list[Array]:
        """Return registers of the chunk's step `index`, which are filled before it traps."""
        checked, inputs = self.layout.checked, len(self.layout.checked.program.inputs)
        for number, (_, before, batch) in enumerate(self._walk(chunk, start)):
            if number < index:
                continue
            ops = [i for i, s in enumerate(checked.steps) for r in s.outputs if r in wanted]
            nodes = checked.program.nodes[: max(ops, default=-1) + 1]
            part = Program(checked.program.inputs, nodes, tuple(wanted))
            outputs = [allocate(checked.types[r]) for r in wanted]
            values = [*batch, *before]
            assert len(values) == inputs, "x, y and the state are what a step reads"
            self._backend.bind(part, values, outputs)()
            return outputs
        raise AssertionError("no such step")

    def _walk(
        self, chunk: int, start: State
    ) -> Iterator[tuple[Entries, list[Array], tuple[Array, Array]]]:
        """Yield (entries, state before, x and y) step by step, to the last or one that traps."""
        plan, layout = self.trainer.plan, self.layout
        kinds: Types = layout.checked.types
        outputs = layout.checked.program.outputs
        steps = self.trainer.task.chunk_steps(chunk)
        before, after = ([t.copy() for t in start.tensors] for _ in range(2))
        x, y = self.trainer.load(steps.start)
        loss, made = np.zeros(()), Digests()
        run = self._backend.bind(plan.step, [x, y, *before], [*after, loss], made)
        for step in steps:
            self.trainer.load(step)
            made.clear()
            read = zip(kinds, (x, y, *before), strict=False)
            entries = [digest(kind, array) for kind, array in read]
            trapped = False
            try:
                run()
            except Trap:
                trapped = True
            entries += made
            if not trapped and math.isfinite(loss):
                entries.append(entries[outputs[-1]])
                results = after if step == steps[-1] else []
                self._append_state(entries, [entries[r] for r in outputs[:-1]], results)
            entries += [ABSENT] * (layout.count - len(entries))
            yield entries, before, (x, y)
            if entries[-1] == ABSENT:
                return
            for old, new in zip(before, after, strict=True):
                np.copyto(old, new)

    def _append_state(self, entries: Entries, digests: Entries, results: Sequence[Array]) -> None:
        """Append the state after a step, as far as it is finite where that is asked for."""
        for i, value in enumerate(digests):
            if results and not math.isfinite(peak(results[i])):
                return
            entries.append(value)
        levels = tree.grow(tree.STATE, digests)
        for below, level in pairwise(levels):
            entries += level[: len(below) // 2]  # what rises to this level is an entry already
        entries.append(tree.seal(tree.STATE, len(digests), levels[-1][0]))
