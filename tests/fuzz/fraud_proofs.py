"""Proofs of fraud for the fuzzer: one of each kind."""

from __future__ import annotations

from typing import Any

from factories import make_key
from msgspec.structs import replace

from mlchain import codec
from mlchain.errors import VerificationFailed
from mlchain.ml_runtime import Dataset, Task
from mlchain.ml_runtime.proof import (
    Accused,
    Accuser,
    ChunkTrace,
    Move,
    Outcome,
    Tracer,
    sign_claim,
    verify_fraud_proof,
)


def judge_proof(data: bytes) -> None:
    """Judge a proof; what shows nothing counts as refused."""
    verdict = verify_fraud_proof(data)
    if verdict.outcome is Outcome.INVALID:
        raise VerificationFailed(verdict.text)


def make_fraud_proofs(task: Task, dataset: Dataset, seed: bytes) -> list[bytes]:
    """A proof of each kind: of entries of several kinds, of an end, a seam, a claim."""
    tracer, key = Tracer(task, dataset, seed), make_key("worker-0")
    start = tracer.trainer.initial_state()
    first = tracer.trace(0, start)
    second = tracer.trainer.run_chunk(0, start)
    honest = tracer.trace(1, second)

    def prove(lie: ChunkTrace, **changes: Any) -> bytes:
        claim = sign_claim(replace(lie.claim, **changes), key)
        accuser = Accuser(tracer, second, claim, sign_claim(first.claim, key))
        accused: list[Accused] = []

        def answer(move: Move) -> Move | None:
            if not accused:
                accused.append(Accused(lie, accuser.mine.claim))
            return accused[0].answer(move)

        return codec.encode(accuser.prove(answer))

    def changed(place: int) -> ChunkTrace:
        entries = [list(step) for step in honest.entries]
        entries[0][place] = bytes(32)
        return ChunkTrace(honest.layout, honest.job, 1, honest.start, tuple(entries))

    rules = honest.layout.rules
    kinds = {rule.kind: place for place, rule in enumerate(rules)}
    found = [prove(changed(place)) for place in kinds.values()]
    found += [prove(honest, end=bytes(32)), prove(honest, steps=1), prove(honest, start=bytes(32))]
    return found
