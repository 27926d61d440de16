"""All shards of a program in one process, one after the other: `split` at its simplest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.machine import Arena, NumpyBackend, Run, Trace
from mlchain.ml_runtime.program import Program, check
from mlchain.ml_runtime.shard import Meeting, Shard, resume
from mlchain.ml_runtime.split import Split, split
from mlchain.ml_runtime.tensor import Array, digest


class ShardedBackend:
    """A backend that splits the rows of a program over `shards` parts; see `split`."""

    name = "sharded"

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self._numpy, self._scratch = NumpyBackend(), Scratch()
        self._arenas = [Arena() for _ in range(shards)]

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
            RejectedProgram: the program mixes rows.
        """
        plan = split(check(program), self.shards, step_by_step=trace is not None)
        shards = [
            Shard(plan, k, rows_of(plan, k, inputs), self._arenas[k], self._scratch)
            for k in range(self.shards)
        ]
        meeting = Meeting(plan, inputs, outputs, self._numpy)

        def run() -> None:
            runs = [shard.run() for shard in shards]
            reply: Array | None = None
            for i in range(len(plan.exchanges)):
                reply = meeting.reduce(i, [resume(each, reply) for each in runs])
                if trace is not None:
                    trace.extend(_observe(plan, i, shards, meeting))
            meeting.finish([resume(each, reply) for each in runs] if plan.answers else [])

        return run


def rows_of(plan: Split, shard: int, inputs: Sequence[Array]) -> dict[int, Array]:
    """Return what a shard reads of the inputs: all of the state, its rows of the others."""
    start, stop = plan.bounds(shard)
    return {r: inputs[r][start:stop] if r in plan.parts else inputs[r] for r in plan.inputs}


def _observe(plan: Split, index: int, shards: list[Shard], meeting: Meeting) -> Trace:
    """Return the digests of the one op before an exchange, given a plan made step by step."""
    digests = []
    for step in plan.segments[index]:
        for r in step.outputs:
            parts = [shard.arrays[r] for shard in shards[: None if r in plan.parts else 1]]
            whole = np.concatenate(parts) if r in plan.parts else meeting.arrays.get(r, parts[0])
            digests.append(digest(plan.checked.types[r], whole))
    return digests
