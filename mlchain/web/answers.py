"""What the API answers, as types: the schemas of `/openapi.json` and of the commands are made here.

Keys and hashes are lower hex, content ids base32 text, times milliseconds since 1970 (UTC), amounts
micro-credits. An integer beyond 2^53 is text, hence `Amount`. Readers must expect further fields.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

Amount = int | str  # a whole number; text of it if a reader might round it


class Okay(TypedDict):
    """The node is well."""

    ok: bool


class GivenChunks(TypedDict):
    """What one peer gave of a snapshot; `refused`: something it gave was proven wrong."""

    name: str
    chunks: int
    refused: bool


class StateSync(TypedDict):
    """How far a node is with fetching the state at block `height`, 0 while none is chosen.

    `phase` is looking, fetching or installing; `bytes` counts since the process began.
    """

    phase: str
    height: int
    chunks: int
    of: int
    bytes: int
    peers: list[GivenChunks]


class Problem(TypedDict):
    """Why a request failed (RFC 9457), with a stable `code` and what to do next."""

    status: int
    title: str
    code: str
    detail: str
    hint: str
    progress: NotRequired[StateSync]


class PeerRow(TypedDict):
    """Another node and the link to it."""

    name: str
    role: str
    connected: bool
    last_seen_ms: int | None


class Status(TypedDict):
    """What a node is, and knows of chain and peers; `kept` is its first whole block.

    With `state_sync` it has no chain yet, and the rest is of block 0.
    """

    name: str
    role: str
    roles: list[str]
    chain_id: str
    genesis: str
    height: int
    kept: int
    block_id: str
    time_ms: int
    validators: int
    mempool: int
    chains_end: int
    syncing: bool
    peers: list[PeerRow]
    state_sync: NotRequired[StateSync]


class AccountRow(TypedDict):
    """An account; one that nobody used is empty, not missing."""

    address: str
    key: str
    name: str
    balance: Amount
    nonce: int


class FaultRow(TypedDict):
    """A punished misdeed, of a worker in a job or of a validator anywhere."""

    offender: str
    offender_key: str
    role: str
    kind: str
    job: str | None
    segment: int | None
    chunk: int | None
    slashed: Amount
    finders: list[str]
    height: int


class WorkerRow(TypedDict):
    """Who trains."""

    name: str
    key: str
    address: str
    bond: Amount
    jailed: bool
    jailed_height: int
    faults: list[FaultRow]


class ValidatorRow(WorkerRow):
    """Who votes; its hash chains are opened up to `ticket_height`, registered to `chains_end`."""

    weight: int
    ticket_height: int
    chains_end: int


class Validators(TypedDict):
    """All validators, jailed ones too."""

    validators: list[ValidatorRow]


class Workers(TypedDict):
    """All workers, jailed ones too."""

    workers: list[WorkerRow]


class BlockHead(TypedDict):
    """A block as a row of a list or an event of the stream; the counts say how many it holds."""

    height: int
    id: str
    time_ms: int
    proposer: str
    proposer_key: str
    transactions: int
    finalised: int
    evidence: int
    gas_used: Amount


class Blocks(TypedDict):
    """Blocks, newest first; `before` asks for the next page, null: there is none."""

    blocks: list[BlockHead]
    before: int | None


class BlockTransaction(TypedDict):
    """A transaction of a block, and how it turned out."""

    id: str
    code: str
    gas_used: Amount
    kind: str
    sender: str
    nonce: int


class SegmentName(TypedDict):
    """A segment that a block finalises."""

    job: str
    segment: int


class BlockView(TypedDict):
    """A block; `header` holds every field that its id is the hash of."""

    height: int
    id: str
    time_ms: int
    proposer: str
    proposer_key: str
    transactions: list[BlockTransaction]
    finalised: list[SegmentName]
    evidence: int
    gas_used: Amount
    header: dict[str, Any]
    round: int | None
    signed_by: list[str]


class TransactionView(TypedDict):
    """Where a transaction stands: pending, included, replaced or unknown.

    `kind`, `sender` and `nonce` are there where the transaction is.
    """

    id: str
    state: str
    height: int | None
    index: int | None
    code: str | None
    gas_used: Amount | None
    message: str | None
    events: list[str]
    kind: NotRequired[str]
    sender: NotRequired[str]
    nonce: NotRequired[int]
    replaced_by: NotRequired[str]


class Submitted(TypedDict):
    """The id of a transaction that was taken."""

    id: str


class Reason(TypedDict):
    """Why one transaction of a batch was not taken."""

    code: str
    detail: str
    hint: str


class BatchRow(TypedDict):
    """One transaction of a batch: its id, or why not."""

    id: NotRequired[str]
    error: NotRequired[Reason]


class Batch(TypedDict):
    """The transactions of a batch, in its order."""

    transactions: list[BatchRow]


class Score(TypedDict):
    """A score; `value` is exact up to rounding it for print."""

    name: str
    correct: Amount
    total: Amount
    value: str


class Progress(TypedDict):
    """Chunks that are committed, or done by this node's own worker."""

    done_chunks: int
    total_chunks: int


class JobRow(TypedDict):
    """A job as a row of a list."""

    id: str
    name: str
    state: str
    submitter: str
    submitter_key: str
    tier: str
    fee: Amount
    gas: Amount
    steps: int
    chunk: int
    chunks: int
    dataset: str
    train_rows: int
    test_rows: int
    submitted_ms: int
    height: int
    progress: Progress
    metrics: Score | None
    model: str | None
    state_digest: str | None


class Jobs(TypedDict):
    """Jobs, newest first; `before` asks for the next page, null: there is none."""

    jobs: list[JobRow]
    before: str | None


class SegmentRow(TypedDict):
    """A part of a job; `slices` says how many chunks each validator re-ran."""

    index: int
    state: str
    worker: str
    worker_key: str
    attempt: int
    first: int
    chunks: int
    deadline_ms: int
    commit_height: int | None
    end_digest: str | None
    end: str | None
    trap_step: int | None
    slices: dict[str, int]
    chunks_rerun: int
    chunks_reviewed: int
    chunks_seen: int
    attestations: list[str]
    disputed_chunk: int | None
    hard_height: int | None


class Verified(TypedDict):
    """What of a job was re-run, and how likely a sample so large misses forged chunks."""

    rerun: int
    reviewed: int
    seen: int
    chunks: int
    by: list[str]
    of: int
    miss_1_in_10: str
    miss_1_in_100: str


class JobView(JobRow):
    """A job with its segments, its faults, and what of it was checked by whom."""

    seed: str | None
    order_seed: str
    segments: list[SegmentRow]
    total_segments: int
    faults: list[FaultRow]
    verified: Verified


class FraudName(TypedDict):
    """A fraud file that this node made."""

    job: str
    segment: int
    attempt: int
    chunk: int


class FraudFiles(TypedDict):
    """The fraud files about one job."""

    files: list[FraudName]


class ModelRow(TypedDict):
    """What a settled job left behind: `model` is the content id of its encoded state."""

    job: str
    name: str
    owner: str
    owner_key: str
    plan: str
    dataset: str
    model: str
    state_digest: str
    metrics: Score | None
    height: int
    revoked_height: int | None


class Models(TypedDict):
    """Models, newest first; `before` asks for the next page, null: there is none."""

    models: list[ModelRow]
    before: str | None


class ProtocolRow(TypedDict):
    """Rules of the chain: a version, the digest of its tables, and from which block on."""

    version: int
    registry: str
    height: int


class ProposalView(TypedDict):
    """A change that members may approve: `approved` is the weight behind it while it is open."""

    number: int
    author: str
    approvals: list[str]
    own: bool
    height: int
    last_epoch: int
    digest: str
    change: dict[str, Any]
    approved: NotRequired[int]
    outcome: NotRequired[str]
    reason: NotRequired[str]
    decided_height: NotRequired[int]


class GovernanceView(TypedDict):
    """Epoch, parameters, rules, members and proposals."""

    epoch: int
    next_epoch_height: int
    quorum: int
    params: dict[str, Any]
    protocol: ProtocolRow
    planned: ProtocolRow | None
    members: list[dict[str, Any]]
    open: list[ProposalView]
    decided: list[ProposalView]


class GenesisFile(TypedDict):
    """The genesis file; its own page says what the fields mean."""

    chain_id: str
