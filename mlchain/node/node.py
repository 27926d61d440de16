"""One node: the tasks around the pure core, and how they are connected.

    network frames ──> agreement ──> chain (build, check, commit) ──> disk
                          │ on_commit
          ┌───────────────┼────────────────┬───────────────┐
        worker         auditor           spread           web
     trains segments  re-runs slices   transactions     people

Machine learning runs in child processes; this process never waits for it.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path

import structlog
import trio

from mlchain.consensus.driver import Driver
from mlchain.consensus.safety import Signer, SignRequest
from mlchain.errors import MlchainError
from mlchain.ledger.commit import Commit
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import transaction_id
from mlchain.ml_runtime.backends import DEFAULT
from mlchain.node import adversary
from mlchain.node.agreement import Agreement, timeouts_of
from mlchain.node.answerer import Answerer
from mlchain.node.artifacts import CHUNK_PROTOCOL, Artifacts, ChunkRequest
from mlchain.node.auditor import Auditor
from mlchain.node.chain import Chain, Committed
from mlchain.node.custodian import OPENING_PROTOCOL, Custodian
from mlchain.node.defence import Defence
from mlchain.node.duties import Duties
from mlchain.node.exchange import Exchange
from mlchain.node.keeper import Keeper, open_content
from mlchain.node.machine import Machine, Storage
from mlchain.node.membership import Keys, Membership
from mlchain.node.outbox import Outbox
from mlchain.node.prosecution import Cases, Prosecutor
from mlchain.node.query import Query
from mlchain.node.reviewer import Reviewer
from mlchain.node.signatures import verify_ahead
from mlchain.node.snapshots import SnapshotFolder
from mlchain.node.spread import Spread
from mlchain.node.subscribers import Subscribers
from mlchain.node.sync import BLOCKS_PROTOCOL, BlockSync
from mlchain.node.trace_wire import TRACE_PROTOCOL
from mlchain.node.upkeep import Upkeep
from mlchain.node.worker import Worker
from mlchain.p2p.transport import Channel, Role, Transport
from mlchain.vm.families.jobs import SEGMENTS
from mlchain.vm.params import is_last_of_epoch
from mlchain.vm.protocol import get_planned, get_protocol
from mlchain.vm.registry import begin_chain, check_protocol, has_protocol

log = structlog.get_logger("node")

WATCH_S = 1.0
"""Between two looks at whether a write of content failed."""


class Node(Machine):
    """A validator, worker or observer, or several of these in one process.

    The types and what `Machine` gives are what the simulator replaces: everything else of a
    simulated node is this class.
    """

    chain_type: type[Chain] = Chain
    driver_type: type[Driver] = Driver
    duties_type: type[Duties] = Duties
    worker_type: type[Worker] = Worker
    auditor_type: type[Auditor] = Auditor

    def __init__(
        self,
        genesis: Genesis,
        keys: Keys,
        storage: Storage,
        transport: Transport,
        misbehaviour: str = "",
        executor: str = "",
        backend: str = DEFAULT,
        recheck: bool = False,
    ) -> None:
        """Open the stores and connect the parts; nothing runs yet.

        Raises:
            GenesisError: this installation or this database belongs to another chain.
            UpgradeNeeded: the chain follows rules that this installation does not have.
            StoreCorrupted: a file does not hold what was written to it.
        """
        self.genesis, self.transport = genesis, transport
        self._storage, self.home = storage, storage.wal.parent
        self.clock = self._make_clock()
        store = Store.create_or_open(
            storage.chain, genesis, lambda state: begin_chain(state, genesis)
        )
        check_protocol(get_protocol(store.state()))
        self.membership = Membership(keys, transport, store.state())
        self.keys = keys = self.membership.keys
        self.duties = self.duties_type(genesis, keys.validator) if keys.validator else None
        if self.duties:
            self.duties.settle(store.state())
        self.chain = self.chain_type(
            store,
            keys.validator.public if keys.validator else None,
            self.duties.has_attested if self.duties else lambda ref, commit: True,
            self.clock.monotonic_ms,
        )
        self.content = open_content(storage.content)
        self.exchange = Exchange(transport, self.content)
        self.spool = self._open_spool(storage.spool)
        self.artifacts = Artifacts(
            genesis, self.membership, transport, self.content, self.exchange, self.spool
        )
        self.keeper = Keeper(
            self.content, storage.content_quota, self.chain, self.artifacts.hold_content
        )
        self.spread = Spread(self.chain, transport)
        self.sync = BlockSync(
            store, transport, self._on_synced, partial(verify_ahead, self.chain.mempool)
        )
        folder = SnapshotFolder(storage.snapshots) if storage.snapshots else None
        self.upkeep = Upkeep(
            store, storage.chain, transport, folder, storage.snapshot_every, storage.keep_blocks
        )
        self.agreement = self._make_agreement(storage.wal)
        self.cases = Cases(storage.files, storage.spool / "fraud")
        self.worker = self._make_worker(misbehaviour, executor, backend) if keys.worker else None
        self.defence = self._make_defence(misbehaviour, backend, recheck) if self.worker else None
        self.prosecutor = self._make_prosecutor(backend) if self.duties else None
        self.auditor = self._make_auditor(backend) if self.duties else None
        self.reviewer = self._make_reviewer(backend) if self.auditor else None
        self.answerer = self._make_answerer(backend) if self.duties else None
        if self.answerer is not None:
            self.agreement.on_candidate = self.answerer.look_ahead
        self.query = Query(self.chain, genesis, self.content, self)
        self._subscribers = Subscribers()
        self._connect()
        adversary.corrupt(self, misbehaviour)

    @property
    def name(self) -> str:
        """The first of our names on chain."""
        members = self.membership.members
        return members[0].name if members else "observer"

    # ---- running ------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with AsyncExitStack() as stack:
            if self.duties:
                await self.duties.prepare(self.chain.height)
            await stack.enter_async_context(self.transport.run())
            nursery = await stack.enter_async_context(trio.open_nursery())
            for part in (
                self.worker, self.defence, self.auditor, self.prosecutor, self.reviewer,
                self.answerer,
            ):  # fmt: skip
                if part is not None:
                    await stack.enter_async_context(part.compute)
                    nursery.start_soon(part.run)
            nursery.start_soon(self._watch_disk)
            nursery.start_soon(self.keeper.run)
            nursery.start_soon(self.sync.run)
            nursery.start_soon(self.upkeep.run)
            nursery.start_soon(self.spread.run_sender)
            nursery.start_soon(self.spread.run_receiver)
            self.agreement.start()
            nursery.start_soon(self.agreement.run)
            task_status.started()
            log.info(
                "started", name=self.name, chain=self.genesis.chain_id, height=self.chain.height
            )
            await trio.sleep_forever()

    async def _watch_disk(self) -> None:
        """End the node when its content cannot be written any more; agreement watches the chain.

        Raises:
            StoreCorrupted: says what failed.
        """
        while True:
            if self._storage.content.failure is not None:
                raise self._storage.content.failure
            await trio.sleep(WATCH_S)

    def close(self) -> None:
        """Let go of the databases and the log; the node has stopped."""
        self._storage.chain.close()
        self._storage.content.close()
        self.agreement.close()

    async def submit_transaction(self, data: bytes) -> bytes:
        """Admit a client's transaction and spread it; return its id.

        Raises:
            CodecError, InvalidSignature, InvalidTransaction, Rejected: says why not.
        """
        if self.chain.add_transaction(data):
            self.spread.send(data)
            self.agreement.poke()
        return transaction_id(data)

    async def gather_files(self, job_id: bytes) -> None:
        """Fetch what a receipt of this job carries and is not here yet; see `Artifacts.gather`."""
        await self.artifacts.gather(self.chain.state(), job_id)

    def subscribe_blocks(
        self,
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Committed]]:
        """Give a channel of the blocks that become final from now on; see `Subscribers`."""
        return self._subscribers.open()

    # ---- connections between the parts --------------------------------------------------------

    def _connect(self) -> None:
        transport = self.transport
        transport.on_frame = self._on_frame
        transport.on_link = self.spread.on_link
        transport.serve(BLOCKS_PROTOCOL, self.sync.serve)
        transport.serve(CHUNK_PROTOCOL, self.artifacts.serve_chunk)
        if self.defence:
            transport.serve(TRACE_PROTOCOL, self.defence.serve, {Role.VALIDATOR})
        if self.duties:
            self.artifacts.worker_of = self._worker_of
        if self.auditor:
            self.agreement.on_stray = self.auditor.informer.look
        self.exchange.serve()
        self.spread.on_admitted = self.agreement.poke
        if not self.keys.validator:
            self.spread.listen(self.sync.want)

    def _on_frame(self, peer: bytes, channel: int, frame: bytes) -> None:
        if channel == Channel.CONSENSUS:
            self.agreement.receive(peer, frame)
        elif channel == Channel.TRANSACTIONS:
            self.spread.receive(peer, frame)

    def _on_synced(self, block: bytes, commit: Commit) -> None:
        self.agreement.synced(block, commit)

    def _on_commit(self, committed: Committed) -> None:
        header = committed.block.header
        log.debug("block", height=header.height, transactions=len(committed.receipts))
        self._follow_chain(committed)
        if self.keys.validator:
            self.spread.announce(header.height, committed.block_id)
        self.upkeep.on_block(header.height)
        if self.reviewer is not None:
            self.reviewer.note_hard(committed.block.body.finalise)
        for part in (self.worker, self.defence, self.auditor, self.reviewer, self.answerer):
            if part is not None:
                part.on_block()
        self._subscribers.tell(committed)

    def _follow_chain(self, committed: Committed) -> None:
        """Take note of who came and went, and of what other rules are coming.

        Raises:
            UpgradeNeeded: the next block follows rules that this installation does not have.
        """
        state = self.chain.state()
        check_protocol(get_protocol(state))
        if not is_last_of_epoch(self.chain.params, committed.block.header.height):
            return
        self.membership.follow(state)
        if self.keys.validator:
            self.agreement.validator_peers = self.membership.validator_peers
        planned = get_planned(state)
        if planned is not None and not has_protocol(planned):
            log.warning("upgrade-needed", version=planned.version, height=planned.height)

    def _make_agreement(self, wal: Path) -> Agreement:
        genesis, key = self.genesis, self.keys.validator
        wal_log, last_sign = self._open_log(
            wal, has_signed=self.chain.height > 0, is_voting=key is not None
        )
        signer = Signer(key, genesis.chain_id, last_sign.load(), last_sign.save) if key else None

        def sign(request: SignRequest) -> bytes:
            assert signer is not None, "only validators are asked to sign"
            return signer.sign(request)

        def extend_vote(height: int, round_: int, block_id: bytes) -> bytes:
            return self.duties.extension(height) if self.duties else b""

        driver = self.driver_type(
            genesis.chain_id, key.public if key else None, timeouts_of(self.chain.params), sign,
            extend_vote, self.chain.is_valid_extension, is_signed=self.chain.is_signed,
        )  # fmt: skip
        # Only validators speak of agreement; the others hear of blocks and fetch them.
        peers = self.membership.validator_peers if key else ()
        return Agreement(
            self.chain, driver, wal_log, self.transport, self.clock, peers,
            on_commit=self._on_commit, on_behind=self.sync.want,
            has_duties=lambda: bool(self.duties and self.duties.is_pending),
            last_vote=signer.last_vote() if signer else None,
        )  # fmt: skip

    def _make_worker(self, misbehaviour: str, executor: str, backend: str) -> Worker:
        key = self.keys.worker
        assert key is not None
        outbox = Outbox(key, self.chain, self._spread)
        return self.worker_type(
            key.public, self.chain, self.artifacts, self._make_compute(executor, backend),
            self.spool, outbox, adversary.make_skips(misbehaviour),
        )  # fmt: skip

    def _make_defence(self, misbehaviour: str, backend: str, recheck: bool) -> Defence:
        key = self.keys.worker
        assert key is not None and self.worker is not None
        return Defence(
            key, self.chain, self.artifacts, self._make_compute("", backend), self.spool,
            self.worker.outbox, not misbehaviour, secrets.randbelow if recheck else None,
        )  # fmt: skip

    def _make_prosecutor(self, backend: str) -> Prosecutor:
        return Prosecutor(self.chain, self.artifacts, self._make_compute("", backend), self.cases)

    def _worker_of(self, request: ChunkRequest) -> bytes | None:
        """Return the worker of a committed segment, whose chunks we relay."""
        segment = SEGMENTS.get(self.chain.state(), request.job, request.segment)
        if segment is None or segment.attempt != request.attempt:
            return None
        return segment.worker if segment.commit is not None else None

    def _make_auditor(self, backend: str) -> Auditor:
        key = self.keys.validator
        assert key is not None and self.duties is not None and self.prosecutor is not None
        outbox = Outbox(key, self.chain, self._spread)
        compute = self._make_compute("", backend)
        auditor = self.auditor_type(
            key.public, self.chain, self.artifacts, compute, self.duties, outbox,
            self.prosecutor.convict,
        )  # fmt: skip
        auditor.custodian = Custodian(
            key.public, key.derive(f"audits/{self.genesis.chain_id}"), self.chain, self.artifacts,
            auditor.examiner, self.duties, outbox,
            self._open_spool(self._storage.spool / "digests"),
        )  # fmt: skip
        self.transport.serve(OPENING_PROTOCOL, auditor.custodian.serve)
        return auditor

    def _make_reviewer(self, backend: str) -> Reviewer:
        key, auditor, duties = self.keys.validator, self.auditor, self.duties
        assert key is not None and auditor is not None and duties is not None
        compute = self._make_compute("", backend)
        outbox = auditor.outbox
        return Reviewer(
            key.public, self.chain, self.artifacts, compute, duties, outbox,
            lambda: auditor.is_busy,
        )  # fmt: skip

    def _make_answerer(self, backend: str) -> Answerer:
        key = self.keys.validator
        assert key is not None and self.duties is not None
        return Answerer(
            key.public, key.derive(f"answers/{self.genesis.chain_id}"), self.chain, self.artifacts,
            self._make_compute("", backend), self.duties, self.agreement.poke,
        )  # fmt: skip

    def _spread(self, transaction: bytes) -> None:
        self.spread.send(transaction)
        self.agreement.poke()


def is_expected(error: BaseException) -> bool:
    """Tell whether an error is one of ours, to be printed without a traceback."""
    return isinstance(error, MlchainError)
