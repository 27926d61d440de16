"""Making a fraud proof: from two claims that disagree, and one party that can re-run the chunk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlchain.errors import VerificationFailed
from mlchain.ml_runtime import tree
from mlchain.ml_runtime.proof.claim import ROWS, ChunkClaim, SignedClaim, row_leaves
from mlchain.ml_runtime.proof.freivalds import multiplies
from mlchain.ml_runtime.proof.layout import ABSENT
from mlchain.ml_runtime.proof.record import (
    KIND,
    ClaimFault,
    EndFault,
    EntryFault,
    Fault,
    FraudProof,
    SeamFault,
)
from mlchain.ml_runtime.proof.search import Move, Search
from mlchain.ml_runtime.proof.trace import ChunkTrace, Tracer
from mlchain.ml_runtime.proof.verify import impossible
from mlchain.ml_runtime.state import State
from mlchain.ml_runtime.tensor import Array, Type, normalised, storage
from mlchain.ml_runtime.train import Order

Answer = Callable[[Move], Move | None]
"""The accused: takes a message of the search and answers it."""


class Accuser:
    """An honest party that found a claim wrong: it re-runs the chunk from `start` with a trace.

    `start` is the state before the chunk as the accuser knows it, `before` the accused's claim on
    the chunk before, which is needed only if the accused begins elsewhere.
    """

    def __init__(
        self,
        tracer: Tracer,
        start: State,
        accused: SignedClaim,
        before: SignedClaim | None = None,
    ) -> None:
        self.tracer, self.start = tracer, start
        self.accused, self.before = accused, before
        self.mine: ChunkTrace = tracer.trace(accused.claim.chunk, start)

    def prove(self, answer: Answer) -> FraudProof:
        """Return the proof, asking the accused (at most twice) where its claim does not suffice.

        Raises:
            VerificationFailed: the claim is right; or the accused does not answer as its claim
                binds it to; or it begins where its chunk before did not end, and `before` is
                not at hand.
        """
        return FraudProof(KIND, self.mine.job, self.accused, self._fault(answer))

    def _fault(self, answer: Answer) -> Fault:
        claim, mine = self.accused.claim, self.mine.claim
        if claim == mine:
            raise VerificationFailed("accuse: the claim is right")
        if claim.job != mine.job:
            raise VerificationFailed("accuse: the claim is about another job")
        if impossible(self.mine.job, claim):
            return ClaimFault()
        if claim.start != mine.start:
            if claim.chunk == 0:
                return ClaimFault()
            if self.before is None or self.before.claim.end == claim.start:
                raise VerificationFailed(
                    "accuse: the chunk begins in another state",
                    "give the accused's claim on the chunk before; if it agrees, dispute that one",
                )
            return SeamFault(self.before)
        if claim.trace == mine.trace:
            return self._end()
        search = Search(self.mine, claim)
        move: Move | None = search.begin()
        while move is not None:
            reply = answer(move)
            if reply is None:
                raise VerificationFailed("accuse: the accused does not answer")
            move = search.reply(reply)
        assert search.found is not None, "the search ends with a place"
        steps, entries = search.known_trees()
        return self._entry(*search.found, steps, entries)

    def _end(self) -> EndFault:
        """The trace is right, what the claim says of its end is not."""
        claim, mine = self.accused.claim, self.mine
        step = len(mine.entries) - 1
        if claim.trap != mine.claim.trap:
            traps = [t for t in (claim.trap, mine.claim.trap) if t]
            step = min(traps) - 1 - mine.first
        levels, last = mine.step_tree(step), mine.layout.last
        inner, outer = tree.opening(levels, [last]), tree.opening(mine.steps, [step])
        return EndFault(step, mine.entries[step][last], tuple(inner), tuple(outer))

    def _entry(self, step: int, place: int, steps: tree.Levels, entries: tree.Levels) -> EntryFault:
        """Open what the entry rests on, in the accused's trees, and add what its rule needs."""
        mine, layout = self.mine, self.mine.layout
        before, here = layout.premises(step == 0, place)
        values = [mine.entries[step - 1][p] for p in before] + [mine.entries[step][p] for p in here]
        earlier = tree.opening(mine.step_tree(step - 1), before) if before else []
        outer = tree.opening(steps, [step - 1, step] if before else [step])
        rule = layout.rules[place]
        begin: list[bytes] = []
        if rule.kind == "state" and step == 0 and mine.chunk > 0:
            digests = self.start.tensor_digests()
            values.append(digests[rule.part])
            begin = tree.opening(tree.grow(tree.STATE, digests), [rule.part])
        rows: list[bytes] = []
        row_siblings: list[bytes] = []
        operands: list[bytes] = []
        product = b""
        happened = not values or ABSENT not in values
        if happened and rule.kind in "xy":
            rows, row_siblings = self._rows(mine.first + step)
        last = step == len(mine.entries) - 1
        if happened and (rule.kind in ("op", "loss") or (rule.kind == "after" and last)):
            wanted = list(rule.reads)
            if rule.kind == "op" and multiplies(layout.checked, rule.op):
                wanted.append(place)
            types = layout.checked.types
            arrays = self.tracer.registers(mine.chunk, self.start, step, wanted)
            found = [canonical(types[r], a) for r, a in zip(wanted, arrays, strict=True)]
            operands, product = found[: len(rule.reads)], b"".join(found[len(rule.reads) :])
        return EntryFault(
            step,
            place,
            entries[0][place],
            tuple(values),
            tuple(tree.opening(entries, [*here, place])),
            tuple(earlier),
            tuple(outer),
            tuple(operands),
            tuple(begin),
            tuple(rows),
            tuple(row_siblings),
            product,
        )

    def _rows(self, number: int) -> tuple[list[bytes], list[bytes]]:
        """Return the rows of a step, and what opens them."""
        data, task = self.tracer.trainer.dataset, self.mine.job.task
        order = Order(self.mine.job.seed, task.train_rows, self.tracer.trainer.plan.batch)
        numbers = sorted(dict.fromkeys(order.batch(number).tolist()))
        rows = [data.x[i].tobytes() + data.y[i].tobytes() for i in numbers]
        levels = tree.grow(ROWS, row_leaves(data.x, data.y))
        return rows, tree.opening(levels, numbers)


class Accused:
    """The other side: whoever holds the trace it claimed answers with it, right or wrong."""

    def __init__(self, mine: ChunkTrace, accuser: ChunkClaim) -> None:
        self._search = Search(mine, accuser)

    def answer(self, move: Move) -> Move | None:
        """Return the answer to a message of the accuser."""
        return self._search.reply(move)


def canonical(kind: Type, array: Array) -> bytes:
    """Return the elements of a tensor as its digest takes them."""
    return np.ascontiguousarray(normalised(kind, array), storage(kind)).tobytes()
