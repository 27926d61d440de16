"""The ledger as the node uses it: builds, checks and commits blocks. No clock, no network.

Every block this node built or checked is kept executed until its height is decided, so a block
is executed once. The veto of protocol.md section 8 is applied here, by asking `has_attested`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.consensus.actions import Verdict
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.errors import InvalidBlock, InvalidTransaction, MlchainError
from mlchain.ledger.block import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_EVIDENCE,
    MAX_BLOCK_TRANSACTIONS,
    Block,
    Receipt,
    SegmentRef,
    decode_block,
    header_id,
)
from mlchain.ledger.commit import Commit, IsSigned
from mlchain.ledger.genesis import Params
from mlchain.ledger.state import State
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import Opened, Transaction
from mlchain.ledger.validators import ValidatorSet
from mlchain.node.mempool import Mempool, max_duty_gas
from mlchain.vm.context import BlockContext, Context
from mlchain.vm.evidence import judge_evidence
from mlchain.vm.execute import (
    Outcome,
    check_block,
    check_transaction,
    propose_block,
)
from mlchain.vm.families import KINDS
from mlchain.vm.families.accounts import get_account
from mlchain.vm.families.governance import leaving_keys
from mlchain.vm.families.jobs import JOBS, SEGMENTS, Segment, commit_gas, is_checker
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.families.segments import NO_TICKET, MakeClaim
from mlchain.vm.gas import intrinsic_gas
from mlchain.vm.params import get_params
from mlchain.vm.votes import is_valid_extension

MAX_DRIFT_MS = 10_000
"""How far ahead of our clock a block's time may be."""
MAX_CANDIDATES = 16
PATIENCE_MS = 30_000
"""How long FINALISE waits for a validator that votes but has not attested, besides its audit.

A worker sees who asks for what, and could serve only those whose slices are clean. Whoever is left
waiting needs time to ask through others and to say so on chain (`examiner.SERVE_PATIENCE_S`).
"""
AUDIT_SLACK = 4
"""Times the gas of a slice that its audit may take, at 1 gas = 1 ns."""
PRESENCE = 20
"""Blocks after which a validator whose precommits we do not see is not waited for."""
MAX_SEEN = 10_000
"""Heights of which we remember when they became final here."""
MAX_EVIDENCE_KEPT = 64
MAX_VOTES = 2_048
"""Votes of which we remember whether their signature held."""
HEAD_BYTES = 16 << 10
"""Bytes of a block kept for its header and for what it finalises."""

HasAttested = Callable[[SegmentRef, bytes], bool]
"""Tells whether this node attested a commit, or need not because it is its own work."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block of the next height that was executed and found valid."""

    block: Block
    state: State
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Committed:
    """A block that became final."""

    block: Block
    block_id: bytes
    receipts: tuple[Receipt, ...]
    validators: ValidatorSet


class Chain:
    """The next block of one node's ledger, and the transactions that wait for it."""

    def __init__(
        self,
        store: Store,
        key: bytes | None,
        has_attested: HasAttested,
        clock_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        """`key` None: this node does not vote. `clock_ms` never goes back; if it stands still,
        FINALISE waits for every validator that votes.
        """
        self.store = store
        self.genesis = store.genesis
        self.mempool = Mempool(
            self._check_transaction,
            self._nonce_of,
            is_duty=self._is_duty,
            balance_of=self._balance_of,
        )
        self.validators = get_validator_set(store.state())
        self.key = key
        self.is_signed: IsSigned = lru_cache(maxsize=MAX_VOTES)(crypto.is_signed)
        """Judges a vote, once: it comes alone, in a certificate, and in the next block."""
        self._has_attested = has_attested
        self._candidates: dict[bytes, Candidate] = {}
        self._evidence: dict[bytes, None] = {}
        self._liars: dict[tuple[int, bytes], None] = {}  # who signed a bad extension at a height
        self._view = store.state()
        self._clock_ms = clock_ms
        self._started_ms = clock_ms()
        self._first_height = store.height
        self._seen_ms: dict[int, int] = {}
        self._last_vote: dict[bytes, int] = {}

    @property
    def height(self) -> int:
        """Height of the last final block."""
        return self.store.height

    def state(self) -> State:
        """Return the state after the last final block, to be read only."""
        return self._view

    @property
    def params(self) -> Params:
        """The parameters of the next block."""
        return get_params(self._view)

    def add_transaction(self, data: bytes, opened: Opened | None = None) -> bool:
        """Admit a transaction; False if it is known already. `opened`: if it was decoded before.

        Raises:
            CodecError, InvalidSignature, InvalidTransaction, Rejected: says why not.
        """
        return self.mempool.add(data, self.height, opened)

    def add_evidence(self, evidence: bytes) -> None:
        """Keep a proof of misbehaviour for the next block this node builds."""
        if len(self._evidence) < MAX_EVIDENCE_KEPT:
            self._evidence[evidence] = None

    @property
    def has_evidence(self) -> bool:
        """Whether evidence waits for a block."""
        return bool(self._evidence)

    # ---- the next block -----------------------------------------------------------------------

    def build(self, now_ms: int, last_commit: Commit | None) -> tuple[Block, bytes]:
        """Return a new block of the next height, executed, and its id."""
        assert self.key is not None, "only validators build"
        self.note_voters(last_commit)
        parent, parent_id = self.store.head, self.store.head_id
        time_ms = max(now_ms, parent.time_ms + 1)
        state = self.store.state()
        evidence = tuple(self._evidence)[:MAX_BLOCK_EVIDENCE]

        room = MAX_BLOCK_BYTES - HEAD_BYTES - len(codec.encode((last_commit, evidence)))
        block, outcome = propose_block(
            parent, parent_id, state, self.genesis, last_commit, evidence,
            self.mempool.take(room, self.params.max_block_gas, MAX_BLOCK_TRANSACTIONS),
            self.key, time_ms, self._is_wanted, self.mempool.open,
        )  # fmt: skip
        identity = header_id(block.header)
        self._keep(identity, Candidate(block, state, outcome))
        return block, identity

    def check(self, block_id: bytes, data: bytes, now_ms: int) -> tuple[Verdict, str]:
        """Execute a proposed block; return the verdict and, if it is not VALID, why."""
        try:
            candidate = self._candidates.get(block_id) or self._execute(block_id, data)
        except MlchainError as error:
            return Verdict.INVALID, error.message
        header = candidate.block.header
        earliest_ms = self.store.head.time_ms + 1  # where clocks ran ahead, none can come earlier
        # Clocks differ: no reason to refuse a quorum's.
        if header.time_ms > max(now_ms + MAX_DRIFT_MS, earliest_ms):
            return Verdict.UNWANTED, f"its time is {header.time_ms - now_ms} ms ahead of our clock"
        for ref in candidate.block.body.finalise:
            segment = SEGMENTS.get(candidate.state, ref.job, ref.index)
            if segment is None or not self._is_wanted(ref, segment):
                return Verdict.UNWANTED, f"finalises segment {ref.index} before its time"
        return Verdict.VALID, ""

    def candidate_state(self, block_id: bytes) -> State | None:
        """Return the state after a valid block of the next height, None of an unknown one."""
        candidate = self._candidates.get(block_id)
        return candidate.state if candidate else None

    def is_valid_extension(self, height: int, validator: bytes, extension: bytes) -> bool:
        """Tell whether a precommit of `height` that `validator` signed may carry `extension`.

        To find one wrong takes up to `height` hashes, and nobody honest signs it: whoever did is
        not looked at again before the next block.
        """
        if (height, validator) in self._liars:
            return False
        if is_valid_extension(self._view, height, validator, extension, self.params):
            return True
        self._liars[height, validator] = None
        return False

    def commit(self, block_id: bytes, data: bytes, commit: Commit) -> Committed:
        """Make a decided block final: one atomic write, then the mempool follows.

        Raises:
            InvalidBlock: it does not execute to its own roots, so more than a third lies.
        """
        candidate = self._candidates.get(block_id) or self._execute(block_id, data)
        block, outcome = candidate.block, candidate.outcome
        self.store.append(block, commit, candidate.state, outcome.receipts, outcome.validators)
        self._view = self.store.state()
        self._seen_ms[self.height] = self._clock_ms()
        self._seen_ms.pop(self.height - MAX_SEEN, None)
        self.note_voters(commit)
        self._candidates.clear()
        self._liars.clear()
        self.validators = outcome.validators
        for evidence in block.body.evidence:
            self._evidence.pop(evidence, None)
        self._drop_stale_evidence()
        touched = {
            key: get_account(self._view, key).nonce for key in dict.fromkeys(outcome.senders)
        }
        self.mempool.commit(touched, self.height)
        return Committed(block, block_id, outcome.receipts, outcome.validators)

    def _execute(self, block_id: bytes, data: bytes) -> Candidate:
        block = decode_block(data)
        if header_id(block.header) != block_id:
            raise InvalidBlock("the block is not the one that was named")
        state = self.store.state()
        outcome = check_block(
            self.store.head,
            self.store.head_id,
            state,
            self.genesis,
            block,
            self.mempool.open,
            self.is_signed,
        )
        for receipt in outcome.receipts:  # those that come only now need no second look
            self.mempool.verified.add(receipt.transaction)
        candidate = Candidate(block, state, outcome)
        self._keep(block_id, candidate)
        return candidate

    def _keep(self, block_id: bytes, candidate: Candidate) -> None:
        if len(self._candidates) >= MAX_CANDIDATES:
            del self._candidates[next(iter(self._candidates))]
        self._candidates[block_id] = candidate

    # ---- what it asks -------------------------------------------------------------------------

    def note_voters(self, commit: Commit | None) -> None:
        """Remember who votes: FINALISE waits for those, as far as we can see them ourselves."""
        for signature in commit.signatures if commit else ():
            self._last_vote[signature.validator] = self.height

    def _is_ripe(self, ref: SegmentRef, segment: Segment) -> bool:
        """Tell whether all validators that vote have attested, or had their time for it.

        Measured by our own clock and our own view of the votes: a proposer chooses neither.
        """
        done = [segment.worker, *(a.validator for a in segment.attestations)]
        job = JOBS.get(self._view, ref.job)
        done += leaving_keys(self._view)  # they attest no more
        recent = self.height - PRESENCE
        if all(
            key in done
            or self._last_vote.get(key, self._first_height) < recent
            or (job is not None and not is_checker(job, segment, key))
            for key in self.validators.keys
        ):
            return True
        waited = self._clock_ms() - self._seen_ms.get(segment.undisputed_since, self._started_ms)
        return waited >= PATIENCE_MS + self._audit_ms(ref, segment)

    def _audit_ms(self, ref: SegmentRef, segment: Segment) -> int:
        """Return how long re-running one validator's slice of a segment may take."""
        job = JOBS.get(self._view, ref.job)
        if job is None or segment.commit is None:
            return 0
        return AUDIT_SLACK * commit_gas(job, segment) // 10**6

    def _is_wanted(self, ref: SegmentRef, segment: Segment) -> bool:
        """Apply the veto: all had their time, it is attested by us or our own, nobody accuses.

        Attestations of 2f+1 do not outweigh the one validator whose slice held the forged chunk;
        its claim goes first, even if every proposer leaves it out.
        """
        if segment.commit is None or self._is_accused(commit_id(segment.commit)):
            return False
        if not self._is_ripe(ref, segment):
            return False
        if segment.is_own(self.key) or any(a.validator == self.key for a in segment.attestations):
            return True
        job = JOBS.get(self._view, ref.job)
        if job is not None and self.key and not is_checker(job, segment, self.key):
            return True  # it was dealt nothing; all who were have attested
        return self._has_attested(ref, commit_id(segment.commit))

    def _is_accused(self, commit: bytes) -> bool:
        """Tell whether a claim of fraud waits that the next block could take and would accept.

        Only such: one that cannot be included, or fails, or costs nothing when it is false, would
        let any one validator hold up everything for ever.
        """
        validators = self.validators.keys
        fronts = (self.mempool.front(key) for key in validators)
        return any(front and self._is_open_claim(front, commit) for front in fronts)

    def _is_open_claim(self, transaction: Transaction, commit: bytes) -> bool:
        body, state = transaction.body, self.store.state()
        most_gas = max_duty_gas(self.params.max_block_gas)
        if body.kind != MakeClaim.KIND or body.gas_limit > most_gas:
            return False
        block = self.next_block(state, body.sender)
        try:
            claim = check_transaction(state, self.genesis, transaction)
            assert isinstance(claim, MakeClaim), "the tag says so"
            if claim.commit != commit or claim.kind != ClaimKind.FRAUD:
                return False
            gas = body.gas_limit - intrinsic_gas(len(codec.encode(transaction)))
            claim = replace(claim, ticket=NO_TICKET)  # it only says who is paid, at many hashes
            claim.execute(Context(block, body.sender, bytes(32), gas))
        except MlchainError:
            return False
        return True

    def next_block(self, state: State, proposer: bytes = bytes(32)) -> BlockContext:
        """Return the place of the next block, on a state of its own."""
        head = self.store.head
        return BlockContext(
            state, self.genesis.chain_id, self.params, head.height + 1, head.time_ms, proposer,
            self.validators,
        )  # fmt: skip

    def _nonce_of(self, sender: bytes) -> int:
        return get_account(self._view, sender).nonce

    def _is_duty(self, transaction: Transaction) -> bool:
        """Tell whether its sender owes it to the chain as a member, or finds out who cheats."""
        kind = KINDS.get(transaction.body.kind)
        if kind is None or not kind.FREE:
            return kind is not None and bool(kind.ROLE)
        return transaction.body.sender in self.validators

    def _balance_of(self, account: bytes) -> int:
        return get_account(self._view, account).balance

    def _check_transaction(self, transaction: Transaction) -> None:
        try:
            check_transaction(self._view, self.genesis, transaction)
        except InvalidTransaction:
            raise
        except MlchainError as error:
            raise InvalidTransaction(error.message, error.hint) from error

    def _drop_stale_evidence(self) -> None:
        for evidence in list(self._evidence):
            try:
                judge_evidence(self.next_block(self.store.state()), evidence)
            except MlchainError:
                del self._evidence[evidence]
