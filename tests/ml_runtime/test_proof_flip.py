"""One flipped bit in one op of a training is pinned to that op, and anybody can check it."""

from __future__ import annotations

import random

import pytest
from ml_models import data_for, task_for
from proof_lab import KEY, Flipping, Lab, accuse_falsely, judge

from mlchain import codec
from mlchain.ml_runtime import Oracle
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.proof import Outcome, hash_bytes
from mlchain.ml_runtime.proof.record import EntryFault

MAX_HASH_BYTES = 8192
LABS: dict[str, Lab] = {}


def lab_for(model: str) -> Lab:
    if model not in LABS:
        target = MODELS[model].TARGETS[0]
        data = data_for(target, model=model)
        LABS[model] = Lab(data, task_for(data, model, target, steps=8, chunk=4))
    return LABS[model]


def pin_a_flip(model: str, where: int, **options) -> int:
    """Flip a bit somewhere; check that the proof names that place; return its bytes of hashes."""
    lab, draw = lab_for(model), random.Random(where)
    steps = lab.tracer.layout.checked.steps
    chunk, at = draw.randrange(2), draw.randrange(4)
    kinds = lab.tracer.layout.checked.types
    op = draw.choice([i for i, s in enumerate(steps) if kinds[s.outputs[0]].kind != "I"])
    liar = lab.other(backend=Flipping(op, at, where))
    proof = lab.prove(liar.trace(chunk, lab.start(chunk)))
    assert isinstance(proof.fault, EntryFault)
    rule = lab.tracer.layout.rules[proof.fault.place]
    assert (rule.kind, rule.op, proof.fault.step) == ("op", op, at)
    verdict = judge(proof, **options)
    assert verdict.outcome is Outcome.FRAUD, verdict.text
    assert verdict.accused == KEY.public
    assert (verdict.chunk, verdict.step) == (chunk, 4 * chunk + at)
    assert hash_bytes(proof) < MAX_HASH_BYTES
    return hash_bytes(proof)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_is_pinned_to_its_op(model, seed):
    pin_a_flip(model, seed)


@pytest.mark.parametrize("model", MODELS)
def test_the_oracle_and_a_random_vector_come_to_the_same_verdict(model):
    pin_a_flip(model, 100, backend=Oracle())
    pin_a_flip(model, 101, seed=b"\x05" * 32, backend=Oracle())


@pytest.mark.parametrize("model", MODELS)
def test_the_verifier_loads_what_training_loads(model):
    lab = lab_for(model)
    for place in (0, 1):
        verdict = judge(accuse_falsely(lab, 3, place))
        assert verdict.outcome is Outcome.UNFOUNDED, verdict.text


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("first", range(1000, 1100, 25))
def test_a_flipped_bit_is_pinned_to_its_op_for_long(model, first):
    worst = max(pin_a_flip(model, where) for where in range(first, first + 25))
    print(f"{model}: at most {worst} bytes of hashes")


def test_a_proof_is_small_beside_its_operands():
    lab = lab_for("mlp")
    proof = lab.prove(lab.other(backend=Flipping(3, 2, 1)).trace(1, lab.start(1)))
    rest = sum(map(len, proof.fault.operands)) + len(proof.fault.product)
    assert len(codec.encode(proof)) - rest < MAX_HASH_BYTES
