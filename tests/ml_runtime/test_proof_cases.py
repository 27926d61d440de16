"""Every way to lie about a chunk ends in a proof, and no honest party is convicted."""

from __future__ import annotations

import random

import numpy as np
import pytest
from ml_factory import make_dataset, make_task
from msgspec.structs import replace
from proof_lab import KEY, OTHER, Lab, accuse_falsely, claimed, forged, judge

from mlchain import codec
from mlchain.errors import Trap, VerificationFailed
from mlchain.ml_runtime import Dataset, State
from mlchain.ml_runtime.proof import FraudProof, Outcome, sign_claim
from mlchain.ml_runtime.proof import verify as verifying
from mlchain.ml_runtime.proof.claim import claim_id, job_id
from mlchain.ml_runtime.proof.record import ClaimFault, EndFault, EntryFault, SeamFault
from mlchain.ml_runtime.proof.trace import ChunkTrace

LAB = Lab()
LAYOUT = LAB.tracer.layout
HONEST = LAB.honest()
START = LAB.start(1)
SIGNED = sign_claim(HONEST.claim, KEY)
DIGEST = b"\x11" * 32


def place_of(kind: str, part: int = 0) -> int:
    return next(i for i, r in enumerate(LAYOUT.rules) if r.kind == kind and r.part == part)


def convict(lie: ChunkTrace, fault: type, lab: Lab = LAB, **options) -> FraudProof:
    """Let the liar be accused; the verdict has to be fraud, by this kind of fault."""
    proof = lab.prove(lie, **options)
    verdict = judge(proof, job=job_id(lab.tracer.job))
    assert isinstance(proof.fault, fault), proof.fault
    assert verdict.outcome is Outcome.FRAUD, verdict.text
    return proof


def put(step: int, place: int, value: bytes):
    def change(entries: list[list[bytes]]) -> None:
        entries[step][place] = value

    return change


# ---- what a liar may get wrong ----------------------------------------------------------------


@pytest.mark.parametrize("place", range(LAYOUT.count))
def test_an_entry_that_does_not_follow_is_found_wherever_it_stands(place):
    step = place % 4
    proof = convict(forged(HONEST, put(step, place, DIGEST)), EntryFault)
    assert (proof.fault.step, proof.fault.place) == (step, place)


@pytest.mark.parametrize("what", ["x", "y"])
def test_a_batch_that_is_not_the_agreed_rows_is_found_where_it_is_loaded(what):
    x, y = LAB.dataset.x.copy(), LAB.dataset.y.copy()
    x[:, 0] += what == "x"
    y[...] = (y + (what == "y")) % 3
    lie = LAB.other(dataset=Dataset(LAB.dataset.header, x, y)).trace(1, START)
    proof = convict(lie, EntryFault)
    assert proof.fault.place == place_of(what)
    assert proof.fault.step == 0


def test_rows_in_another_order_are_found_where_they_are_loaded():
    lie = LAB.other(seed=b"\x09" * 32).trace(1, START)
    assert convict(lie, EntryFault).fault.place == place_of("x")


def test_a_first_state_that_the_seed_does_not_give_is_an_impossible_claim():
    honest = LAB.start(0)
    other = State(tuple(np.zeros_like(t) for t in honest.tensors))
    convict(LAB.other().trace(0, other), ClaimFault)


def test_a_chunk_that_begins_where_the_one_before_did_not_end_is_refuted_by_the_two_claims():
    other = LAB.start(0)
    before = sign_claim(LAB.honest(0).claim, KEY)
    lie = LAB.other().trace(1, other)
    convict(lie, SeamFault, before=before)
    with pytest.raises(VerificationFailed, match="begins in another state") as refused:
        LAB.prove(lie)
    assert "claim on the chunk before" in refused.value.hint


def test_a_trace_that_does_not_begin_in_the_claimed_start_is_found():
    elsewhere = LAB.other().trace(1, LAB.start(0))
    lie = ChunkTrace(LAYOUT, HONEST.job, 1, HONEST.start, elsewhere.entries)
    proof = convict(lie, EntryFault)
    assert LAYOUT.rules[proof.fault.place].kind == "state"
    assert proof.fault.begin


def test_a_first_tensor_that_is_not_the_seed_s_is_found_without_any_state():
    lie = forged(LAB.honest(0), put(0, place_of("state", 2), DIGEST))
    proof = convict(lie, EntryFault)
    assert not proof.fault.begin


def test_a_state_that_changes_between_two_steps_is_found():
    part = place_of("state", 1)
    proof = convict(forged(HONEST, put(2, part, DIGEST)), EntryFault)
    assert (proof.fault.step, proof.fault.place) == (2, part)
    assert proof.fault.earlier


def test_a_trace_that_does_not_lead_to_the_claimed_end_is_refuted_by_its_last_entry():
    convict(HONEST, EndFault, claim=claimed(HONEST, end=DIGEST))


def test_a_trace_with_too_few_steps_is_an_impossible_claim():
    convict(HONEST, ClaimFault, claim=claimed(HONEST, steps=3))


@pytest.mark.parametrize("trap", [1, 4, 9, 2**40])
def test_a_trap_outside_the_chunk_is_an_impossible_claim(trap):
    convict(HONEST, ClaimFault, claim=claimed(HONEST, trap=trap, end=b""))


def test_a_trap_that_the_trace_does_not_show_is_refuted_by_the_end_of_that_step():
    convict(HONEST, EndFault, claim=claimed(HONEST, trap=6, end=b""))


def cut(trace: ChunkTrace, step: int, place: int) -> ChunkTrace:
    """The trace of somebody who says that it trapped there."""

    def change(entries: list[list[bytes]]) -> None:
        entries[step][place:] = [b""] * (LAYOUT.count - place)
        for later in entries[step + 1 :]:
            later[:] = [b""] * LAYOUT.count

    return forged(trace, change)


@pytest.mark.parametrize("place", range(0, LAYOUT.count, 3))
def test_a_trap_where_none_is_is_refuted_by_running_the_op(place):
    lie = cut(HONEST, 1, place)
    assert lie.claim.trap == 6
    proof = convict(lie, EntryFault)
    assert (proof.fault.step, proof.fault.place) == (1, place)


# ---- a job that does trap ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def trapping():
    """A job whose first chunk leaves the exact range."""
    data = make_dataset(classes=0, outputs=2)
    task = make_task(data, "linear", steps=40, chunk=40, optimiser="sgd", rate="1e9")
    lab = Lab(data, task)
    trace = lab.honest(0)
    assert trace.claim.trap > 1
    assert trace.claim.end == b""
    return lab, trace


def test_a_trace_names_the_step_at_which_training_traps(trapping):
    lab, trace = trapping
    with pytest.raises(Trap) as trap:
        lab.tracer.trainer.run_chunk(0, lab.start(0))
    assert trace.claim.trap == trap.value.step + 1


def test_a_hidden_trap_is_refuted_by_running_the_op(trapping):
    lab, trace = trapping

    def hide(entries: list[list[bytes]]) -> None:
        for step in entries:
            step[:] = [value or DIGEST for value in step]

    proof = convict(forged(trace, hide), EntryFault, lab)
    assert proof.fault.step == trace.claim.trap - 1


def test_nothing_comes_after_a_trap(trapping):
    lab, trace = trapping
    step = trace.claim.trap - 1
    place = trace.entries[step].index(b"") + 1
    proof = convict(forged(trace, put(step, place, DIGEST)), EntryFault, lab)
    assert (proof.fault.step, proof.fault.place) == (step, place)
    verdict = judge(proof)
    assert "after the chunk trapped" in verdict.text


def test_a_trap_denied_in_the_claim_alone_is_refuted(trapping):
    lab, trace = trapping
    convict(trace, EndFault, lab, claim=claimed(trace, trap=0, end=DIGEST))


# ---- nobody honest is convicted ---------------------------------------------------------------


@pytest.mark.parametrize("place", range(LAYOUT.count))
def test_a_false_accusation_is_unfounded_wherever_it_points(place):
    for step in (0, 3):
        verdict = judge(accuse_falsely(LAB, step, place))
        assert verdict.outcome is Outcome.UNFOUNDED, verdict.text


def test_a_right_claim_is_not_accused():
    with pytest.raises(VerificationFailed, match="the claim is right"):
        LAB.prove(HONEST)


def spoil(proof: FraudProof, draw: random.Random) -> FraudProof:
    """Change one thing in the evidence."""
    fault = proof.fault
    field = draw.choice(
        ["step", "place", "leaf", "values", "inner", "earlier", "outer", "operands", "rows"]
    )
    value = getattr(fault, field)
    if isinstance(value, int):
        value = draw.randrange(LAYOUT.count)
    elif isinstance(value, bytes):
        value = draw.randbytes(32)
    elif value:
        parts = list(value)
        i = draw.randrange(len(parts))
        way = draw.randrange(3)
        if way == 0:
            parts[i] = draw.randbytes(len(parts[i]))
        elif way == 1:
            del parts[i]
        else:
            parts.insert(i, parts[i])
        value = tuple(parts)
    return replace(proof, fault=replace(fault, **{field: value}))


@pytest.mark.parametrize("seed", range(200))
def test_no_change_of_a_proof_convicts_an_honest_party(seed):
    draw = random.Random(seed)
    proof = accuse_falsely(LAB, draw.randrange(4), draw.randrange(LAYOUT.count))
    for _ in range(draw.choice([1, 1, 2])):
        proof = spoil(proof, draw)
    assert judge(proof).outcome is not Outcome.FRAUD


def forge_against_the_honest() -> FraudProof:
    proof = accuse_falsely(LAB, 1, place_of("op"))
    return replace(proof, fault=replace(proof.fault, leaf=DIGEST))


def test_a_forged_leaf_does_not_lead_to_what_was_signed():
    verdict = judge(forge_against_the_honest())
    assert verdict.outcome is Outcome.INVALID
    assert "do not lead to the trace" in verdict.text


def test_control_without_openings_a_forged_proof_convicts_an_honest_party(monkeypatch):
    monkeypatch.setattr(verifying._Judge, "_require_trace", lambda *_: None)
    assert judge(forge_against_the_honest()).outcome is Outcome.FRAUD


def test_control_without_operand_digests_other_operands_convict_an_honest_party(monkeypatch):
    proof = accuse_falsely(LAB, 1, place_of("op"))
    zeros = tuple(bytes(len(o)) for o in proof.fault.operands)
    proof = replace(proof, fault=replace(proof.fault, operands=zeros))
    assert judge(proof).outcome is Outcome.INVALID
    monkeypatch.setattr(
        "mlchain.ml_runtime.proof.entry.digest_as_stored", lambda kind, array: AnyOf()
    )
    assert judge(proof).outcome is Outcome.FRAUD


class AnyOf:
    def __ne__(self, other: object) -> bool:
        return False


# ---- whose claim it is ------------------------------------------------------------------------


def test_a_claim_counts_only_with_its_party_s_signature():
    lie = forged(HONEST, put(1, 5, DIGEST))
    proof = LAB.prove(lie)
    blamed = replace(proof, accused=replace(proof.accused, party=OTHER.public))
    assert judge(blamed).outcome is Outcome.INVALID
    changed = replace(proof.accused, claim=replace(lie.claim, chunk=0))
    assert judge(replace(proof, accused=changed)).outcome is Outcome.INVALID


def test_a_committed_claim_needs_no_signature():
    lie = forged(HONEST, put(1, 5, DIGEST))
    proof = LAB.prove(lie)
    bare = replace(proof, accused=replace(proof.accused, signature=b""))
    assert judge(bare).outcome is Outcome.INVALID
    assert judge(bare, committed=[claim_id(lie.claim)]).outcome is Outcome.FRAUD


def test_a_proof_is_about_the_job_that_was_claimed():
    proof = LAB.prove(forged(HONEST, put(1, 5, DIGEST)))
    other = replace(proof, job=replace(proof.job, seed=DIGEST))
    assert judge(other).outcome is Outcome.INVALID
    assert judge(proof, job=DIGEST).outcome is Outcome.INVALID


def test_claims_of_two_parties_make_no_seam():
    lie = LAB.other().trace(1, LAB.start(0))
    proof = LAB.prove(lie, before=sign_claim(LAB.honest(0).claim, KEY))
    blamed = replace(proof, fault=SeamFault(sign_claim(LAB.honest(0).claim, OTHER)))
    assert judge(blamed).outcome is Outcome.INVALID


def test_bytes_that_are_not_one_canonical_proof_show_nothing():
    data = codec.encode(LAB.prove(forged(HONEST, put(1, 5, DIGEST))))
    assert verifying.verify_fraud_proof(data).outcome is Outcome.FRAUD
    for bad in (b"", data[:-1], data + b"\0", b"\xdd\xff\xff\xff\xff" + data):
        assert verifying.verify_fraud_proof(bad).outcome is Outcome.INVALID
