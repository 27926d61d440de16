"""One shard of a split program, and the place where shards meet; neither knows how bytes travel.

A shard is a coroutine: it computes, yields what it offers to an exchange, and goes on when it gets
what the exchange made of all offers. An offer is one vector of binary64; sums are written into it
by the ops themselves.

    shards = [Shard(plan, k, …) for k in range(plan.shards)]      anywhere
    meeting = Meeting(plan, inputs, outputs, backend)             in one place

    runs = [shard.run() for shard in shards]
    offers = [resume(run, None) for run in runs]
    reply = meeting.reduce(0, offers)                             then resume(run, reply), …
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mlchain.errors import CodecError
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.machine import Arena, Backend, Run, bind_step, run_all
from mlchain.ml_runtime.program import Step
from mlchain.ml_runtime.split import Exchange, Split
from mlchain.ml_runtime.tensor import Array, allocate

Conversation = Generator[Array, Array | None, list[Array]]
"""A shard at work: yields offers, is sent replies (None to begin), returns its gathered parts."""


class Shard:
    """One shard, bound to the arrays of its inputs: its rows of x and y, and the state it reads."""

    def __init__(
        self,
        plan: Split,
        index: int,
        inputs: Mapping[int, Array],
        arena: Arena | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        self.plan, self.index = plan, index
        self.arrays = {r: inputs[r] for r in plan.inputs}
        """The array of every register; intermediate ones share memory."""
        self._largest: dict[int, float] = {}
        self._offers = [np.empty(exchange.size) for exchange in plan.exchanges]
        for exchange, offer in zip(plan.exchanges, self._offers, strict=True):
            self.arrays.update(sums_in(plan, exchange, offer))
        for r in plan.gathered:
            self.arrays.setdefault(r, allocate(plan.type(r, index)))
        local = plan.local(index)
        (arena or Arena()).place(local, self.arrays)
        scratch, steps = scratch or Scratch(), iter(local.steps)
        self._calls = [[self._bind(next(steps), scratch) for _ in s] for s in plan.segments]

    def run(self) -> Conversation:
        """Run the shard once: yield offers, take replies, return the parts that are gathered.

        Raises:
            Trap: values left the exact range.
            CodecError: a reply has another size.
        """
        for i, (exchange, offer) in enumerate(zip(self.plan.exchanges, self._offers, strict=True)):
            run_all(self._calls[i])
            for at, r in enumerate(exchange.peaks):
                offer[at] = grid.peak(self.arrays[r])
            reply = yield offer
            if reply is None or reply.shape != (exchange.size_down,):
                raise CodecError(f"exchange {i}: the reply has not {exchange.size_down} numbers")
            offer[: exchange.size_down] = reply
            self._largest.update(zip(exchange.peaks, reply.tolist(), strict=False))
        run_all(self._calls[-1])
        return [self.arrays[r] for r in self.plan.gathered]

    def _bind(self, step: Step, scratch: Scratch) -> Run:
        if step.op.name == "quantise" and step.outputs[0] in self.plan.parts:
            return partial(self._quantise, step.inputs[0], step.outputs[0], int(step.attrs[0]))
        before = 0
        if step.inputs and step.inputs[0] in self.plan.parts:
            start, _ = self.plan.bounds(self.index)
            whole = self.plan.checked.types[step.inputs[0]].elements
            before = whole // self.plan.rows * start
        return bind_step(step, self.arrays, scratch, before)

    def _quantise(self, source: int, target: int, bits: int) -> None:
        grid.quantise(self.arrays[source], bits, self._largest[source], self.arrays[target])


class Meeting:
    """Where the shards of a program meet: reduces what they offer, and runs what runs once."""

    def __init__(
        self, plan: Split, inputs: Sequence[Array], outputs: Sequence[Array], backend: Backend
    ) -> None:
        self.plan = plan
        self._totals = [np.empty(exchange.size) for exchange in plan.exchanges]
        self.arrays = dict(enumerate(inputs))
        """The inputs of the whole program, and the sums."""
        for exchange, total in zip(plan.exchanges, self._totals, strict=True):
            self.arrays.update(sums_in(plan, exchange, total))
        results = list(zip(plan.checked.program.outputs, outputs, strict=True))
        self._gathered = [(r, array) for r, array in results if r in plan.parts]
        self._once = backend.bind(
            plan.once,
            [self.arrays[r] for r in plan.once_inputs],
            [array for r, array in results if r not in plan.parts],
        )

    def reduce(self, index: int, offers: Sequence[Array]) -> Array:
        """Return the reply to the offers of all shards, in their order, at one exchange.

        Raises:
            CodecError: an offer has another size, or a partial sum that is not finite.
        """
        exchange, total = self.plan.exchanges[index], self._totals[index]
        peaks = len(exchange.peaks)
        for k, offer in enumerate(offers):
            where = f"shard {k}, exchange {index}"
            if offer.shape != total.shape:
                raise CodecError(f"{where}: {offer.size} numbers, not {total.size}")
            if not np.isfinite(offer[peaks:]).all():
                raise CodecError(f"{where}: a partial sum is not finite")
        total[...] = offers[0]
        for offer in offers[1:]:
            np.maximum(total[:peaks], offer[:peaks], out=total[:peaks])
            np.add(total[peaks:], offer[peaks:], out=total[peaks:])
        return total[: exchange.size_down]

    def finish(self, gathered: Sequence[Sequence[Array]]) -> None:
        """Fill the outputs of the program, given what each shard returned.

        Raises:
            Trap: values left the exact range.
        """
        for register, output in self._gathered:
            at = self.plan.gathered.index(register)
            np.concatenate([parts[at] for parts in gathered], out=output)
        self._once()


def resume(run: Conversation, reply: Array | None) -> Any:
    """Return the next offer of a shard, or, when it is done, the list of its gathered parts."""
    try:
        return run.send(reply)
    except StopIteration as end:
        return end.value


def sums_in(plan: Split, exchange: Exchange, vector: Array) -> dict[int, Array]:
    """Return the sums of an exchange as views of its vector."""
    views, at = {}, len(exchange.peaks)
    for r in exchange.sums:
        kind = plan.checked.types[r]
        views[r] = vector[at : at + kind.elements].reshape(kind.shape)
        at += kind.elements
    return views
