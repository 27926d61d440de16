"""Whatever a party signs, together with whoever accuses it, the verifier answers and stays up."""

from __future__ import annotations

import random

import numpy as np
import pytest
from ml_factory import make_values
from proof_lab import KEY, judge
from test_proof_flip import lab_for

from mlchain.ml_runtime import NumpyBackend, Oracle, tree
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.proof import FraudProof, Outcome, sign_claim
from mlchain.ml_runtime.proof.accuse import canonical
from mlchain.ml_runtime.proof.record import KIND, EntryFault
from mlchain.ml_runtime.proof.trace import ChunkTrace
from mlchain.ml_runtime.tensor import Array, Type, allocate, digest


def hostile(draw: random.Random, kind: Type) -> Array:
    """Elements of the right size, and often none that the type allows."""
    if draw.random() < 0.5:
        return make_values(draw, kind)
    if kind.kind == "I":
        bad = [-1, kind.bound, 2**62, -(2**63), 0]
    else:
        bad = [np.nan, np.inf, -np.inf, 1e308, 5e-324, -3.0, 2.0**31, 2.0**63, 0.1]
    out = allocate(kind)
    with np.errstate(all="ignore"):
        out[...] = np.array([draw.choice(bad) for _ in range(kind.elements)]).reshape(kind.shape)
    return out


def collude(model: str, seed: int) -> FraudProof:
    """A claim and a proof made to fit each other: operands of any content, well signed."""
    lab, draw = lab_for(model), random.Random(seed)
    layout = lab.tracer.layout
    places = [i for i, rule in enumerate(layout.rules) if rule.kind in ("op", "loss", "after")]
    place, step = draw.choice(places), 3
    rule = layout.rules[place]
    entries = [[bytes(32)] * layout.count for _ in range(4)]
    operands = []
    for register in rule.reads:
        kind = layout.checked.types[register]
        array = hostile(draw, kind)
        entries[step][register] = digest(kind, array)
        operands.append(canonical(kind, array))
    trace = ChunkTrace(layout, lab.tracer.job, 0, lab.start(0).digest(), tuple(entries))
    before, here = layout.premises(False, place)
    levels = trace.step_tree(step)
    fault = EntryFault(
        step,
        place,
        levels[0][place],
        tuple([entries[step - 1][p] for p in before] + [entries[step][p] for p in here]),
        tuple(tree.opening(levels, [*here, place])),
        (),
        tuple(tree.opening(trace.steps, [step])),
        tuple(operands),
        (),
        (),
        (),
        b"",
    )
    return FraudProof(KIND, trace.job, sign_claim(trace.claim, KEY), fault)


def attack(model: str, seeds: range) -> dict[Outcome, int]:
    found = dict.fromkeys(Outcome, 0)
    for seed in seeds:
        verdict = judge(collude(model, seed), backend=NumpyBackend())
        assert verdict.text
        found[verdict.outcome] += 1
        if seed % 10 == 0:
            assert judge(collude(model, seed), backend=Oracle()).outcome is verdict.outcome
    return found


@pytest.mark.parametrize("model", MODELS)
def test_any_operands_give_a_verdict_the_same_from_numpy_and_the_oracle(model):
    found = attack(model, range(40))
    assert found[Outcome.FRAUD] and found[Outcome.INVALID], "some are allowed, some are not"
    assert not found[Outcome.UNFOUNDED]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_any_operands_give_a_verdict_for_long(model):
    attack(model, range(1000, 2000))
