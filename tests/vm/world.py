"""A chain whose every block a test composes by hand, good or bad; nothing trains, nothing travels.

    world = World()                        # 4 validators, 2 workers, alice with money
    job = world.running()                  # submitted, held by all, order and worker fixed
    world.commit(job)                      # the worker's commit is on chain
    world.attest(job); world.block()       # everybody's attestation rides in the precommits
    world.block(finalise=(world.ref(job),))

Every block is executed twice, by its proposer and by a second node, and must conserve the supply:
each test of this folder checks both without saying so. States of training are made-up digests.
"""

from __future__ import annotations

from typing import Any

from factories import make_key
from msgspec.structs import replace
from vm.ground import (  # noqa: F401  tests have all of it from here
    AHEAD,
    BLOCK_MS,
    BOND,
    CHAIN,
    CONTENT,
    FEATURES,
    GAS,
    JOB,
    PARAMS,
    PARTS,
    ROWS,
    SUPPLY,
    chain_of,
    make_genesis,
    make_member,
    plan,
)  # fmt: skip

from mlchain import codec
from mlchain.consensus.evidence import vote_evidence
from mlchain.consensus.work.attestation import Attestation, Available, Extension, Outcome, Verdict
from mlchain.consensus.work.commitment import SegmentCommit, commit_id, segment_root
from mlchain.consensus.work.custody import key_due
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.consensus.work.tickets import BEACON, CUSTODY, TICKETS
from mlchain.crypto import SecretKey, digest
from mlchain.ledger.block import Block, Body, Receipt, SegmentRef, header_id
from mlchain.ledger.commit import NIL, Commit, Vote, VoteKind, make_commit, sign_bytes
from mlchain.ledger.genesis import Genesis, Member
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.state import State
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id
from mlchain.ml_runtime import Metrics
from mlchain.vm.context import Payload
from mlchain.vm.cover import finality_depth
from mlchain.vm.execute import Outcome as Executed
from mlchain.vm.execute import build_block, check_block
from mlchain.vm.families.accounts import get_account
from mlchain.vm.families.announcements import Announce, announcement
from mlchain.vm.families.changes import (
    AddMember,
    AnyChange,
    ReplaceKeys,
    change_digest,
    ready_bytes,
)
from mlchain.vm.families.data import DATASETS, RegisterData
from mlchain.vm.families.governance import DECIDED, Approve, Propose
from mlchain.vm.families.jobs import (
    JOBS,
    SEGMENTS,
    Job,
    JobState,
    Segment,
    SegmentState,
    segment_slice,
)
from mlchain.vm.families.members import (
    FAULTS,
    MEMBERS,
    VALIDATORS,
    WORKERS,
    Fault,
    get_validator_set,
    same_schedule_since,
)
from mlchain.vm.families.models import MODEL_FILES
from mlchain.vm.families.renewal import find_chains
from mlchain.vm.families.segments import CommitSegment, MakeClaim
from mlchain.vm.initial import compute_supply, write_genesis
from mlchain.vm.votes import NO_ELEMENT


class World:
    """One ledger, everybody's keys, and what the next precommits will carry."""

    def __init__(self, validators: int = 4, workers: int = 2, genesis: Genesis | None = None):
        self.genesis = genesis or make_genesis(validators, workers)
        self.store = Store.create_or_open(
            MemoryKeyValue(), self.genesis, lambda state: write_genesis(state, self.genesis)
        )
        people = [m.name for m in self.genesis.members] + ["alice"]
        self.names = {make_key(name).public: name for name in people}
        self.last_commit: Commit | None = None
        self.saying: dict[str, dict[str, tuple[Any, ...]]] = {}
        self.absent: tuple[str, ...] = ()  # validators missing in the next certificates
        self.supply = compute_supply(self.state())

    # ---- reading

    def state(self) -> State:
        return self.store.state()

    @property
    def height(self) -> int:
        return self.store.height

    @property
    def validators(self) -> list[str]:
        """Names of those who vote on the next block, in key order."""
        return [self.names[key] for key in get_validator_set(self.state()).keys]

    def job(self, job: bytes) -> Job:
        record = JOBS.get(self.state(), job)
        assert record is not None
        return record

    def find_segment(self, job: bytes, index: int = 0) -> Segment | None:
        return SEGMENTS.get(self.state(), job, index)

    def segment(self, job: bytes, index: int = 0) -> Segment:
        record = self.find_segment(job, index)
        assert record is not None
        return record

    def worker_of(self, job: bytes, index: int = 0) -> str:
        return self.names[self.segment(job, index).worker]

    def balance(self, name: str) -> int:
        return get_account(self.state(), make_key(name).public).balance

    def bond(self, name: str) -> int:
        key = make_key(name).public
        record = VALIDATORS.get(self.state(), key) or WORKERS.get(self.state(), key)
        assert record is not None
        return record.bond

    def faults(self) -> list[Fault]:
        return [fault for _, fault in FAULTS.items(self.state())]

    def key(self, name: str) -> SecretKey:
        return make_key(name)

    # ---- governance

    def newcomer(self, name: str, role: str = "validator", /, **changes: Any) -> Member:
        """Who a newcomer would be; its name is known from now on."""
        self.names[make_key(name).public] = name
        made = make_member(name, role, self.genesis.chain_id, self.genesis.params)
        return replace(made, **changes)

    def ready(self, member: Member, until: int = 10**6, key: str = "") -> bytes:
        """The signature of a newcomer that wants to be `member`."""
        message = ready_bytes(self.genesis.chain_id, member, until)
        return make_key(key or self.names[member.key]).sign(message)

    def add(self, name: str, role: str = "validator", /, **changes: Any) -> AddMember:
        """A change that lets a newcomer in, signed by it."""
        member = self.newcomer(name, role, **changes)
        return AddMember(member, 10**6, self.ready(member))

    def replacing(self, old: str, name: str, /, **changes: Any) -> ReplaceKeys:
        """A change by which member `old` goes on under the key `name`."""
        present = MEMBERS.get(self.state(), make_key(old).public)
        assert present is not None
        member = self.newcomer(name, present.role, **{"bond": 0, "name": present.name, **changes})
        return ReplaceKeys(make_key(old).public, member, 10**6, self.ready(member))

    def propose(self, change: AnyChange, *approvers: str) -> int:
        """Have the first of `approvers` (by default all) propose and the others approve."""
        first, *others = approvers or tuple(self.validators)
        receipt = self.do(first, Propose(change))
        assert receipt.code == "ok", receipt.message
        number = int(receipt.events[0].split()[1])
        approval = Approve(number, change_digest(change))
        receipts = self.block(*(self.transaction(name, approval) for name in others))
        assert all(r.code == "ok" for r in receipts), receipts
        return number

    def end_epoch(self) -> None:
        """Make the blocks up to and with the last of this epoch."""
        while (self.height + 1) % self.genesis.params.epoch_blocks:
            self.block()

    def outcome(self, number: int) -> str:
        """What became of a proposal; "open" while nothing has."""
        decided = DECIDED.get(self.state(), number)
        return decided.outcome if decided else "open"

    # ---- transactions and blocks

    def transaction(
        self, sender: str, payload: Payload, /, *, ahead: int = 0, **changes: Any
    ) -> bytes:
        """Encoded; `ahead` transactions of the sender come before it in the same block."""
        key = make_key(sender)
        body = TransactionBody(
            self.genesis.chain_id, key.public, get_account(self.state(), key.public).nonce + ahead,
            GAS, 0, payload.KIND, codec.encode(payload),
        )  # fmt: skip
        return codec.encode(sign_transaction(replace(body, **changes), key))

    def compose(
        self,
        *transactions: bytes,
        finalise: tuple[SegmentRef, ...] = (),
        evidence: tuple[bytes, ...] = (),
        proposer: str = "",
        after_ms: int = BLOCK_MS,
    ) -> tuple[Block, Executed, State]:
        """Build the next block without adding it.

        Raises:
            InvalidBlock: an honest proposer could not make it.
        """
        state = self.state()
        block, executed = build_block(
            self.store.head, self.store.head_id, state, self.genesis,
            Body(self.last_commit, evidence, finalise, transactions),
            make_key(proposer or self.validators[0]).public, self.store.head.time_ms + after_ms,
        )  # fmt: skip
        return block, executed, state

    def check(self, block: Block) -> Executed:
        return check_block(self.store.head, self.store.head_id, self.state(), self.genesis, block)

    def block(self, *transactions: bytes, **how: Any) -> tuple[Receipt, ...]:
        """Add a block; returns the receipts of its transactions."""
        block, executed, state = self.compose(*transactions, **how)
        assert self.check(block) == executed, "a second node finds the same"
        assert compute_supply(state) == self.supply, "nothing is created and nothing is lost"
        identity, height = header_id(block.header), block.header.height
        voters = [name for name in self.validators if name not in self.absent]
        commit = make_commit([self.precommit(name, height, identity) for name in voters])
        self.store.append(block, commit, state, executed.receipts, executed.validators)
        self.last_commit, self.saying = commit, {}
        return executed.receipts

    def blocks(self, count: int, **how: Any) -> None:
        for _ in range(count):
            self.block(**how)

    def do(self, sender: str, payload: Payload, /, **changes: Any) -> Receipt:
        """Add a block with one transaction."""
        return self.block(self.transaction(sender, payload, **changes))[0]

    def precommit(self, name: str, height: int, block_id: bytes) -> Vote:
        extension = codec.encode(self.extension(name, height))
        chain_id, key = self.genesis.chain_id, make_key(name)
        message = sign_bytes(chain_id, VoteKind.PRECOMMIT, height, 0, block_id, -1, extension)
        kind, signature = VoteKind.PRECOMMIT, key.sign(message)
        return Vote(kind, height, 0, block_id, key.public, extension, signature)

    def extension(self, name: str, height: int) -> Extension:
        said, beacon = self.saying.get(name, {}), self.element(name, BEACON, height)
        custody = self.element(name, CUSTODY, key_due(height, self.genesis.params.attest_window))
        return Extension(beacon, custody, *(said.get(part, ()) for part in PARTS))

    def say(self, name: str, part: str, *items: Any) -> None:
        """Let the next precommit of a validator carry something."""
        said = self.saying.setdefault(name, {})
        said[part] = (*said.get(part, ()), *items)

    def announce(self, name: str, content: bytes) -> None:
        """Let the next precommit of a validator say that it holds content as it is registered."""
        found = [table.get(self.state(), content) for table in (DATASETS, MODEL_FILES)]
        self.say(name, "available", *(Available(content, it.facts) for it in found if it))

    def chain(self, name: str, purpose: str, generation: int = 0) -> Any:
        length = self.genesis.params.ticket_heights
        return chain_of(name, purpose, self.genesis.chain_id, length, generation)

    def element(self, name: str, purpose: str, height: int) -> bytes:
        """Of whichever registered chain holds that height."""
        length = self.genesis.params.ticket_heights
        if (found := find_chains(self.state(), make_key(name).public, height, length)) is None:
            return NO_ELEMENT
        return self.chain(name, purpose, found[0]).at(height - found[1].start) or NO_ELEMENT

    def ticket(self, name: str, height: int) -> bytes:
        return self.element(name, TICKETS, height)

    def double_vote(self, name: str, height: int = 0, chain_id: str = "") -> bytes:
        """Evidence of two prevotes in one round, by default at the height of the next block."""
        height, key, votes = height or self.height + 1, make_key(name), []
        for block_id in (NIL, digest("test-block")):
            message = sign_bytes(
                chain_id or self.genesis.chain_id, VoteKind.PREVOTE, height, 0, block_id
            )
            signature = key.sign(message)
            votes.append(Vote(VoteKind.PREVOTE, height, 0, block_id, key.public, b"", signature))
        return vote_evidence(*votes)

    # ---- jobs

    def submit(self, **changes: Any) -> bytes:
        """Register the data, hand in `JOB` with changes; returns its id."""
        data = self.transaction("alice", RegisterData(CONTENT, 9_999, ROWS, FEATURES))
        job = self.transaction("alice", replace(JOB, **changes), ahead=1)
        receipts = self.block(data, job)
        assert [r.code for r in receipts] == ["ok", "ok"], receipts
        return transaction_id(job)

    def hold(self, *names: str) -> None:
        """Two blocks: the first one's certificate says who holds the data, the second reads it."""
        for name in names or self.validators:
            self.announce(name, CONTENT)
        self.blocks(2)

    def running(self, **changes: Any) -> bytes:
        job = self.submit(**changes)
        self.hold()
        self.blocks(2)
        assert self.job(job).state == JobState.RUNNING
        return job

    def make_commit(self, job: bytes, index: int = 0, **changes: Any) -> SegmentCommit:
        """The commit that fits the segment, of made-up states; `changes` come last."""
        record, segment = self.job(job), self.segment(job, index)
        first, count = record.segment_range(index)
        count = changes.get("count", count)
        states = tuple(
            digest("test-state", job, codec.encode((first + i, segment.attempt)))
            for i in range(count)
        )
        start = digest("test-start", job)
        if index:
            before = self.segment(job, index - 1).commit
            start = before.end if before else start
        is_last = index == record.segments - 1 and not changes.get("trap")
        metrics = Metrics("accuracy", 5, record.test_rows, 0) if record.test_rows else None
        root = segment_root(
            self.genesis.chain_id, job, index, segment.attempt, segment.worker, first, states
        )
        commit = SegmentCommit(
            job, index, segment.attempt, start, states[-1] if states else start, CONTENT, root,
            CONTENT, count, 0, metrics if is_last else None,
        )  # fmt: skip
        return replace(commit, **changes)

    def commit(self, job: bytes, index: int = 0, **changes: Any) -> SegmentCommit:
        """Put the assigned worker's commit on chain."""
        commit = self.make_commit(job, index, **changes)
        receipt = self.do(self.worker_of(job, index), CommitSegment(commit))
        assert receipt.code == "ok", receipt.message
        return commit

    def ref(self, job: bytes, index: int = 0) -> SegmentRef:
        return SegmentRef(job, index)

    def attestation(self, name: str, job: bytes, index: int = 0, **changes: Any) -> Attestation:
        identity, ticket = self.drawn(name, job, index)
        return replace(Attestation(job, index, identity, ticket, bytes(32)), **changes)

    def drawn(self, name: str, job: bytes, index: int) -> tuple[bytes, bytes]:
        """The id of a segment's commit, and a validator's ticket for it."""
        segment = self.segment(job, index)
        assert segment.commit is not None
        return commit_id(segment.commit), self.ticket(name, segment.commit_height)

    def attest(self, job: bytes, index: int = 0, names: tuple[str, ...] = ()) -> None:
        """Put the attestations of all, or of some, on chain: two blocks, as in `hold`."""
        for name in names or tuple(self.validators):
            self.say(name, "attestations", self.attestation(name, job, index))
        self.blocks(2)

    def slice_of(self, name: str, job: bytes, index: int = 0) -> tuple[int, ...]:
        """The chunks that a validator draws, counted from the start of the job."""
        record, segment = self.job(job), self.segment(job, index)
        (_, ticket), (first, _) = self.drawn(name, job, index), record.segment_range(index)
        offsets = segment_slice(record, segment, self.key(name).public, ticket)
        return tuple(first + offset for offset in offsets)

    def harden(self, job: bytes, index: int = 0) -> None:
        """Take a committed segment to HARD the honest way."""
        self.attest(job, index)
        begun = same_schedule_since(self.state()) - 1
        since = max(self.segment(job, index).undisputed_since, begun)
        depth = (len(self.validators) - 1) // 3 + 2
        self.blocks(max(0, since + depth - self.height - 1))
        self.block(finalise=(self.ref(job, index),))

    def settle(self, job: bytes) -> None:
        """Take a running job to its end."""
        while self.job(job).state == JobState.RUNNING:
            self.commit(job, index := self.job(job).hard)
            self.harden(job, index)

    def claim(
        self, name: str, job: bytes, chunk: int, kind: ClaimKind = ClaimKind.FRAUD, index: int = 0
    ) -> MakeClaim:
        identity, ticket = self.drawn(name, job, index)
        return MakeClaim(job, index, identity, chunk, int(kind), ticket)

    def accuse(
        self, name: str, job: bytes, chunk: int, kind: ClaimKind = ClaimKind.FRAUD, index: int = 0
    ) -> None:
        claim = self.claim(name, job, chunk, kind, index)
        if self.segment(job, index).state == SegmentState.HARD:
            claim = self.announced(name, claim)
            self.ripen()
        receipt = self.do(name, claim)
        assert receipt.code == "ok", receipt.message

    def announced(self, sender: str, payload: Any) -> Any:
        """Put the announcement of a payload into the next block; returns what shows it later."""
        said = Announce(announcement(self.key(sender).public, payload))
        receipt = self.do(sender, said)
        assert receipt.code == "ok", receipt.message
        return replace(payload, announced=self.height)

    def ripen(self) -> None:
        """Make the blocks in which an honest proposer comes to its turn."""
        self.blocks(finality_depth(get_validator_set(self.state())) - 1)

    def judge(
        self, job: bytes, outcome: Outcome, names: tuple[str, ...] = (), index: int = 0
    ) -> None:
        """Put verdicts on the open claim on chain: two blocks, as in `hold`."""
        segment = self.segment(job, index)
        assert segment.commit is not None and segment.claim is not None
        identity, chunk = commit_id(segment.commit), segment.claim.chunk
        for name in names or tuple(self.validators):
            self.say(name, "verdicts", Verdict(job, index, identity, chunk, int(outcome)))
        self.blocks(2)
