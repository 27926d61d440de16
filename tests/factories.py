"""A chain that grows when told to: real keys, blocks, certificates and training, no network.

    chain = make_chain(4, 2)
    job = chain.run_job()          # submitted, accepted, trained, attested, settled
    chain.store.prove(...)         # everything a node would have

Validators attest without re-running anything unless a test makes them: here is where a test forges
a chunk, drops a vote or accuses falsely, and sees what the code under test makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlchain import codec
from mlchain.consensus.work.attestation import Attestation, Outcome, Verdict
from mlchain.consensus.work.commitment import SegmentCommit, commit_id, segment_root
from mlchain.consensus.work.custody import result_root
from mlchain.consensus.work.tickets import PURPOSES
from mlchain.consensus.work.tickets import make_chain as make_ticket_chain
from mlchain.crypto import SecretKey, digest
from mlchain.errors import Trap
from mlchain.ledger.block import Block, header_id
from mlchain.ledger.commit import NIL, Vote, VoteKind, make_commit, sign_bytes
from mlchain.ledger.content import ContentStore
from mlchain.ledger.genesis import Allocation, Genesis, Member, Params
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id
from mlchain.ml_runtime import Dataset, State, Task, Trainer, make_plan
from mlchain.node.chain import Chain, Committed
from mlchain.node.duties import Duties
from mlchain.vm.context import Payload
from mlchain.vm.families.data import DATASETS, RegisterData
from mlchain.vm.families.jobs import (
    JOBS,
    PLANS,
    SEGMENTS,
    Job,
    JobState,
    Segment,
    SegmentState,
    segment_slice,
)
from mlchain.vm.families.segments import CommitSegment, MakeClaim
from mlchain.vm.families.submit import SubmitJob
from mlchain.vm.initial import write_genesis
from mlchain.vm.registry import registry_digest

CHAIN_ID = "test-1"
BOND = 10**9
SUPPLY = 10**12
START_MS = 1_700_000_000_000
BLOCK_MS = 1_000
TRANSACTION_GAS = 50_000_000

PARAMS = Params(
    propose_timeout_ms=1000, vote_timeout_ms=500, timeout_step_ms=250, block_interval_ms=50,
    heartbeat_ms=10_000, max_block_gas=2 * 10**9, attest_window=50, segment_timeout_ms=600_000,
    dispute_window=20, slash_worker=BOND // 2, slash_validator=BOND * 6 // 10,
    slash_unavailable=BOND // 100, fee_admission=BOND // 50, ticket_heights=500,
    epoch_blocks=100, max_verify_gas=10**11, unbonding_blocks=1_000,
    audit_permille=50, custody_window=100, slash_lazy=BOND // 2,
)  # fmt: skip
"""One slash puts a validator out: its bond cannot bear a second one."""

Forge = Callable[[int, State], State]
"""(chunk, the right state after it) -> the state to go on from and to commit to."""


def make_key(name: str) -> SecretKey:
    """The same name is always the same key."""
    return SecretKey(digest("mlchain/test-key", name.encode()))


def make_member(name: str, role: str, chain_id: str = CHAIN_ID) -> Member:
    """A member with its bond; validators have the tips of their hash chains."""
    tips = [
        make_ticket_chain(make_key(name), purpose, chain_id, PARAMS.ticket_heights).tip
        if role == "validator"
        else bytes(32)
        for purpose in PURPOSES
    ]
    keys = make_key(name).public, make_key(name + "/peer").public
    return Member(name, role, *keys, "127.0.0.1", 0, BOND, *tips)


def make_genesis(validators: int, workers: int, chain_id: str = CHAIN_ID) -> Genesis:
    """`validator-0`, …, `worker-0`, … with equal bonds, and `alice` with all the money."""
    members = [
        make_member(f"{role}-{index}", role, chain_id)
        for role, count in (("validator", validators), ("worker", workers))
        for index in range(count)
    ]
    alice = Allocation(make_key("alice").public, SUPPLY)
    return Genesis(chain_id, START_MS, registry_digest(), PARAMS, tuple(members), (alice,))


def make_dataset(rows: int = 60, features: int = 4, classes: int = 3) -> Dataset:
    """Blobs around one corner each: a linear model learns them in a few steps."""
    random = np.random.default_rng(7)
    labels = np.arange(rows) % classes
    x = random.normal(0, 0.2, (rows, features)) + np.eye(classes, features)[labels]
    return Dataset.from_arrays(x, labels, classes=classes)


@dataclass(frozen=True)
class JobSpec:
    """A job of 8 chunks in 2 segments that trains in a few milliseconds."""

    name: str = "blobs"
    model: str = "softmax"
    rate: str = "0.5"
    batch: int = 8
    steps: int = 16
    chunk: int = 2
    segment: int = 4
    train_rows: int = 45
    test_rows: int = 15
    tier: str = "audited"
    fee: int = 1_000_000
    seed: bytes = b""
    options: dict[str, Any] = field(default_factory=dict)


class GrowingChain:
    """One store, the keys of every member, and the blocks that a test asks for."""

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        self.keys = {member.name: make_key(member.name) for member in genesis.members}
        self.alice = make_key("alice")
        kv = MemoryKeyValue()
        self.store = Store.create_or_open(kv, genesis, lambda s: write_genesis(s, genesis))
        self.content = ContentStore(MemoryKeyValue())
        proposer = next(m.key for m in genesis.members if m.role == "validator")
        self.now_ms = 0
        """The node's own clock; moves only when a test moves it."""
        self.chain = Chain(self.store, proposer, lambda ref, commit: True, lambda: self.now_ms)
        self.duties = {
            m.key: Duties(genesis, self.keys[m.name])
            for m in genesis.members
            if m.role == "validator"
        }
        self.on_block: list[Callable[[Committed], None]] = []
        self.last_commit: Any = None

    # ---- blocks

    def send(self, payload: Payload, sender: SecretKey | None = None, price: int = 1) -> bytes:
        """Put a signed transaction into the mempool and return its id."""
        key = sender or self.alice
        nonce = self.chain.mempool.next_nonce(key.public)
        body = TransactionBody(
            self.genesis.chain_id, key.public, nonce, TRANSACTION_GAS, price, payload.KIND,
            codec.encode(payload),
        )  # fmt: skip
        data = codec.encode(sign_transaction(body, key))
        self.chain.add_transaction(data)
        return transaction_id(data)

    def grow(self, blocks: int = 1, absent: tuple[str, ...] = ()) -> Block:
        """Add blocks of what waits, signed by all validators but the `absent`; return the last."""
        for _ in range(blocks):
            block, identity = self.chain.build(self.store.head.time_ms + BLOCK_MS, self.last_commit)
            votes = [
                self.precommit(key, block.header.height, identity)
                for key in self.chain.validators.keys
                if key not in {self.keys[name].public for name in absent}
            ]
            self.last_commit = make_commit(votes)
            committed = self.chain.commit(identity, codec.encode(block), self.last_commit)
            for duties in self.duties.values():
                duties.settle(self.chain.state())
            for listener in self.on_block:
                listener(committed)
        assert header_id(block.header) == self.store.head_id
        return block

    def precommit(self, validator: bytes, height: int, block_id: bytes = NIL) -> Vote:
        """A precommit with everything the validator has to say in its extension."""
        extension = self.duties[validator].extension(height)
        message = sign_bytes(
            self.genesis.chain_id, VoteKind.PRECOMMIT, height, 0, block_id, -1, extension
        )
        signature = self._key_of(validator).sign(message)
        return Vote(VoteKind.PRECOMMIT, height, 0, block_id, validator, extension, signature)

    def _key_of(self, public: bytes) -> SecretKey:
        return next(key for key in self.keys.values() if key.public == public)

    # ---- jobs

    def submit(self, spec: JobSpec | None = None, dataset: Dataset | None = None) -> bytes:
        """Store and register data, hand in a job; return its id."""
        spec, dataset = spec or JobSpec(), dataset or make_dataset()
        data = dataset.encode()
        content = self.content.put(data)
        size = {"classes" if dataset.kind == "class" else "outputs": dataset.outputs}
        plan = make_plan(
            spec.model, features=dataset.features, optimiser="sgd", batch=spec.batch,
            rate=spec.rate, **size, **spec.options,
        )  # fmt: skip
        self.send(RegisterData(content, len(data), dataset.rows, dataset.features))
        return self.send(
            SubmitJob(
                spec.name, plan.encode(), content, spec.train_rows, spec.test_rows, spec.steps,
                spec.chunk, spec.segment, spec.tier, spec.fee,
                spec.seed,
            )
        )  # fmt: skip

    def start(self, job_id: bytes) -> Job:
        """Make blocks until the data is held, and order and workers are fixed."""
        self.grow()
        content = self.job(job_id).dataset
        dataset = DATASETS.get(self.chain.state(), content)
        for duties in self.duties.values():
            duties.add_available(content, dataset.facts)
        self.grow_until(lambda: self.job(job_id).state == JobState.RUNNING)
        return self.job(job_id)

    def run_job(
        self,
        spec: JobSpec | None = None,
        dataset: Dataset | None = None,
        forge: Forge | None = None,
        change_commit: Callable[[SegmentCommit], SegmentCommit] = lambda commit: commit,
    ) -> bytes:
        """Take a job from its submission to its end; return its id.

        `forge` and `change_commit` are what a cheating worker does, with every validator's help.
        """
        job_id = self.submit(spec, dataset)
        self.start(job_id)
        while self.job(job_id).state == JobState.RUNNING:
            self.commit_segment(job_id, forge, change_commit)
            self.finish_segment(job_id)
        return job_id

    def commit_segment(
        self,
        job_id: bytes,
        forge: Forge | None = None,
        change_commit: Callable[[SegmentCommit], SegmentCommit] = lambda commit: commit,
    ) -> Segment:
        """Train the segment that is assigned next and make the block with its commit."""
        index = self.job(job_id).hard
        commit = change_commit(self.train(job_id, index, forge))
        worker = self._key_of(self.segment(job_id, index).worker)
        identity = self.send(CommitSegment(commit), worker, price=0)
        self.grow()
        place = self.store.find_transaction(identity)
        assert place, "the commit was included"
        receipt = self.store.receipts(place[0])[place[1]]
        assert receipt.code == "ok", receipt.message
        return self.segment(job_id, index)

    def finish_segment(self, job_id: bytes) -> None:
        """Attest the committed segment by everyone and make blocks until it is HARD."""
        index = self.job(job_id).hard
        for key in self.chain.validators.keys:
            self.attest(key, job_id, index)
        self.grow_until(lambda: self.segment(job_id, index).state == SegmentState.HARD)

    def train(self, job_id: bytes, index: int, forge: Forge | None = None) -> SegmentCommit:
        """What the assigned worker computes for a segment, its files stored."""
        job, segment = self.job(job_id), self.segment(job_id, index)
        trainer = self.trainer(job)
        if index == 0:
            state = trainer.initial_state()
        else:
            before = self.segment(job_id, index - 1).commit
            state = State.decode(self.content.get(before.end_content), trainer.plan)
        start, digests, trap = state.digest(), [], 0
        first, count = job.segment_range(index)
        for chunk in range(first, first + count):
            try:
                state = trainer.run_chunk(chunk, state)
            except Trap as error:
                trap = error.step + 1
                break
            state = forge(chunk, state) if forge else state
            digests.append(state.digest())
        is_last = index == job.segments - 1 and not trap
        metrics = trainer.evaluate(state) if is_last and job.test_rows else None
        root = segment_root(
            self.genesis.chain_id, job_id, index, segment.attempt, segment.worker, first,
            tuple(digests),
        )  # fmt: skip
        return SegmentCommit(
            job_id, index, segment.attempt, start, state.digest(),
            self.content.put(state.encode()), root, self.content.put(b"".join(digests)),
            len(digests), trap, metrics,
        )  # fmt: skip

    def trainer(self, job: Job) -> Trainer:
        """The job, ready to run."""
        plan = PLANS.get(self.chain.state(), job.plan).plan
        task = Task(plan, job.steps, job.chunk, job.train_rows, job.test_rows)
        return Trainer(task, Dataset.decode(self.content.get(job.dataset)), job.order_seed)

    def attest(self, validator: bytes, job_id: bytes, index: int) -> None:
        """Let a validator say, unseen, that its slice was equal."""
        job, segment = self.job(job_id), self.segment(job_id, index)
        duties, commit = self.duties[validator], segment.commit
        ticket = duties.ticket(segment.commit_height)
        drawn = segment_slice(job, segment, validator, ticket)
        root = result_root(drawn, tuple(bytes(32) for _ in drawn))
        duties.add_attestation(Attestation(job_id, index, commit_id(commit), ticket, root))

    def accuse_falsely(self, name: str, job_id: bytes) -> None:
        """Let a validator claim fraud in a right chunk of the committed segment, and lose."""
        index = self.job(job_id).hard
        commit = self.segment(job_id, index).commit
        chunk = self.job(job_id).segment_range(index)[0]
        claim = MakeClaim(job_id, index, commit_id(commit), chunk, 0, bytes(32))
        self.send(claim, self.keys[name], price=0)
        self.grow()
        for duties in self.duties.values():
            duties.add_verdict(Verdict(job_id, index, commit_id(commit), chunk, int(Outcome.EQUAL)))
        self.grow_until(lambda: self.segment(job_id, index).state == SegmentState.COMMITTED)

    def job(self, job_id: bytes) -> Job:
        """The job's record after the last block."""
        return JOBS.get(self.chain.state(), job_id)

    def segment(self, job_id: bytes, index: int) -> Segment:
        """A segment's record after the last block."""
        return SEGMENTS.get(self.chain.state(), job_id, index)

    def grow_until(self, is_done: Callable[[], bool], most: int = 40) -> None:
        """Make blocks until something holds."""
        for _ in range(most):
            if is_done():
                return
            self.grow()
        raise AssertionError(f"not within {most} blocks")


def make_chain(n_validators: int = 1, n_workers: int = 1, chain_id: str = CHAIN_ID) -> GrowingChain:
    """A chain at its genesis."""
    return GrowingChain(make_genesis(n_validators, n_workers, chain_id))


def make_slashed_chain(blocks: int) -> GrowingChain:
    """A settled job, a validator slashed out of the set, and some blocks after it."""
    chain = make_chain(4, 1)
    chain.run_job()
    job = chain.submit()
    chain.start(job)
    chain.commit_segment(job)
    chain.accuse_falsely("validator-2", job)
    chain.grow(blocks)
    return chain


def nudge(state: State) -> State:
    """The smallest forgery: one weight moved by its last place."""
    first = state.tensors[0].copy()
    first.flat[0] = np.nextafter(first.flat[0], np.float32(2))
    return State((first, *state.tensors[1:]))
