"""A training under dispute: an accused who may lie in any way, and an accuser who found it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from ml_factory import SEED, make_dataset, make_task
from msgspec.structs import replace

from mlchain import codec
from mlchain.crypto import SecretKey
from mlchain.ml_runtime import Dataset, NumpyBackend, State, Task
from mlchain.ml_runtime.machine import Run, Trace
from mlchain.ml_runtime.program import Program, check
from mlchain.ml_runtime.proof import (
    Accused,
    Accuser,
    ChunkTrace,
    FraudProof,
    Move,
    SignedClaim,
    Tracer,
    Verdict,
    sign_claim,
    verify_fraud_proof,
)
from mlchain.ml_runtime.proof.layout import op_program
from mlchain.ml_runtime.proof.record import KIND
from mlchain.ml_runtime.tensor import Array, allocate, digest

KEY, OTHER = SecretKey(b"\x01" * 32), SecretKey(b"\x02" * 32)


class Flipping:
    """A backend whose memory fails once: one bit of one op's output, at one run of its program."""

    name = "flipping"

    def __init__(self, op: int, at: int, seed: int) -> None:
        self.op, self.at, self.draw = op, at, random.Random(seed)

    def bind(
        self,
        program: Program,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        trace: Trace | None = None,
    ) -> Run:
        checked, ran = check(program), 0
        numpy = NumpyBackend()

        def run() -> None:
            nonlocal ran
            registers = list(inputs)
            for i, step in enumerate(checked.steps):
                outs = [allocate(checked.types[r]) for r in step.outputs]
                reads = [registers[r] for r in sorted(dict.fromkeys(step.inputs))]
                numpy.bind(op_program(checked, i), reads, outs)()
                if ran == self.at and i == self.op:
                    self.flip([checked.types[r] for r in step.outputs], outs)
                registers += outs
                if trace is not None:
                    kinds = [checked.types[r] for r in step.outputs]
                    trace.extend(map(digest, kinds, outs))
            ran += 1
            for register, array in zip(program.outputs, outputs, strict=True):
                np.copyto(array, registers[register])

        return run

    def flip(self, kinds: list, outs: list[Array]) -> None:
        """Turn one bit over, such that the value changes: the sign of zero is none."""
        which = self.draw.randrange(len(outs))
        before = digest(kinds[which], outs[which])
        raw = outs[which].reshape(-1).view(np.uint8)
        while digest(kinds[which], outs[which]) == before:
            raw[self.draw.randrange(raw.size)] ^= 1 << self.draw.randrange(8)


class Lab:
    """One task, traced honestly by `tracer`."""

    def __init__(self, dataset: Dataset | None = None, task: Task | None = None) -> None:
        self.dataset = dataset or make_dataset()
        self.task = task or make_task(self.dataset, steps=10, chunk=4, hidden=(5,))
        self.tracer = Tracer(self.task, self.dataset, SEED)

    def start(self, chunk: int) -> State:
        """The honest state before a chunk."""
        state = self.tracer.trainer.initial_state()
        for index in range(chunk):
            state = self.tracer.trainer.run_chunk(index, state)
        return state

    def honest(self, chunk: int = 1) -> ChunkTrace:
        return self.tracer.trace(chunk, self.start(chunk))

    def other(self, **options) -> Tracer:
        """A tracer that computes something else: other data, another seed, another backend."""
        task, data, seed = (
            options.get(k, v)
            for k, v in (("task", self.task), ("dataset", self.dataset), ("seed", SEED))
        )
        liar = Tracer(task, data, seed, options.get("backend"))
        liar.job = self.tracer.job  # what it claims to compute
        return liar

    def prove(
        self,
        lie: ChunkTrace,
        claim: SignedClaim | None = None,
        before: SignedClaim | None = None,
        log: list[Move] | None = None,
    ) -> FraudProof:
        """Let an honest accuser dispute a trace, or the claim about it."""
        signed = claim or sign_claim(lie.claim, KEY)
        accuser = Accuser(self.tracer, self.start(signed.claim.chunk), signed, before)
        return accuser.prove(partial(self._answer, lie, accuser, {}, [] if log is None else log))

    def _answer(
        self, lie: ChunkTrace, accuser: Accuser, kept: dict, log: list[Move], move: Move
    ) -> Move | None:
        side = kept.setdefault("side", Accused(lie, accuser.mine.claim))
        answer = side.answer(move)
        log += [move] if answer is None else [move, answer]
        return answer


def forged(trace: ChunkTrace, change: Callable[[list[list[bytes]]], None]) -> ChunkTrace:
    """The same trace with some entries changed."""
    entries = [list(step) for step in trace.entries]
    change(entries)
    return ChunkTrace(trace.layout, trace.job, trace.chunk, trace.start, tuple(entries))


def claimed(trace: ChunkTrace, **changes) -> SignedClaim:
    """A signed claim that says something else than the trace."""
    return sign_claim(replace(trace.claim, **changes), KEY)


def accuse_falsely(lab: Lab, step: int, place: int, chunk: int = 1) -> FraudProof:
    """The best proof there is against an honest party: everything in it is true."""
    honest = lab.honest(chunk)
    signed = sign_claim(honest.claim, KEY)
    accuser = Accuser(lab.tracer, lab.start(chunk), signed)
    fault = accuser._entry(step, place, honest.steps, honest.step_tree(step))
    return FraudProof(KIND, honest.job, signed, fault)


def judge(proof: FraudProof, **options) -> Verdict:
    """The verdict on a proof that went over the wire."""
    return verify_fraud_proof(codec.encode(proof), **options)
