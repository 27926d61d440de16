"""The portable fraud proof as a record: what is accused, and what shows it.

A proof carries its whole case: the job, the claim with the accused's signature, and one *fault*.
There are four, so that a forger who keeps its books consistent and one who does not are both met:

    claim   the claim alone is impossible: wrong count of steps, wrong first state
    seam    the claim does not begin where the accused's claim on the chunk before ended
    end     the trace does not lead to the claimed end, or to the claimed trap
    entry   one entry of the trace does not follow from those it rests on
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain.codec import Hash, Record, Uint
from mlchain.ml_runtime.plan import MAX_BATCH
from mlchain.ml_runtime.proof.claim import Digest, SignedClaim, TracedJob

MAX_PROOF_BYTES = 1 << 30
MAX_PREMISES = 32
MAX_SIBLINGS = 1024

Siblings = Annotated[tuple[Hash, ...], Meta(max_length=MAX_SIBLINGS)]
Tensors = Annotated[tuple[bytes, ...], Meta(max_length=MAX_PREMISES)]


class ClaimFault(Record, frozen=True, tag="claim"):
    """The claim contradicts itself or the job."""


class SeamFault(Record, frozen=True, tag="seam"):
    """`before`: the accused's claim on the chunk before, which ended in another state."""

    before: SignedClaim


class EndFault(Record, frozen=True, tag="end"):
    """`value`: the last entry of the chunk's step `step`, opened by `inner` and then `outer`."""

    step: Uint
    value: Digest
    inner: Siblings
    outer: Siblings


class EntryFault(Record, frozen=True, tag="entry"):
    """The entry `place` of the chunk's step `step`, whose leaf in the accused's trace is `leaf`.

    `values` are the entries that `Layout.premises` names, those of the step before first. `inner`
    opens all of them that are of this step, and the leaf; `earlier` those of the step before;
    `outer` both steps. Then what the rule of the entry needs:

    - `operands`: tensors as canonical bytes, in ascending order of their registers;
    - `begin`: digest of a tensor of the start state, and what opens it under the claim's `start`;
    - `rows`: rows of the dataset by ascending number, each mantissas and then targets, and
      `row_siblings`, which open them;
    - `product`: the right result of a product, for those who check it instead of repeating it.
    """

    step: Uint
    place: Uint
    leaf: Hash
    values: Annotated[tuple[Digest, ...], Meta(max_length=MAX_PREMISES)]
    inner: Siblings
    earlier: Siblings
    outer: Siblings
    operands: Tensors
    begin: Siblings
    rows: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BATCH)]
    row_siblings: Annotated[tuple[Hash, ...], Meta(max_length=32 * MAX_BATCH)]
    product: bytes


Fault = ClaimFault | SeamFault | EndFault | EntryFault


class FraudProof(Record, frozen=True):
    """An accusation that anybody can check offline. Files of it end in `.fraud`."""

    kind: Annotated[str, Meta(pattern="^mlchain/fraud/1$")]
    job: TracedJob
    accused: SignedClaim
    fault: Fault


KIND = "mlchain/fraud/1"


def hash_bytes(proof: FraudProof) -> int:
    """Return the bytes of hashes in a proof: all but program, signatures, tensors and rows."""
    fault = proof.fault
    parts: list[bytes] = [proof.accused.claim.start, proof.accused.claim.end]
    parts += [proof.accused.claim.job, proof.accused.claim.trace]
    if isinstance(fault, SeamFault):
        parts += [fault.before.claim.start, fault.before.claim.end, fault.before.claim.trace]
    if isinstance(fault, EndFault):
        parts += [fault.value, *fault.inner, *fault.outer]
    if isinstance(fault, EntryFault):
        parts += [fault.leaf, *fault.values, *fault.inner, *fault.earlier, *fault.outer]
        parts += [*fault.begin, *fault.row_siblings]
    return sum(map(len, parts))
