"""What must hold in every run of whole nodes, at every block."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlchain import codec
from mlchain.consensus.safety import LastSign
from mlchain.consensus.work.commitment import SegmentCommit, segment_root
from mlchain.errors import MlchainError
from mlchain.ledger.block import SegmentRef
from mlchain.ledger.commit import verify_commit
from mlchain.ledger.state import State
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import transaction_id
from mlchain.ml_runtime import State as TrainingState
from mlchain.ml_runtime import Task
from mlchain.node.chain import Committed
from mlchain.node.compute import Handle, Trapped
from mlchain.sim.checkers import Violation
from mlchain.sim.work import lesson
from mlchain.sim.work.cast import ticket_of
from mlchain.sim.work.order import Order
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
from mlchain.vm.families.members import FAULTS, get_last_voters
from mlchain.vm.families.models import MODELS
from mlchain.vm.initial import compute_supply

if TYPE_CHECKING:
    from mlchain.sim.work.place import Place


class Promises:
    """Watches what honest places decide, sign and pay for."""

    def __init__(
        self, places: list[Place], orders: dict[bytes, Order], supply: int, chain_id: str
    ) -> None:
        """`orders` are the honest jobs by id, filled as they are signed."""
        self._places = places
        self._orders = orders
        self._supply = supply
        self._chain_id = chain_id
        self._honest = {p.key: p for p in places if p.is_honest}
        self._decided: dict[int, tuple[bytes, bytes]] = {}
        self._signed: dict[tuple[bytes, int, int, int], bytes] = {}
        self._included: dict[bytes, int] = {}
        self._disputed: dict[tuple[bytes, int], int] = {}
        """The last height at which a segment was disputed."""
        self.hard = 0
        self.slashed: list[str] = []
        self.on_hard: Callable[[Segment, bool], None] = lambda segment, is_forged: None

    def on_save(self, place: Place, data: bytes) -> None:
        """No honest validator signs two things for one height, round and step.

        Raises:
            Violation: not so.
        """
        last = codec.decode(LastSign, data, 1024)
        where = place.key, last.height, last.round, last.step
        if self._signed.setdefault(where, last.message) != last.message:
            raise Violation(f"double signature by {place.name} at {where[1:]}")

    def on_block(self, store: Store, committed: Committed) -> None:
        """Agreement, once only, certificate, supply, slashes, and what is HARD, of a new block.

        Raises:
            Violation: not so.
        """
        height = committed.block.header.height
        found = committed.block_id, store.head.state_root
        known = self._decided.get(height)
        if known is not None:
            if known != found:
                raise Violation(f"agreement: height {height} is two different blocks")
            return
        self._decided[height] = found
        for identity in map(transaction_id, committed.block.body.transactions):
            before = self._included.setdefault(identity, height)
            if before != height:
                raise Violation(f"replay: a transaction of height {before} again at {height}")
        state = store.state()
        try:
            verify_commit(store.commit(height), self._chain_id, get_last_voters(state),
                          height, committed.block_id)  # fmt: skip
        except MlchainError as error:
            raise Violation(f"certificate of height {height}: {error.message}") from error
        supply = compute_supply(state)
        if supply != self._supply:
            raise Violation(f"supply: {supply - self._supply:+d} at height {height}")
        for _, fault in FAULTS.items(state, height):
            name = next(p.name for p in self._places if p.key == fault.offender)
            self.slashed.append(f"{name} {fault.kind}")
            if fault.offender in self._honest:
                raise Violation(f"slashed: honest {name} for {fault.kind} at height {height}")
        for ref in committed.block.body.finalise:
            self._check_age(state, ref, height)
            self._check_hard(store, state, ref)
        self._check_attestations(state, height)

    def _check_attestations(self, state: State, height: int) -> None:
        """Attestations come after the certificate, once, from others, and show their tickets.

        Disputes are noted for `_check_age`.
        """
        names = {p.key: p.name for p in self._places if p.role == "validator"}
        for (job, index), segment in SEGMENTS.items(state):
            if segment.state == SegmentState.HARD and segment.hard_height != height:
                continue
            if segment.claim is not None:
                self._disputed[job, index] = height
            where = f"segment {index} of {job.hex()[:8]}"
            if segment.attestations and segment.commit_height == height - 1:
                raise Violation(f"attestation: {where} before the commit was final")
            keys = [a.validator for a in segment.attestations]
            if len(set(keys)) < len(keys) or segment.worker in keys:
                raise Violation(f"attestation: {where} twice, or by its worker")
            for each in segment.attestations:
                right = ticket_of(state, names[each.validator], segment.commit_height)
                if each.ticket != right:
                    raise Violation(f"attestation: {where} with a ticket that was chosen")

    def _check_age(self, state: State, ref: SegmentRef, height: int) -> None:
        """Between the commit, or its last dispute, and HARD every f + 1 proposers had a turn."""
        segment = SEGMENTS.get(state, ref.job, ref.index)
        assert segment is not None
        since = max(segment.commit_height, self._disputed.get((ref.job, ref.index), 0))
        least = get_last_voters(state).faults + 2
        if height < since + least:
            raise Violation(
                f"age: segment {ref.index} of {ref.job.hex()[:8]} is HARD after "
                f"{height - since} blocks, not {least}"
            )

    def _check_hard(self, store: Store, state: State, ref: SegmentRef) -> None:
        """No forgery in the slice of an honest validator is ever paid for."""
        job, segment = JOBS.get(state, ref.job), SEGMENTS.get(state, ref.job, ref.index)
        assert job is not None and segment is not None and segment.commit is not None
        self.hard += 1
        wrong = self._wrong_chunks(state, job, segment, segment.commit)
        self.on_hard(segment, bool(wrong))
        if not wrong:
            return
        for place in self._honest.values():
            if place.role != "validator":
                continue
            ticket = ticket_of(state, place.name, segment.commit_height)
            drawn = segment_slice(job, segment, place.key, ticket or b"")
            if seen := sorted(wrong.keys() & set(drawn)):
                raise Violation(
                    f"fraud: segment {ref.index} of {ref.job.hex()[:8]} is HARD, and {place.name} "
                    f"drew chunk {seen[0]}, which is forged ({wrong[seen[0]]})"
                )

    def _wrong_chunks(
        self, state: State, job: Job, segment: Segment, commit: SegmentCommit
    ) -> dict[int, str]:
        """Return the offsets at which re-execution gives something else, and why."""
        attempt = commit.job, commit.segment, segment.attempt
        disks = [p.disk for p in self._places if p.key == segment.worker]
        served = next((states for disk in disks if (states := disk.states(attempt))), [])
        handle = self.handle(state, job)
        every = range(commit.count + bool(commit.trap))
        if handle is None or not served:
            return dict.fromkeys(every, "nothing was served")
        first, _ = job.segment_range(commit.segment)
        plan = lesson.trainer_of(handle).plan
        leaves = [TrainingState.decode(s, plan).digest() for s in served[1 : commit.count + 1]]
        root = segment_root(self._chain_id, commit.job, commit.segment, segment.attempt,
                            segment.worker, first, tuple(leaves))  # fmt: skip
        start = TrainingState.decode(served[0], plan).digest()
        end = leaves[-1] if leaves else start
        if root != commit.leaf_root or (start, end) != (commit.start, commit.end):
            return dict.fromkeys(every, "the states are not those of the root")
        if commit.segment == 0 and start != lesson.initial(handle)[1]:
            return dict.fromkeys(every, "does not start from the initial state")
        if commit.segment == job.segments - 1 and not commit.trap and job.test_rows:
            final = TrainingState.decode(served[commit.count], plan)
            if lesson.trainer_of(handle).evaluate(final) != commit.metrics:
                return dict.fromkeys(every, "the metrics differ")
        wrong = {}
        for offset in every:
            result = lesson.run_chunk(handle, first + offset, served[offset])
            trapped = result.step + 1 if isinstance(result, Trapped) else 0
            if trapped != (commit.trap if offset == commit.count else 0):
                wrong[offset] = "the trap is not there"
            elif not isinstance(result, Trapped) and result[1] != leaves[offset]:
                wrong[offset] = "another state"
        return wrong

    def handle(self, state: State, job: Job) -> Handle | None:
        """Return the job made ready to run; None: its data is nowhere."""
        order = next((o for o in self._orders.values() if o.submit.dataset == job.dataset), None)
        plan = PLANS.get(state, job.plan)
        if order is None or not order.data or plan is None:
            return None
        task = Task(plan.plan, job.steps, job.chunk, job.train_rows, job.test_rows)
        return lesson.make_handle(codec.encode(task), order.data, job.order_seed)

    def on_job_end(self, state: State, job_id: bytes, lucky: bool) -> None:
        """An honest job ends as it should, and the honest model comes out.

        `lucky`: a forgery that nobody honest could see became HARD before; the model is its.

        Raises:
            Violation: not so.
        """
        job, order = JOBS.get(state, job_id), self._orders[job_id]
        assert job is not None
        if job.state != order.end:
            raise Violation(
                f"job {job_id.hex()[:8]} ended {JobState(job.state).name}, not {order.end.name}"
            )
        if job.state != JobState.SETTLED or lucky:
            return
        model, handle = MODELS.get(state, job_id), self.handle(state, job)
        assert handle is not None
        data = lesson.initial(handle)
        for chunk in range(job.chunks):
            result = lesson.run_chunk(handle, chunk, data[0])
            assert not isinstance(result, Trapped)
            data = result
        if model is None or model.state != data[1]:
            raise Violation(f"model: job {job_id.hex()[:8]} did not give the honest model")
