"""Validators that misuse their turn to make a block, and their vote on those of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from mlchain.consensus.actions import Verdict
from mlchain.ledger.block import Block, SegmentRef, body_root, header_id
from mlchain.ledger.commit import Commit
from mlchain.ledger.state import State
from mlchain.ledger.transaction import decode_transaction
from mlchain.node.chain import Chain, Committed
from mlchain.node.subject import Target
from mlchain.sim.work.cheat import Cheat
from mlchain.vm.families.jobs import SEGMENTS, Phase, Segment, SegmentState, in_phase
from mlchain.vm.families.segments import MakeClaim


class BlindChain(Chain):
    """Objects to nothing that is valid."""

    on_checked: Callable[[State], None] | None = None

    def _is_wanted(self, ref: SegmentRef, segment: Segment) -> bool:
        return True

    def check(self, block_id: bytes, data: bytes, now_ms: int) -> tuple[Verdict, str]:
        verdict = super().check(block_id, data, now_ms)
        candidate = self._candidates.get(block_id)
        if candidate is not None and self.on_checked is not None:
            self.on_checked(candidate.state)
        return verdict

    def committed_in(self, state: State) -> Iterator[Target]:
        """Yield the segments that are committed in a state."""
        for job_id, job in in_phase(state, Phase.VERDICT):
            for index in range(job.hard, job.assigned):
                segment = SEGMENTS.get(state, job_id, index)
                if segment and segment.commit is not None:
                    yield Target(job_id, job, index, segment, segment.commit)


class DeafChain(BlindChain):
    """Leaves claims and evidence out of its blocks."""

    def build(self, now_ms: int, last_commit: Commit | None) -> tuple[Block, bytes]:
        self._evidence.clear()
        mempool: Any = self.mempool
        take = mempool.take
        mempool.take = lambda *args: [
            data for data in take(*args) if decode_transaction(data).body.kind != MakeClaim.KIND
        ]
        try:
            return super().build(now_ms, last_commit)
        finally:
            mempool.take = take


class NarrowChain(DeafChain):
    """Includes the fewest votes of the parent that will do, its friends' first."""

    friends: tuple[bytes, ...] = ()

    def build(self, now_ms: int, last_commit: Commit | None) -> tuple[Block, bytes]:
        if last_commit is not None:
            order = sorted(last_commit.signatures, key=lambda s: s.validator not in self.friends)
            fewest = sorted(order[: self.validators.quorum], key=lambda s: s.validator)
            last_commit = replace(last_commit, signatures=tuple(fewest))
        return super().build(now_ms, last_commit)


class _HastyChain(BlindChain):
    """Declares HARD whatever is committed."""

    def build(self, now_ms: int, last_commit: Commit | None) -> tuple[Block, bytes]:
        block, _ = super().build(now_ms, last_commit)
        early = tuple(
            SegmentRef(t.job_id, t.number)
            for t in self.committed_in(self.store.state())
            if t.segment.state == SegmentState.COMMITTED and t.number == t.job.hard
        )
        body = replace(block.body, finalise=early[:1])
        block = Block(replace(block.header, body_root=body_root(body)), body)
        return block, header_id(block.header)


class _RepeatChain(Chain):
    """Includes a transaction again that stands in an earlier block."""

    _old: tuple[bytes, ...] = ()

    def build(self, now_ms: int, last_commit: Commit | None) -> tuple[Block, bytes]:
        mempool: Any = self.mempool
        take = mempool.take
        mempool.take = lambda *args: [*take(*args), *self._old]
        try:
            block, identity = super().build(now_ms, last_commit)
        finally:
            mempool.take = take
        if not set(self._old) - set(block.body.transactions):
            return block, identity
        body = replace(block.body, transactions=(*block.body.transactions, *self._old))
        block = Block(replace(block.header, body_root=body_root(body)), body)
        return block, header_id(block.header)

    def commit(self, block_id: bytes, data: bytes, commit: Commit) -> Committed:
        committed = super().commit(block_id, data, commit)
        self._old = committed.block.body.transactions[:1] or self._old
        return committed


class _RootChain(Chain):
    """Says that its block leads to another state."""

    def build(self, now_ms: int, last_commit: Commit | None) -> tuple[Block, bytes]:
        block, _ = super().build(now_ms, last_commit)
        block = Block(replace(block.header, state_root=bytes(32)), block.body)
        return block, header_id(block.header)


class _AheadChain(Chain):
    """Makes its blocks tomorrow, so that every deadline has passed."""

    def build(self, now_ms: int, last_commit: Commit | None) -> tuple[Block, bytes]:
        return super().build(now_ms + 24 * 3600 * 1000, last_commit)


class DropVotes(Cheat):
    """Leaves honest votes, claims and evidence out of its blocks."""

    row = "8 pick and drop voters"
    parts = {"chain_type": NarrowChain}


class Censor(Cheat):
    """Leaves claims and evidence out of its blocks."""

    row = "22 censor claims and evidence"
    parts = {"chain_type": DeafChain}


class Hasty(Cheat):
    """Declares segments HARD before their time."""

    row = "8 finalise early"
    parts = {"chain_type": _HastyChain}


class NoVeto(Cheat):
    """Prevotes every block, whatever it has not attested."""

    row = "8 never object"
    parts = {"chain_type": BlindChain}


class WrongRoots(Cheat):
    """Proposes blocks whose roots are not those of their execution."""

    row = "26 propose what is not valid"
    parts = {"chain_type": _RootChain}


class Repeat(Cheat):
    """Includes transactions twice: who sent one would pay twice."""

    row = "26 propose what is not valid"
    parts = {"chain_type": _RepeatChain}


class Ahead(Cheat):
    """Proposes blocks of tomorrow."""

    row = "26 make deadlines pass"
    parts = {"chain_type": _AheadChain}
