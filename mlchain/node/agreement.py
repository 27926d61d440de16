"""Agreement's host: executes what the driver asks for, keeps its time, and says when to build.

The driver's effects are executed strictly in order, so what must be on disk before a signature
leaves, is. Its clock is monotonic (a clock set back or forth moves no timeout); only the time in
a block's header is wall-clock time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, assert_never

import structlog
import trio

from mlchain import codec
from mlchain.consensus.actions import Verdict
from mlchain.consensus.driver import ANOTHER_HEIGHT, Driver
from mlchain.consensus.effects import (
    Broadcast,
    BuildBlock,
    CheckBlock,
    Decide,
    Effect,
    FetchBlocks,
    Persist,
    ReportEvidence,
    Send,
    SignMessage,
    Timeouts,
)
from mlchain.ledger.commit import Commit, Vote
from mlchain.ledger.genesis import Params
from mlchain.ledger.state import State
from mlchain.node.chain import Chain, Committed
from mlchain.node.wal import WriteAheadLog
from mlchain.p2p.transport import Channel, Transport
from mlchain.vm.agenda import count_open
from mlchain.vm.families.jobs import LATE, Phase, in_phase
from mlchain.vm.families.partitions import DUE_DRAWS
from mlchain.vm.families.predictions import OPEN, PREDICTIONS, QUEUE, Lane, PredictionState

log = structlog.get_logger("agreement")

WATCH_MS = 1_000
"""Pause between blocks while segments are being trained: chain time must pass for deadlines."""

SLEEP_MS = 60_000
"""After so long we look even where nothing is to be expected."""

BREATH = 4
"""After a block comes a pause of at least its duration by this, but of no more than a heartbeat:
what took an hour was an outage, not work."""

COMPLAIN_MS = 10_000
"""Pause between two log lines about what one peer sends."""


class Clock(Protocol):
    """The two clocks of a node."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""


class Agreement:
    """Runs one node's driver against its chain, log and network."""

    def __init__(
        self,
        chain: Chain,
        driver: Driver,
        wal: WriteAheadLog,
        transport: Transport,
        clock: Clock,
        validator_peers: tuple[bytes, ...],
        *,
        on_commit: Callable[[Committed], None],
        on_behind: Callable[[bytes, int], None],
        has_duties: Callable[[], bool],
        last_vote: Vote | None = None,
    ) -> None:
        """`last_vote`: what this validator signed last, as its signer knows it."""
        self._chain = chain
        self._driver = driver
        self._wal = wal
        self._transport = transport
        self._clock = clock
        self.validator_peers = validator_peers
        self._on_behind = on_behind
        self._has_duties = has_duties
        self._last_vote = last_vote
        self._last_block_ms = 0
        self._earliest_ms = 0
        self._pause = (-1, 0)  # height, and how long its jobs can do without a block
        self._begun: tuple[int, int] = (0, 0)  # height, when its first block was built or came
        self._wake = trio.Event()
        self._sleeps_until = 0.0
        self._is_pumping = False
        self._failure: Exception | None = None
        self._complain_at: dict[bytes, int] = {}
        self.after_commit: list[Callable[[Committed], None]] = [on_commit]
        self.on_stray: Callable[[bytes], None] = lambda frame: None
        """Called with messages about another height than ours."""
        self.on_candidate: Callable[[State], None] = lambda state: None
        """Called with the state after a block that may become final and that we vouch for."""

    def start(self) -> None:
        """Recover from the log and begin the next height."""
        chain, now = self._chain, self._clock.monotonic_ms()
        self._driver.recover(self._wal.records(), self._last_vote)
        last = chain.store.commit(chain.height) if chain.height else None
        self._last_block_ms = now
        self._driver.start(chain.height + 1, chain.validators, now, last)
        self._pump()

    def close(self) -> None:
        """Close the log."""
        self._wal.close()

    def receive(self, peer: bytes, frame: bytes) -> None:
        """Take a frame of the consensus channel; name a peer that sends nonsense, now and then."""
        now, strikes = self._clock.monotonic_ms(), self._driver.peers.strikes(peer)
        reason = self._driver.receive(peer, frame, now)
        if reason == ANOTHER_HEIGHT:
            self.on_stray(frame)
        if self._driver.peers.strikes(peer) > strikes and now >= self._complain_at.get(peer, now):
            self._complain_at[peer] = now + COMPLAIN_MS
            log.warning("bad-message", peer=peer.hex()[:8], reason=reason)
        self._pump()

    def synced(self, block: bytes, commit: Commit) -> None:
        """Take a block that block sync fetched.

        Raises:
            InvalidBlock, InvalidSignature, CodecError: the server lies.
        """
        self._driver.synced(block, commit, self._clock.monotonic_ms())
        self._pump()

    def poke(self) -> None:
        """Something that may want a block, or a timer, has changed."""
        if self._failure is None:
            try:
                if self._next_ms() >= self._sleeps_until:
                    return
            except Exception as error:  # ends the node, as one in `_pump` does
                self._failure = error
        self._wake.set()

    async def run(self) -> None:
        """Fire timers and start heights when a block is wanted; for ever.

        Raises:
            StoreCorrupted: the disk failed. What was to follow a write that failed is never done.
            InvalidBlock: a quorum decided a block that is wrong: more than a third lies.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            now = self._clock.monotonic_ms()
            due = self._driver.next_timer()
            if due is not None and due <= now:
                self._driver.handle_timer(now)
                self._pump()
            elif (until := self._next_ms()) <= now:
                self._driver.demand(now)
                self._pump()
            else:  # most messages change nothing about when there is something to do
                self._wake, self._sleeps_until = trio.Event(), min(until, now + SLEEP_MS)
                with trio.move_on_after((self._sleeps_until - now) / 1000):
                    await self._wake.wait()

    def _next_ms(self) -> float:
        """Return when a timer is due or a block is wanted, in monotonic milliseconds."""
        due = self._driver.next_timer()
        wanted = self.next_block_ms() if self._driver.round < 0 else math.inf
        return min(wanted, math.inf if due is None else due)

    def next_block_ms(self) -> int:
        """Return when this node wants the next block, in monotonic milliseconds.

        Pauses count from when the last block began, so that blocks come in the interval that was
        set; but where agreeing takes longer than that, the node gets time for its other work.
        """
        return max(self._wanted_at(), self._earliest_ms)

    def _wanted_at(self) -> int:
        params = self._chain.params
        is_urgent = self._chain.mempool.ready or self._chain.has_evidence or self._has_duties()
        if is_urgent:
            return self._last_block_ms + params.block_interval_ms
        if self._pause[0] != self._chain.height:  # the jobs are the same until the next block
            self._pause = self._chain.height, self._find_pause(params)
        return self._last_block_ms + self._pause[1]

    def _find_pause(self, params: Params) -> int:
        """Return how long jobs at work and draws can do without a block, in milliseconds."""
        pause, state = params.heartbeat_ms, self._chain.state()
        if any(True for table in (LATE, DUE_DRAWS) for _ in table.items(state)):
            return params.block_interval_ms
        for _ in in_phase(state, Phase.BEACON, Phase.VERDICT):
            return params.block_interval_ms
        if count_open(state):
            pause = min(pause, WATCH_MS)
        return _find_pause_of_predictions(state, pause, params)

    def _pump(self) -> None:
        """Execute effects until there are none; answers may bring new ones.

        One that fails ends the node through `run`, wherever we were called from: it is not the
        business of a transport, which would survive it, nor of block sync.
        """
        if self._is_pumping or self._failure is not None:
            return
        self._is_pumping = True
        try:
            while effects := self._driver.drain():
                for effect in effects:
                    self._execute(effect)
        except Exception as error:
            self._failure = error
        finally:
            self._is_pumping = False
            self.poke()

    def _execute(self, effect: Effect) -> None:
        now = self._clock.monotonic_ms()
        match effect:
            case Persist(record, sync):
                self._wal.append(record, sync)
            case SignMessage(request):
                self._driver.sign(request, now)
            case Send(peer, message):
                if peer in self.validator_peers:
                    self._transport.send(peer, Channel.CONSENSUS, message)
            case Broadcast(message):
                for peer in self.validator_peers:
                    self._transport.send(peer, Channel.CONSENSUS, message)
            case BuildBlock(height, round_):
                self._begin(height, now)
                self._build(height, round_, now)
            case CheckBlock(height, block_id, block):
                self._begin(height, now)
                self._chain.note_voters(self._driver.last_commit())
                verdict, reason = self._chain.check(block_id, block, self._clock.wall_ms())
                if reason:
                    log.info("block-refused", height=height, verdict=verdict.name, reason=reason)
                is_ok, is_wanted = verdict != Verdict.INVALID, verdict == Verdict.VALID
                self._tell_candidate(block_id)
                self._driver.checked(block_id, is_ok, now, wanted=is_wanted)
            case Decide(height, block_id, block, commit):
                self._commit(height, block_id, block, commit)
            case FetchBlocks(peer, from_height):
                self._on_behind(peer, from_height)
            case ReportEvidence(evidence):
                self._chain.add_evidence(evidence)
            case _:
                assert_never(effect)

    def _begin(self, height: int, now: int) -> None:
        if self._begun[0] != height:
            self._begun = height, now

    def _build(self, height: int, round_: int, now: int) -> None:
        block, block_id = self._chain.build(self._clock.wall_ms(), self._driver.last_commit())
        self._tell_candidate(block_id)
        self._driver.built(height, round_, codec.encode(block), block_id, now)

    def _tell_candidate(self, block_id: bytes) -> None:
        if (state := self._chain.candidate_state(block_id)) is not None:
            self.on_candidate(state)

    def _commit(self, height: int, block_id: bytes, block: bytes, commit: Commit) -> None:
        committed = self._chain.commit(block_id, block, commit)
        now = self._clock.monotonic_ms()
        took = now - self._begun[1] if self._begun[0] == height else 0
        self._last_block_ms = now - took
        self._earliest_ms = now + min(took // BREATH, self._chain.params.heartbeat_ms)
        if not self._driver.is_recovering:
            self._wal.forget()
        self._driver.timeouts = timeouts_of(self._chain.params)
        self._driver.start(height + 1, committed.validators, now, commit)
        for listener in self.after_commit:
            listener(committed)


def timeouts_of(params: Params) -> Timeouts:
    """Return the timeouts that the chain sets for its next block."""
    return Timeouts(params.propose_timeout_ms, params.vote_timeout_ms, params.timeout_step_ms)


def _find_pause_of_predictions(state: State, pause: int, params: Params) -> int:
    """Return how long requests can do without a block, at most `pause` milliseconds.

    Deadlines need some; draws of committees, and those who wait for the last few, need the next.
    """
    at_work = [PREDICTIONS.get(state, key) for (key,), _ in OPEN.items(state)]
    for lane in Lane:
        first = next(QUEUE.items(state, lane), None)
        if first is not None:
            at_work.append(PREDICTIONS.get(state, first[0][2]))
    for found in at_work:
        pause = min(pause, WATCH_MS)
        if found is not None and (found.ready or found.state == PredictionState.DRAWING):
            return params.block_interval_ms
    return pause
