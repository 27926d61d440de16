"""Where the bytes of a job come from: its dataset, chunk states, boundary states, leaf lists.

Everything is checked against what the chain says before anybody uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import structlog
import trio
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Hash, Record, Uint
from mlchain.consensus.work.commitment import (
    MAX_SEGMENT_CHUNKS,
    SegmentCommit,
    segment_root,
)
from mlchain.errors import (
    CodecError,
    ConfigError,
    MlchainError,
    NotFound,
    Rejected,
    Trap,
    VerificationFailed,
)
from mlchain.ledger.content import ContentStore, cid_of, cid_text
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.state import State
from mlchain.ml_runtime import Dataset, Metrics, Plan, Task, decode_plan
from mlchain.ml_runtime import State as TrainingState
from mlchain.ml_runtime.partition import partition
from mlchain.node.compute import Compute, Handle
from mlchain.node.exchange import Exchange
from mlchain.node.membership import Membership
from mlchain.node.spool import Spool
from mlchain.p2p.transport import Transport
from mlchain.vm.families.data import DATASETS, MAX_DATASET_BYTES
from mlchain.vm.families.jobs import JOBS, PLANS, SEGMENTS, Job, Segment
from mlchain.vm.families.partitions import (
    DRAWS,
    MAX_PARTS_BYTES,
    PART_OF,
    Draw,
    Part,
    total_bytes,
)
from mlchain.vm.receipt import wanted_files

log = structlog.get_logger("artifacts")

CHUNK_PROTOCOL = "/mlchain/chunk-state/1"
MAX_STATE_RESPONSE = 50 << 20
FETCH_TIMEOUT_S = 3.0
"""For one try at a chunk state, besides its transfer at `SLOWEST_BYTES_PER_S`."""
SLOWEST_BYTES_PER_S = 4 << 20
MAX_RELAYED = 16
"""Chunk states that we fetch for other validators at one time, one for each of them: more than
those who may lie among 31, so that they cannot take all places."""
MAX_EXHIBITS = 16
GATHER_S = 30
"""Seconds in which the files of a receipt are fetched from peers."""


class ChunkRequest(Record, frozen=True):
    """Asks a worker for the state before the chunk at `offset` of a segment."""

    job: Hash
    segment: Uint
    attempt: Uint
    offset: Annotated[int, Meta(ge=0, le=MAX_SEGMENT_CHUNKS)]


class Artifacts:
    """Fetches and checks the bytes behind a job for one role of a node."""

    def __init__(
        self,
        genesis: Genesis,
        members: Membership,
        transport: Transport,
        content: ContentStore,
        exchange: Exchange,
        spool: Spool,
    ) -> None:
        self.content = content
        self._genesis = genesis
        self._transport = transport
        self._exchange = exchange
        self._spool = spool
        self._exhibits: dict[ChunkRequest, bytes] = {}
        self._relaying: dict[bytes, None] = {}
        self.worker_of: Callable[[ChunkRequest], bytes | None] = lambda request: None
        """Tells whose segment at work a request is about; None: we do not relay it."""
        self._members = members

    async def serve_chunk(self, peer: bytes, payload: bytes) -> bytes:
        """Answer a `ChunkRequest`: from our spool, from what we accuse somebody with, or relayed.

        A validator asks the worker on behalf of another: so a worker that serves only some of them
        cannot tell whom it would leave waiting. Who has one relayed already is refused, not queued:
        a silent worker must not hold up whoever asks after it.

        Raises:
            NotFound: nobody has it, or nobody that we may ask for this peer.
            Rejected: we ask others on behalf of this peer, or of too many, already.
        """
        request = codec.decode(ChunkRequest, payload, 256)
        if request in self._exhibits:
            return self._exhibits[request]
        worker = self._members.peer_of(self.worker_of(request) or b"")
        is_other = worker not in (None, peer, self._transport.public_key)
        if worker is not None and is_other and peer in self._members.validator_peers:
            return await self._relay(peer, worker, payload)
        place = (request.job, request.segment, request.attempt)
        return self._spool.read(place, request.offset)

    async def _relay(self, peer: bytes, worker: bytes, payload: bytes) -> bytes:
        if peer in self._relaying or len(self._relaying) >= MAX_RELAYED:
            raise Rejected("busy: a chunk state is being fetched for you, or many for others")
        self._relaying[peer] = None
        try:
            return await self._ask(worker, payload, MAX_STATE_RESPONSE)
        finally:
            del self._relaying[peer]

    async def ask_member(
        self,
        member: bytes,
        protocol: str,
        request: bytes,
        max_bytes: int,
        timeout_s: float = FETCH_TIMEOUT_S,
    ) -> bytes:
        """Return a member's answer.

        Raises:
            NotFound, Unreachable, Timeout: it gave none.
        """
        peer = self._members.peer_of(member)
        if peer is None:
            raise NotFound("this member has no known address")
        return await self._transport.request(peer, protocol, request, max_bytes, timeout_s)

    async def _ask(self, peer: bytes, request: bytes, size: int) -> bytes:
        timeout_s = FETCH_TIMEOUT_S + size / SLOWEST_BYTES_PER_S
        return await self._transport.request(
            peer, CHUNK_PROTOCOL, request, MAX_STATE_RESPONSE, timeout_s
        )

    def exhibit(self, segment: Segment, offset: int, data: bytes) -> None:
        """Keep a state that an accusation rests on, to show it to whoever must judge."""
        commit = _commit(segment)
        request = ChunkRequest(commit.job, commit.segment, segment.attempt, offset)
        self._exhibits[request] = data
        if len(self._exhibits) > MAX_EXHIBITS:
            del self._exhibits[next(iter(self._exhibits))]

    async def fetch_content(self, content: bytes, max_bytes: int, owner: bytes = b"") -> bytes:
        """Return the bytes of a content id, from here or from peers (the owner's first).

        Raises:
            NotFound, Unreachable, Timeout: nobody gave them.
            CodecError: they are more than `max_bytes`: whoever named them wants our disk full.
        """
        await self.hold_content(content, max_bytes, owner)
        return await self._exchange.on_disk(self.content.get, content, max_bytes)

    async def hold_content(self, content: bytes, max_bytes: int, owner: bytes = b"") -> None:
        """Make a file complete here, from peers if need be (the owner's first).

        Raises:
            NotFound, Unreachable, Timeout: nobody gave it.
            CodecError: it is larger than `max_bytes`; it is not fetched.
        """
        exchange = self._exchange
        if await exchange.on_disk(self.content.missing, content, 1):
            likely = self._members.peer_of(owner)
            peers = [likely] if likely else []
            peers += [status.peer for status in self._transport.peers() if status.connected]
            own = self._transport.public_key
            await exchange.fetch(content, [peer for peer in peers if peer != own], max_bytes)

    async def gather(self, state: State, job_id: bytes) -> None:
        """Fetch what a receipt of a job carries and is not here yet; give up on what is not had.

        A segment is HARD when a quorum attested it: this node may be the one that did not.
        """
        job = JOBS.get(state, job_id)
        if job is None:
            return
        segments = [SEGMENTS.get(state, job_id, index) for index in range(job.hard)]
        commits = [s.commit for s in segments if s is not None and s.commit is not None]
        with trio.move_on_after(GATHER_S):
            for content in wanted_files(job, commits):
                try:
                    await self.hold_content(content, MAX_DATASET_BYTES)
                except MlchainError as error:
                    log.warning("not-gathered", content=cid_text(content), reason=error.message)

    async def fetch_leaves(self, job_id: bytes, job: Job, segment: Segment) -> tuple[bytes, ...]:
        """Return the end digests of a committed segment's chunks, checked against its root.

        Raises:
            VerificationFailed: they do not make the root that was committed.
        """
        commit = _commit(segment)
        data = await self.fetch_content(commit.leaves_content, 32 * commit.count, segment.worker)
        states = tuple(data[i : i + 32] for i in range(0, len(data), 32))
        first, _ = job.segment_range(commit.segment)
        root = segment_root(
            self._genesis.chain_id, job_id, commit.segment, segment.attempt, segment.worker,
            first, states,
        )  # fmt: skip
        if len(data) != 32 * commit.count or root != commit.leaf_root:
            raise VerificationFailed(f"the leaves of segment {commit.segment} make another root")
        return states

    async def fetch_end(self, segment: Segment) -> bytes:
        """Return the encoded state at the end of a committed segment; its digest is not checked.

        Raises: as `fetch_content`.
        """
        content = _commit(segment).end_content
        return await self.fetch_content(content, MAX_STATE_RESPONSE, segment.worker)

    async def fetch_dataset(self, state: State, content: bytes) -> bytes:
        """Return a registered dataset. The part of a draw that is not here is made, or fetched.

        Raises: as `fetch_content`; the bound is the size it was registered with.
        """
        record = DATASETS.get(state, content)
        assert record is not None, "what is used is registered before"
        origin = PART_OF.get(state, content)
        missing = await self._exchange.on_disk(self.content.missing, content, 1)
        if origin is not None and missing:
            try:
                await self.make_parts(state, origin.draw, only=content)
            except MlchainError as error:
                log.info("part-not-made", content=cid_text(content), reason=error.message)
        return await self.fetch_content(content, record.size)

    async def make_parts(self, state: State, draw_id: bytes, only: bytes = b"") -> tuple[Part, ...]:
        """Make the parts of a draw from the dataset and store them, or `only` one; return all.

        Raises:
            NotFound, Unreachable, Timeout: nobody has the dataset.
            VerificationFailed: there are no such parts.
        """
        draw = DRAWS.get(state, draw_id)
        assert draw is not None and draw.seed, "parts are of draws that have a seed"
        parent = DATASETS.get(state, draw.content)
        assert parent is not None, "draws are of registered datasets"
        if total_bytes(parent, draw.parts, draw.test_rows) > MAX_PARTS_BYTES:
            raise VerificationFailed(f"the parts have more than {MAX_PARTS_BYTES} bytes")
        data = await self.fetch_dataset(state, draw.content)
        return await trio.to_thread.run_sync(_make_parts, self.content, data, draw, only)

    async def fetch_state(
        self, segment: Segment, offset: int, digest: bytes, plan: Plan, source: bytes = b""
    ) -> bytes:
        """Return the encoded state before the chunk at `offset`, whose digest must be `digest`.

        Asked of `source` (a member's key), the segment's worker when empty.

        Raises:
            NotFound, Unreachable, Timeout: not served.
            VerificationFailed, CodecError: served, but something else.
        """
        commit = _commit(segment)
        request = codec.encode(ChunkRequest(commit.job, commit.segment, segment.attempt, offset))
        peer = self._members.peer_of(source or segment.worker)
        if peer is None:
            raise NotFound("its worker has no known address")
        if peer == self._transport.public_key:
            data = await self.serve_chunk(peer, request)
        else:
            data = await self._ask(peer, request, self.content.size(commit.end_content))
        if state_digest(data, plan) != digest:
            raise VerificationFailed(f"the state before chunk {offset} has another digest")
        return data

    async def start_state(
        self, state: State, job_id: bytes, index: int, compute: Compute, handle: Handle
    ) -> bytes:
        """Return the state a segment starts from: initial, or the end of the one before."""
        if index == 0:
            data, _ = await compute.initial_state(handle)
            return data
        before = SEGMENTS.get(state, job_id, index - 1)
        if before is None or before.commit is None:
            raise NotFound(f"segment {index - 1} is not committed")
        return await self.fetch_end(before)

    async def load(self, state: State, job: Job, compute: Compute) -> tuple[Handle, Plan]:
        """Make `compute` ready for a job: program, dataset, order seed."""
        plan = get_plan(state, job)
        dataset = await self.fetch_dataset(state, job.dataset)
        task = Task(plan.encode(), job.steps, job.chunk, job.train_rows, job.test_rows)
        return await compute.load(codec.encode(task), dataset, job.order_seed), plan


async def evaluate(compute: Compute, handle: Handle, state: bytes) -> Metrics | None:
    """Return the metrics of a final state, None if a prediction leaves the exact range."""
    try:
        return await compute.evaluate(handle, state)
    except Trap:
        return None


def get_plan(state: State, job: Job) -> Plan:
    """Return the program of a job."""
    record = PLANS.get(state, job.plan)
    assert record is not None, "a job's plan is stored with it"
    return decode_plan(record.plan)


def state_digest(data: bytes, plan: Plan) -> bytes:
    """Return the digest of an encoded training state.

    Raises:
        CodecError: not a state of this plan.
    """
    return TrainingState.decode(data, plan).digest()


def _make_parts(store: ContentStore, data: bytes, draw: Draw, only: bytes) -> tuple[Part, ...]:
    found = []
    try:
        for part in partition(Dataset.decode(data), draw.seed, draw.parts, draw.test_rows):
            made = part.encode()
            content = cid_of(made)
            found.append(Part(content, len(made), part.rows))
            if only in (b"", content):
                store.put(made)
    except (CodecError, ConfigError) as error:
        raise VerificationFailed(error.message) from error
    return tuple(found)


def _commit(segment: Segment) -> SegmentCommit:
    if segment.commit is None:
        raise CodecError("the segment is not committed")
    return segment.commit
