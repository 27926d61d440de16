"""Checking a fraud proof: from bytes alone, offline, re-executing at most one op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mlchain import codec, crypto
from mlchain.errors import CodecError, InvalidSignature, RejectedProgram, VerificationFailed
from mlchain.ml_runtime import tree
from mlchain.ml_runtime.machine import Backend, NumpyBackend
from mlchain.ml_runtime.plan import Plan, check_plan, decode_plan
from mlchain.ml_runtime.proof.claim import (
    ChunkClaim,
    SignedClaim,
    TracedJob,
    claim_id,
    job_id,
)
from mlchain.ml_runtime.proof.entry import Case
from mlchain.ml_runtime.proof.layout import ABSENT, ENTRIES, STEPS, Layout
from mlchain.ml_runtime.proof.record import (
    MAX_PROOF_BYTES,
    ClaimFault,
    EndFault,
    EntryFault,
    FraudProof,
    SeamFault,
)
from mlchain.ml_runtime.state import initial_state


class Outcome(Enum):
    """What a proof turns out to be."""

    FRAUD = "fraud"
    """The accused committed to something that is wrong."""
    UNFOUNDED = "unfounded"
    """What the accused is blamed for is right: the accuser is at fault."""
    INVALID = "invalid"
    """The file shows nothing: malformed, or not about what the accused signed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome, what was looked at, and why. `step` counts from the job's first, or is -1."""

    outcome: Outcome
    text: str
    job: bytes = b""
    accused: bytes = b""
    chunk: int = -1
    step: int = -1
    entry: str = ""


def decode_fraud_proof(data: bytes) -> FraudProof:
    """Return the proof whose canonical bytes are `data`.

    Raises:
        CodecError: larger than MAX_PROOF_BYTES, malformed, or not canonical.
    """
    return codec.decode(FraudProof, data, MAX_PROOF_BYTES)


def verify_fraud_proof(
    proof: FraudProof | bytes,
    *,
    job: bytes | None = None,
    committed: Sequence[bytes] = (),
    backend: Backend | None = None,
    seed: bytes | None = None,
) -> Verdict:
    """Judge a fraud proof, offline, with nothing but its own bytes. It never raises for them.

    `job`: the `job_id` that the proof has to be about, if the caller knows it; otherwise compare
    the one in the verdict. `committed`: ids of claims that the accused is known to have committed
    to; those need no signature. `backend` re-executes the one op, numpy unless given. `seed`: 32
    bytes drawn after the proof arrived; with them a product the proof carries is checked after
    Freivalds, where that is quicker than to repeat it, wrongly with probability at most 2^-64.
    """
    try:
        found = decode_fraud_proof(proof) if isinstance(proof, bytes) else proof
        return _Judge(found, committed, backend or NumpyBackend(), seed).judge(job)
    except (CodecError, InvalidSignature, RejectedProgram, VerificationFailed) as error:
        return Verdict(Outcome.INVALID, error.message)


class _Judge:
    """One proof under examination."""

    def __init__(
        self,
        proof: FraudProof,
        committed: Sequence[bytes],
        backend: Backend,
        seed: bytes | None,
    ) -> None:
        self.proof, self.job, self.claim = proof, proof.job, proof.accused.claim
        self.committed, self.backend, self.seed = committed, backend, seed

    def judge(self, wanted: bytes | None) -> Verdict:
        """Return the verdict. Cheap checks come first; nothing is run before openings hold."""
        name = job_id(self.job)
        if wanted is not None and name != wanted:
            raise VerificationFailed("job: the proof is about another one")
        self._require_committed(self.proof.accused)
        if self.claim.job != name:
            raise VerificationFailed("claim: it is about another job")
        plan = decode_plan(self.job.task.plan)
        check_plan(plan)
        wrong, step, entry = self._fault(plan)
        outcome = Outcome.FRAUD if wrong else Outcome.UNFOUNDED
        text = wrong or "what the accused committed to is right there"
        party = self.proof.accused.party
        return Verdict(outcome, text, name, party, self.claim.chunk, step, entry)

    def _require_committed(self, signed: SignedClaim) -> None:
        known = claim_id(signed.claim)
        if known not in self.committed:
            crypto.verify(signed.party, known, signed.signature, "claim")

    def _fault(self, plan: Plan) -> tuple[str, int, str]:
        """Return what is wrong, "" if nothing is; the step; and the entry in words."""
        wrong = impossible(self.job, self.claim)
        if wrong:
            return wrong, -1, "the claim"
        fault = self.proof.fault
        if isinstance(fault, ClaimFault):
            return self._first_state(plan), -1, "the claim"
        if isinstance(fault, SeamFault):
            return self._seam(fault.before), -1, "the state before the chunk"
        layout = Layout(plan)
        if fault.step >= self.claim.steps:
            raise VerificationFailed("fault: the chunk has no such step")
        number = self.job.task.chunk_steps(self.claim.chunk).start + fault.step
        if isinstance(fault, EndFault):
            return self._end(layout, fault, number), number, "the end of the step"
        return self._entry(plan, layout, fault, number), number, layout.describe(fault.place)

    def _first_state(self, plan: Plan) -> str:
        if self.claim.chunk or self.claim.start == initial_state(plan, self.job.seed).digest():
            return ""
        return "the first state is not the one that the seed gives"

    def _seam(self, before: SignedClaim) -> str:
        self._require_committed(before)
        if before.party != self.proof.accused.party or before.claim.job != self.claim.job:
            raise VerificationFailed("seam: the claim before is of another party or job")
        if before.claim.chunk + 1 != self.claim.chunk:
            raise VerificationFailed("seam: it is not the claim on the chunk before")
        if before.claim.end != self.claim.start:
            return "the chunk does not begin where the accused ended the one before"
        return ""

    def _end(self, layout: Layout, fault: EndFault, number: int) -> str:
        claim, value = self.claim, fault.value
        leaf = layout.leaf(number, layout.last, value)
        top = tree.climb_to_root(ENTRIES, layout.count, {layout.last: leaf}, fault.inner)
        self._require_trace({fault.step: top}, fault.outer)
        if (value == ABSENT) != (0 < claim.trap <= number + 1):
            return "the trace traps where the claim does not, or the claim where it does not"
        if fault.step == claim.steps - 1 and value != claim.end:
            return "the trace does not lead to the claimed end"
        return ""

    def _require_trace(self, steps: dict[int, bytes], siblings: Sequence[bytes]) -> None:
        if tree.climb_to_root(STEPS, self.claim.steps, steps, siblings) != self.claim.trace:
            raise VerificationFailed("openings: they do not lead to the trace that was claimed")

    def _entry(self, plan: Plan, layout: Layout, fault: EntryFault, number: int) -> str:
        claim, first = self.claim, fault.step == 0
        if fault.place >= layout.count:
            raise VerificationFailed("fault: a step has no such entry")
        rule = layout.rules[fault.place]
        begins = rule.kind == "state" and first and claim.chunk > 0
        before, here = layout.premises(first, fault.place)
        if len(fault.values) != len(before) + len(here) + begins:
            raise VerificationFailed("values: not as many as the entry rests on")
        if any(len(value) not in (0, 32) for value in fault.values):
            raise VerificationFailed("values: a digest has 32 bytes")
        if begins and fault.values[-1] == ABSENT:
            raise VerificationFailed("begin: a start has every tensor")
        earlier = dict(zip(before, fault.values, strict=False))
        known = dict(zip(here, fault.values[len(before) :], strict=False))
        leaves = {place: layout.leaf(number, place, value) for place, value in known.items()}
        leaves[fault.place] = fault.leaf
        tops = {fault.step: tree.climb_to_root(ENTRIES, layout.count, leaves, fault.inner)}
        if before:
            leaves = {p: layout.leaf(number - 1, p, value) for p, value in earlier.items()}
            earlier_top = tree.climb_to_root(ENTRIES, layout.count, leaves, fault.earlier)
            tops[fault.step - 1] = earlier_top
        self._require_trace(tops, fault.outer)
        begin = fault.values[-1] if begins else b""
        if begins:
            opened = tree.climb_to_root(tree.STATE, layout.tensors, {rule.part: begin}, fault.begin)
            if opened != claim.start:
                raise VerificationFailed("begin: it does not lead to the claimed start")
        previous = (known | {-1: earlier.get(layout.last, bytes(32))})[fault.place - 1]
        expected = ABSENT
        if previous != ABSENT:
            if ABSENT in known.values() or ABSENT in earlier.values():
                raise VerificationFailed("values: absent, then present; dispute that entry")
            case = Case(self.job, plan, layout, self.backend, self.seed)
            last = fault.step == claim.steps - 1
            begin = begin or earlier.get(layout.after + rule.part, b"")
            expected = case.expected(fault, number, last, known, begin)
        if layout.leaf(number, fault.place, expected) == fault.leaf:
            return ""
        return _words(layout, fault.place, expected, previous)


def impossible(job: TracedJob, claim: ChunkClaim) -> str:
    """Return why nobody could honestly claim this, "" if somebody could."""
    if claim.chunk >= job.task.chunks:
        return "the job has no such chunk"
    steps = job.task.chunk_steps(claim.chunk)
    if claim.steps != len(steps):
        return f"the trace covers {claim.steps} steps, the chunk has {len(steps)}"
    if claim.trap and claim.trap - 1 not in steps:
        return "the trap is claimed outside the chunk"
    if len(claim.end) != (0 if claim.trap else 32):
        return "a chunk has an end if it does not trap, and none if it does"
    return ""


def _words(layout: Layout, place: int, expected: bytes, previous: bytes) -> str:
    what = layout.describe(place)
    if previous == ABSENT:
        return f"{what}: something is claimed after the chunk trapped"
    if expected == ABSENT:
        return f"{what}: it traps, and the accused hid that or claimed something else"
    return f"{what}: it gives {expected.hex()[:16]}…, the accused committed to something else"
