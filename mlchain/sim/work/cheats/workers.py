"""Workers that do not do the work, or do not show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import trio
from msgspec.structs import replace

from mlchain import codec
from mlchain.consensus.work.commitment import SegmentCommit, segment_root
from mlchain.crypto import digest
from mlchain.errors import NotFound
from mlchain.ml_runtime import Metrics, State, Task, make_plan
from mlchain.node.artifacts import CHUNK_PROTOCOL, ChunkRequest
from mlchain.node.chain import PRESENCE, Chain
from mlchain.node.compute import Handle, Trapped
from mlchain.node.worker import Worker
from mlchain.p2p.transport import Channel
from mlchain.sim.work import lesson
from mlchain.sim.work.cheat import Cheat
from mlchain.sim.work.lesson import RememberedCompute
from mlchain.sim.work.machine import SimulatedNode
from mlchain.sim.work.order import small_slices_job
from mlchain.vm.families.jobs import JOBS, SEGMENTS
from mlchain.vm.families.segments import CommitSegment

if TYPE_CHECKING:
    from mlchain.sim.work.place import Place

Result = tuple[bytes, bytes] | Trapped


class Skip(Cheat):
    """`mlchain node --adversary skip:0.3`: does not compute these chunks, repeats the state."""

    row = "1 skip chunks"
    corrupts = "worker"
    misbehaviour = "skip:0.3"


class _Forger(Cheat):
    """Gives its own states for chunks; `forge` says which."""

    corrupts = "worker"

    def compute(self) -> RememberedCompute:
        """Return what computes for it."""
        return _ForgingCompute(self)

    def forge(self, handle: Handle, chunk: int, before: bytes) -> Result:
        """Return what it says that a chunk gives."""
        return lesson.run_chunk(handle, chunk, before)


class _ForgingCompute(RememberedCompute):
    def __init__(self, cheat: _Forger) -> None:
        super().__init__()
        self.cheat = cheat

    def run_one(self, handle: Handle, chunk: int, state: bytes) -> Result:
        return self.cheat.forge(handle, chunk, state)


class SkipSteps(_Forger):
    """Leaves out the last step of every third chunk."""

    row = "2 skip scattered steps"

    def forge(self, handle: Handle, chunk: int, before: bytes) -> Result:
        task = codec.decode(Task, handle.task)
        if chunk % 3 or task.chunk < 2:
            return lesson.run_chunk(handle, chunk, before)
        single = _like(handle, replace(task, chunk=1))
        state: Result = before, b""
        for step in task.chunk_steps(chunk)[:-1]:
            assert not isinstance(state, Trapped)
            state = lesson.run_chunk(single, step, state[0])
            if isinstance(state, Trapped):
                return state
        return state


class OtherOrder(_Forger):
    """Trains on the rows in an order of its own."""

    row = "3 other data or order"

    def forge(self, handle: Handle, chunk: int, before: bytes) -> Result:
        task = codec.decode(Task, handle.task)
        other = lesson.make_handle(codec.encode(task), handle.dataset, digest("sim/other", b""))
        return lesson.run_chunk(other, chunk, before)


class OtherRate(_Forger):
    """Trains with half the learning rate."""

    row = "4 other rate"

    def forge(self, handle: Handle, chunk: int, before: bytes) -> Result:
        task = codec.decode(Task, handle.task)
        plan = make_plan("softmax", features=4, classes=3, optimiser="sgd", batch=8, rate="0.25")
        if lesson.trainer_of(handle).plan.state != plan.state:
            return lesson.run_chunk(handle, chunk, before)
        return lesson.run_chunk(_like(handle, replace(task, plan=plan.encode())), chunk, before)


class LastPlace(_Forger):
    """Moves one weight by its last place in every chunk: any tolerance would let it pass."""

    row = "5 hide inside a tolerance"

    def forge(self, handle: Handle, chunk: int, before: bytes) -> Result:
        return nudge(handle, lesson.run_chunk(handle, chunk, before))


class OneChunk(_Forger):
    """Forges one chunk of the job, and goes on from there as an honest worker would."""

    row = "6 one poisoned chunk"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.forged: dict[int, None] = {}

    def forge(self, handle: Handle, chunk: int, before: bytes) -> Result:
        result = lesson.run_chunk(handle, chunk, before)
        if chunk != int.from_bytes(handle.identity[:4], "big") % handle.chunks:
            return result
        self.forged[chunk] = None
        return nudge(handle, result)


class FalseTrap(_Forger):
    """Says that the program left the exact range where it did not."""

    row = "13 a trap that is not there"

    def forge(self, handle: Handle, chunk: int, before: bytes) -> Result:
        result = lesson.run_chunk(handle, chunk, before)
        steps = codec.decode(Task, handle.task).chunk_steps(chunk)
        return Trapped(steps[0]) if chunk == handle.chunks // 2 else result


class Collude(OneChunk):
    """The strongest coalition: forges one chunk, and f validators do all they can for it.

    They attest unseen, never object, leave the honest votes and claims out of their blocks, and
    rule that everything is equal.
    """

    row = "8 11 drop the finder, with f validators that lend themselves"
    accomplice = "accomplice"


class Withhold(Cheat):
    """Serves no chunk state to anybody."""

    row = "14 withhold states"
    corrupts = "worker"

    def corrupt(self, node: SimulatedNode) -> None:
        async def refuse(peer: bytes, payload: bytes) -> bytes:
            raise NotFound("not here")

        node.transport.serve(CHUNK_PROTOCOL, refuse)


class Selective(OneChunk):
    """Forges one chunk and keeps whoever asks for it waiting; the others it serves at once."""

    row = "14 selective service"

    def corrupt(self, node: SimulatedNode) -> None:
        async def serve(peer: bytes, payload: bytes) -> bytes:
            request = codec.decode(ChunkRequest, payload, 256)
            job = JOBS.get(node.chain.state(), request.job)
            first = job.segment_range(request.segment)[0] if job else 0
            if first + request.offset in self.forged:
                raise NotFound("in a moment")
            return await node.artifacts.serve_chunk(peer, payload)

        node.transport.serve(CHUNK_PROTOCOL, serve)


class _TimelyWorker(Worker):
    cheat: Any

    async def _commit(self, *args: Any) -> SegmentCommit:
        commit = await super()._commit(*args)
        while not self.cheat.is_time(self.chain):
            await trio.sleep(0.05)
        return commit


class Hush(_Forger):
    """Has the votes of an honest validator lost until nobody waits for them, and forges then.

    What that validator asks for it serves so late that the accusation comes after the blocks of the
    honest, and before that of a friend, which leaves it out. Only that it is known to all is left.
    """

    row = "8 22 silence the finder, with f validators that lend themselves"
    accomplice = "accomplice"
    parts = {"worker_type": _TimelyWorker}

    def corrupt(self, node: SimulatedNode) -> None:
        assert isinstance(node.worker, _TimelyWorker)
        node.worker.cheat = self

        async def serve(peer: bytes, payload: bytes) -> bytes:
            request = codec.decode(ChunkRequest, payload, 256)
            state = node.chain.state()
            job = JOBS.get(state, request.job)
            segment = SEGMENTS.get(state, request.job, request.segment)
            assert job is not None and segment is not None
            first = job.segment_range(request.segment)[0]
            is_early = node.chain.height < segment.commit_height + 2
            if is_early and self.is_forged(first + request.offset):
                raise NotFound("in a moment")
            return await node.artifacts.serve_chunk(peer, payload)

        node.transport.serve(CHUNK_PROTOCOL, serve)

    def order(self) -> None:
        """Have a job whose slices are small, so that the victim may be the only finder."""
        self.world.orders[:] = [small_slices_job(self.rng)]

    def forge(self, handle: Handle, chunk: int, before: bytes) -> Result:
        result = lesson.run_chunk(handle, chunk, before)
        return nudge(handle, result) if self.is_forged(chunk) else result

    def is_forged(self, chunk: int) -> bool:
        """Tell which chunks it forges: one of each segment."""
        return chunk % 8 == 3

    def is_time(self, chain: Chain) -> bool:
        """Tell whether a friend proposes the first block that may finalise a commit of now."""
        friends = [p.key for p in self.world.places if p.role == "validator" and not p.is_honest]
        first = chain.validators.proposer(chain.height + 4, 0)
        return chain.height >= PRESENCE and first in friends

    async def run(self) -> None:
        """Swallow what the victim says in agreement."""
        victim = self.world.honest("validator")[0]

        def tamper(sender: Place, receiver: Place, channel: int, frame: bytes) -> list[bytes]:
            return [] if sender is victim and channel == Channel.CONSENSUS else [frame]

        self.world.office.tampers.append(tamper)


class Trickle(Cheat):
    """Serves every state in the last moment."""

    row = "14 trickle"
    corrupts = "worker"

    def corrupt(self, node: SimulatedNode) -> None:
        async def serve(peer: bytes, payload: bytes) -> bytes:
            await trio.sleep(2.6)
            return await node.artifacts.serve_chunk(peer, payload)

        node.transport.serve(CHUNK_PROTOCOL, serve)


class _CommittingWorker(Worker):
    cheat: Any

    async def _commit(self, *args: Any) -> SegmentCommit:
        commit = await super()._commit(*args)
        return self.cheat.change(self, commit)


class _Committer(Cheat):
    """Changes its commits."""

    corrupts = "worker"
    parts = {"worker_type": _CommittingWorker}

    def corrupt(self, node: SimulatedNode) -> None:
        assert isinstance(node.worker, _CommittingWorker)
        node.worker.cheat = self

    def change(self, worker: Worker, commit: SegmentCommit) -> SegmentCommit:
        """Return what it commits to."""
        return commit


class TwoRoots(_Committer):
    """Sends two commits for one attempt, to see which one is drawn more luckily."""

    row = "16 two roots"

    def change(self, worker: Worker, commit: SegmentCommit) -> SegmentCommit:
        other = replace(commit, leaf_root=digest("sim/root", commit.leaf_root))
        worker.outbox.send(CommitSegment(other))
        return commit


class Abort(_Committer):
    """Says nothing more once its commit is on its way: it did not like the draw."""

    row = "16 abort after an unlucky draw"

    def change(self, worker: Worker, commit: SegmentCommit) -> SegmentCommit:
        self.world.office.mute(self.place, 25_000)
        return commit


class Copy(_Committer):
    """Commits to the root that another worker would have: its leaves name the other."""

    row = "18 copy another's result"

    def change(self, worker: Worker, commit: SegmentCommit) -> SegmentCommit:
        states = worker.artifacts.content.get(commit.leaves_content)
        job = JOBS.get(worker.chain.state(), commit.job)
        assert job is not None and self.place is not None
        others = [key for key in job.workers if key != worker.key] or [bytes(32)]
        digests = tuple(states[i : i + 32] for i in range(0, len(states), 32))
        root = segment_root(
            worker.chain.genesis.chain_id, commit.job, commit.segment, commit.attempt, others[0],
            job.segment_range(commit.segment)[0], digests,
        )  # fmt: skip
        return replace(commit, leaf_root=root)


class OddList(_Committer):
    """Commits to its leaves with the last one twice, which a naive tree takes for the same list."""

    row = "24 a list of odd length"
    must_fail = True

    def change(self, worker: Worker, commit: SegmentCommit) -> SegmentCommit:
        states = worker.artifacts.content.get(commit.leaves_content)
        job = JOBS.get(worker.chain.state(), commit.job)
        assert job is not None
        digests = tuple(states[i : i + 32] for i in range(0, len(states), 32))
        root = segment_root(
            worker.chain.genesis.chain_id, commit.job, commit.segment, commit.attempt, worker.key,
            job.segment_range(commit.segment)[0], (*digests, digests[-1]),
        )  # fmt: skip
        return replace(commit, leaf_root=root)


class BetterMetrics(_Committer):
    """Claims that its model is always right."""

    row = "1 claim better metrics"

    def change(self, worker: Worker, commit: SegmentCommit) -> SegmentCommit:
        if commit.metrics is None:
            return commit
        return replace(
            commit, metrics=Metrics("accuracy", commit.metrics.total + 1, commit.metrics.total, 0)
        )


class OtherEnd(_Committer):
    """Commits to an end that is not the state after its last chunk."""

    row = "5 a stolen model at the end"

    def change(self, worker: Worker, commit: SegmentCommit) -> SegmentCommit:
        return replace(commit, end=digest("sim/end", commit.end))


class Idle(Cheat):
    """Takes segments and never commits."""

    row = "26 stall as a worker"
    corrupts = "worker"

    def corrupt(self, node: SimulatedNode) -> None:
        assert node.worker is not None
        node.worker.outbox.send = lambda payload: None  # type: ignore[method-assign]


def nudge(handle: Handle, result: Result) -> Result:
    """Return a state with one weight moved by its last place."""
    if isinstance(result, Trapped):
        return result
    state = State.decode(result[0], lesson.trainer_of(handle).plan)
    first = state.tensors[0].copy()
    first.flat[0] = np.nextafter(first.flat[0], np.float32(2))
    moved = State((first, *state.tensors[1:]))
    return moved.encode(), moved.digest()


def _like(handle: Handle, task: Task) -> Handle:
    return lesson.make_handle(codec.encode(task), handle.dataset, handle.seed)
