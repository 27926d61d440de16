"""A job's receipt: what somebody who trusts nobody needs to check a result offline.

    genesis (the auditor's own copy)
      └─ changes: certified headers in which the validators changed, each signed by the set before
          └─ header + certificate: signed by a quorum of the last set
              └─ state proofs: job, program, model, every HARD segment with its attestations,
                 who attested and is not in the genesis file
                  └─ files, by content id: leaf lists, dataset, the states between segments

A receipt states nothing that it does not carry the proof of. `client.receipt` checks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from mlchain import codec
from mlchain.codec import ContentId, Hash, PublicKey, Record, Uint
from mlchain.consensus.work.commitment import SegmentCommit
from mlchain.consensus.work.sampling import miss_probability
from mlchain.errors import MlchainError, NotFound
from mlchain.ledger.block import Header
from mlchain.ledger.commit import Commit
from mlchain.ledger.content import ContentStore
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.merkle import StateProof
from mlchain.ledger.state import MAX_VALUE_BYTES, State
from mlchain.ledger.store import Store
from mlchain.ledger.validators import MAX_VALIDATORS, Validator, ValidatorSet
from mlchain.vm.families.jobs import (
    JOBS,
    MAX_SEGMENTS,
    PLANS,
    SEGMENTS,
    Job,
    JobState,
    Segment,
)
from mlchain.vm.families.members import VALIDATORS, validators_after
from mlchain.vm.families.models import MODELS
from mlchain.vm.families.renewal import RENEWED, find_chains
from mlchain.vm.params import get_params

MAX_ATTACHED_BYTES = 128 << 20
"""Files beyond this are left out of a receipt; the auditor brings them, or computes them again."""
MAX_RECEIPT_BYTES = MAX_ATTACHED_BYTES + (64 << 20)
MAX_FILES = 2 * MAX_SEGMENTS + 1
MAX_CHANGES = 4096
MAX_NEWCOMERS = 4096
EXACT_CHUNKS = 10_000
"""Up to here the chance of a miss is exact; beyond, a bound above it, for fractions grow."""


class Proven(Record, frozen=True):
    """An encoded record, and the proof that it stands in the state under its key."""

    value: Annotated[bytes, Meta(max_length=MAX_VALUE_BYTES)]
    proof: StateProof


class SetChange(Record, frozen=True):
    """A block after which others vote: certified by those before, it names the hash of the next.

    `validators` is that next set.
    """

    header: Header
    commit: Commit
    validators: Annotated[tuple[Validator, ...], Meta(min_length=1, max_length=MAX_VALIDATORS)]


class File(Record, frozen=True):
    """Bytes by content id."""

    content: ContentId
    data: Annotated[bytes, Meta(max_length=MAX_ATTACHED_BYTES)]


class ProvenChains(Record, frozen=True):
    """A `Renewed` record of a validator, with its number."""

    validator: PublicKey
    generation: Uint
    proven: Proven


class Receipt(Record, frozen=True):
    """Everything about one settled or trapped job, proven under the state root of `header`."""

    version: Annotated[int, Meta(ge=1, le=1)]
    genesis: Hash
    header: Header
    commit: Commit
    changes: Annotated[tuple[SetChange, ...], Meta(max_length=MAX_CHANGES)]
    job_id: Hash
    job: Proven
    plan: Proven
    model: Proven | None
    """None for a trapped job."""
    segments: Annotated[tuple[Proven, ...], Meta(max_length=MAX_SEGMENTS)]
    newcomers: Annotated[tuple[Proven, ...], Meta(max_length=MAX_NEWCOMERS)]
    """The validator records of `find_newcomers`, in that order."""
    renewed: Annotated[tuple[ProvenChains, ...], Meta(max_length=MAX_NEWCOMERS)]
    """Hash chains, registered later, that hold tickets by which segments were attested."""
    files: Annotated[tuple[File, ...], Meta(max_length=MAX_FILES)]
    """In the order of their ids, each once."""


def make_receipt(store: Store, job_id: bytes) -> Receipt:
    """Return the receipt of a job against the last block of `store`, without files.

    Everything is read from one moment, so a thread may do it while the chain goes on.

    Raises:
        NotFound: no such job, or it has not ended with a result.
    """
    header, state = read_head(store)
    job = JOBS.get(state, job_id)
    if job is None or job.state not in (JobState.SETTLED, JobState.TRAPPED):
        name = JobState(job.state).name.lower() if job else "not known"
        raise NotFound(f"job {job_id.hex()[:8]} has no receipt: it is {name}")
    model = prove_record(state, MODELS.key(job_id)) if job.state == JobState.SETTLED else None
    segments = [SEGMENTS.get(state, job_id, index) for index in range(job.hard)]
    newcomers = find_newcomers(store.genesis, [segment for segment in segments if segment])
    return Receipt(
        1, store.genesis.hash, header, store.commit(header.height),
        set_changes(store, header.height),
        job_id, prove_record(state, JOBS.key(job_id)),
        prove_record(state, PLANS.key(job.plan)), model,
        tuple(prove_record(state, SEGMENTS.key(job_id, index)) for index in range(job.hard)),
        tuple(prove_record(state, VALIDATORS.key(key)) for key in newcomers),
        tuple(
            ProvenChains(key, number, prove_record(state, RENEWED.key(key, number)))
            for key, number in _find_renewed(state, [segment for segment in segments if segment])
        ),
        (),
    )  # fmt: skip


def find_newcomers(genesis: Genesis, segments: list[Segment]) -> list[bytes]:
    """Return the keys under which segments were attested and that came after genesis, in order.

    What their tickets are elements of stands in the state alone.
    """
    founders = {member.key for member in genesis.members if member.role == "validator"}
    attested = {a.validator for segment in segments for a in segment.attestations}
    return sorted(attested - founders)


def _find_renewed(state: State, segments: list[Segment]) -> list[tuple[bytes, int]]:
    """Return (validator, generation) of the later hash chains whose tickets segments show."""
    length = get_params(state).ticket_heights
    found: dict[tuple[bytes, int], None] = {}
    for segment in segments:
        for attested in segment.attestations:
            chains = find_chains(state, attested.validator, segment.commit_height, length)
            if chains is not None and chains[0]:
                found[attested.validator, chains[0]] = None
    return sorted(found)


def attach_files(
    receipt: Receipt, content: ContentStore, max_bytes: int = MAX_ATTACHED_BYTES
) -> Receipt:
    """Return `receipt` with the files it speaks of, as far as they are here and fit.

    The most useful first: leaf lists, dataset, final state, then the other boundary states.
    """
    job = codec.decode(Job, receipt.job.value)
    files = gather_files(content, wanted_files(job, get_commits(receipt)), max_bytes)
    return replace(receipt, files=tuple(File(name, files[name]) for name in sorted(files)))


def gather_files(
    content: ContentStore, wanted: Iterable[bytes], max_bytes: int = MAX_ATTACHED_BYTES
) -> dict[bytes, bytes]:
    """Return the files of `wanted` that are here whole and fit together, the first first."""
    files: dict[bytes, bytes] = {}
    for name in wanted:
        try:
            if name not in files and content.size(name) <= max_bytes and content.has(name):
                files[name] = content.get(name, max_bytes)
                max_bytes -= len(files[name])
        except MlchainError:
            continue  # not whole, or damaged: the receipt is good without it
    return files


def wanted_files(job: Job, commits: list[SegmentCommit]) -> list[bytes]:
    """Return the content ids that a job's receipt may carry, the most useful first."""
    leaves = [commit.leaves_content for commit in commits]
    ends = [commit.end_content for commit in commits]
    return list(dict.fromkeys([*leaves, job.dataset, *ends[-1:], *ends]))


def get_commits(receipt: Receipt) -> list[SegmentCommit]:
    """Return the commits of the HARD segments, in order; nothing is checked."""
    found = (codec.decode(Segment, proven.value).commit for proven in receipt.segments)
    return [commit for commit in found if commit is not None]


def get_validators_after(state: State, height: int) -> ValidatorSet:
    """Return who may vote after the block at `height`, a past height of `state`.

    Who comes, comes once, and leaves for ever; the record says when.
    """
    return ValidatorSet(tuple(Validator(key, 1) for key in validators_after(state, height)))


def read_head(store: Store) -> tuple[Header, State]:
    """Return the last header and the state under its root, though a block may come in between."""
    while True:
        header, state = store.head, store.state()
        if state.root() == header.state_root:
            return header, state


def set_changes(store: Store, height: int) -> tuple[SetChange, ...]:
    """Return the changes of the validators before the head at `height`, each certified."""
    return tuple(
        SetChange(
            store.header(changed),
            store.commit(changed),
            store.validators_after(changed).validators,
        )
        for changed in store.set_changes
        if 0 < changed < height  # what the head itself changes concerns the blocks after it
    )


def prove_record(state: State, key: bytes) -> Proven:
    """Return a record that stands in `state`, with its proof."""
    value = state.get(key)
    assert value is not None, "the record was just read"
    return Proven(value, state.base_tree.prove(key))


# ---- numbers for people -------------------------------------------------------------------------


def miss_text(chunks: int, rerun: int, one_in: int) -> str:
    """Return the chance that re-running `rerun` of `chunks` misses a forger of 1 in `one_in`."""
    forged = -(-chunks // one_in)
    if chunks <= EXACT_CHUNKS or rerun + forged > chunks:
        return decimal_text(miss_probability(chunks, rerun, forged))
    return decimal_text(Fraction(chunks - forged, chunks) ** min(rerun, EXACT_CHUNKS))


def decimal_text(value: Fraction, digits: int = 3) -> str:
    """Return `value` >= 0 with `digits` significant digits, from whole numbers only."""
    if value == 0:
        return "0"
    bits = value.denominator.bit_length() - value.numerator.bit_length() - 1
    places = max(0, bits * 1233 >> 12)  # a little less than log10(1/value): 1233/4096 is log10(2)
    while (scaled := round(value * 10**places)) < 10 ** (digits - 1):
        places += 1
    text = str(scaled).rjust(places + 1, "0")
    whole, part = text[: len(text) - places], text[len(text) - places :].rstrip("0")
    if len(part) <= 9 or whole != "0":
        return f"{whole}.{part}" if part else whole
    mantissa = part.lstrip("0")
    exponent = len(part) - len(mantissa) + 1
    return f"{mantissa[0]}.{mantissa[1:] or '0'}e-{exponent}"
