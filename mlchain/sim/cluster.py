"""A whole cluster in one thread: the real driver of every validator; time is only a number.

`run(scenario)` is a function of the scenario alone. Every host behaves as `consensus/effects.py`
demands, except that it may crash between any two effects; then only what was synced remains.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Any

from mlchain import crypto
from mlchain.consensus.driver import Driver
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
from mlchain.consensus.journal import decode_entry
from mlchain.consensus.messages import BlockProposal
from mlchain.consensus.safety import Signer
from mlchain.errors import MlchainError
from mlchain.ledger.commit import Commit, Vote, VoteKind
from mlchain.ledger.validators import Validator, ValidatorSet
from mlchain.sim.adversary import ADVERSARIES, CHAIN_ID, Adversary, Schemer, decode_once
from mlchain.sim.application import Application, TinyLedger, ToyKey, is_signed
from mlchain.sim.checkers import Checkers, Violation
from mlchain.sim.mutants import MUTANTS, Mutant
from mlchain.sim.network import Network, make_weather
from mlchain.sim.place import Place, is_lock
from mlchain.sim.scenario import Happening, Outcome, Scenario
from mlchain.sim.stalls import Stall, Stalls
from mlchain.sim.transcript import describe, speech

TIMEOUTS = Timeouts(propose_ms=100, vote_ms=50, step_ms=30, cap_ms=1_000, gossip_ms=80)
GST_MS = 2_000
LIMIT_MS = 20_000
MAX_EVENTS = 60_000
"""With four nodes; messages grow with the square of the nodes."""
PROPOSAL_TAG = b"\x01"
read_entry = lru_cache(maxsize=4096)(decode_entry)


class Cluster:
    """Runs one scenario."""

    def __init__(
        self,
        scenario: Scenario,
        make_ledger: Callable[[bytes, int], Application] = TinyLedger,
    ) -> None:
        self._scenario = scenario
        self._rng = rng = Random(f"{scenario.seed}/{scenario.nodes}")
        self._make_ledger = make_ledger
        self._mutant = MUTANTS[scenario.mutant] if scenario.mutant else Mutant()
        self._blocks: dict[int, dict[bytes, bytes]] = {}
        self._queue: list[tuple[int, int, str, int, int, Any]] = []
        self._count = 0
        self._now = 0
        self._hash = blake2b(digest_size=16)
        keys = sorted(
            (ToyKey(f"validator {i}") for i in range(scenario.nodes)), key=lambda k: k.public
        )
        self._validators = ValidatorSet(tuple(Validator(key.public, 1) for key in keys))
        drawn = rng.choice((*ADVERSARIES, "none"))
        name = scenario.adversary or self._mutant.adversary or drawn
        kind = ADVERSARIES.get(name) if self._validators.faults else None
        bad = rng.sample(keys, self._validators.faults) if kind else []
        self._places: list[Place] = []
        pairs = []
        for index, key in enumerate(keys):
            where = (index, len(keys))
            adversary = kind(rng, key, where, self._blocks) if kind and key in bad else None
            for copy in range(adversary.copies if adversary else 1):
                self._places.append(self._make_place(key, copy, adversary))
            if adversary and adversary.copies == 2:
                pairs.append((len(self._places) - 2, len(self._places) - 1))
        weather = make_weather(rng, GST_MS)
        self._crash_rate = rng.choice((0, 3, 10, 20))
        self._disks = disks = Random(f"{scenario.seed}/disks")
        others = scenario.nodes > 1  # from whom to fetch what was lost
        self._unlucky = disks.choice(self._places) if others and disks.random() < 0.25 else None
        self._network = Network(rng, weather, len(self._places), pairs)
        self._correct = [p for p in self._places if p.adversary is None]
        self._peers = {p.peer: p for p in self._places}
        self._checkers = Checkers(self._validators, tuple(k.public for k in bad))
        self._must_convict = tuple(k.public for k in bad if kind and kind.is_found)
        self.outcome = Outcome(scenario, name if kind else "none")
        self.outcome.lanes = [f"place_{place.index}" for place in self._places]
        self._stalls = Stalls(
            self._validators, tuple(p.index for p in self._correct), weather, TIMEOUTS
        )
        self._network.on_move = self._on_moved
        self._network.on_mute = self._stalls.on_mute

    def run(self) -> Outcome:
        """Run until every correct validator decided all heights in the calm, or time is up."""
        try:
            self._run()
        except Violation as violation:
            self.outcome.violation = str(violation)
        self.outcome.virtual_ms = self._now
        self.outcome.stalls = [stall.cause for stall in self._stalls.found]
        self.outcome.heights = self._heights()
        self.outcome.convicted = len(self._checkers.convicted)
        self.outcome.digest = self._hash.hexdigest()
        return self.outcome

    # ---- time -----------------------------------------------------------------------------

    def _run(self) -> None:
        rng = self._rng
        for place in self._places:
            self._boot(place)
        for _ in range(rng.randrange(4)):
            victim = rng.choice(self._places)
            self._at(rng.randrange(GST_MS), "crash", victim.index, -1, None)
        most = MAX_EVENTS * max(4, self._scenario.nodes) ** 2 // 16
        while self._queue and self.outcome.events < most and self._now < LIMIT_MS:
            self._now, _, event, index, life, what = heapq.heappop(self._queue)
            place = self._places[index]
            if life not in (-1, place.life):
                continue
            self.outcome.events += 1
            self._handle(place, event, what)
            if self._network.is_calm(self._now) and self._is_done():
                break
        for place in self._correct if self._now >= LIMIT_MS else ():
            if place.driver is not None:
                where = len(place.chain) + 1, place.driver.round
                self._check_stall(self._stalls.on_progress(place.index, *where, self._now))
        self._checkers.on_end(self._heights(), self._scenario.heights, self._must_convict)

    def _heights(self) -> list[int]:
        return [len(place.chain) for place in self._correct]

    def _is_done(self) -> bool:
        if any(len(place.chain) < self._scenario.heights for place in self._correct):
            return False
        return all(key in self._checkers.convicted for key in self._must_convict)

    def _at(self, delay: int, event: str, index: int, life: int, what: object) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self._now + delay, self._count, event, index, life, what))

    def _handle(self, place: Place, event: str, what: Any) -> None:
        driver = place.driver
        if event == "boot":
            self._boot(place)
            return
        if driver is None:
            return
        if event == "crash":
            self._crash(place)
            return
        if event == "timer" and what != place.timer_at:
            return  # an earlier one was set since
        self._note(place, event, what)
        if event == "message":
            driver.receive(what[0], what[1], self._now)
        elif event == "timer":
            place.timer_at = None
            driver.handle_timer(self._now)
        elif event == "demand":
            driver.demand(self._now)
        elif event == "built":
            height, round_, block, block_id = what
            driver.built(height, round_, block, block_id, self._now)
        elif event == "checked":
            block_id, height, block = what
            driver.checked(block_id, place.ledger.check(height, block), self._now)
        elif event == "blocks":
            self._sync(place, driver, what)
        self._pump(place)

    def _show(self, place: Place | None, kind: str, text: str = "") -> None:
        """Take down one thing for the picture."""
        if self._scenario.transcript:
            lane = f"place_{place.index}" if place else ""
            self.outcome.story.append(Happening(self._now, lane, kind, text))

    def _show_speech(self, place: Place, data: bytes) -> None:
        if self._scenario.transcript and isinstance(m := decode_once(data), Vote | BlockProposal):
            self._show(place, *speech(m))

    def _on_moved(self, at_ms: int, sides: list[int]) -> None:
        self._stalls.on_move(at_ms, sides)
        small = 0 if sum(sides) * 2 > len(sides) else 1
        names = [f"place_{i}" for i, side in enumerate(sides) if side == small]
        self._show(None, "partition", " ".join(names))

    def _note(self, place: Place, event: str, what: Any) -> None:
        data = what[1] if event == "message" else b""
        self._hash.update(b"%d %d %b %b" % (self._now, place.index, event.encode(), data))
        if self._scenario.transcript:
            self.outcome.transcript.append(describe(self._now, place.index, event, what))

    # ---- one process ----------------------------------------------------------------------

    def _make_place(self, key: ToyKey, copy: int, adversary: Adversary | None) -> Place:
        index = len(self._places)
        peer = crypto.digest("mlchain/sim/peer", bytes([index]))
        return Place(index, key, copy, adversary, peer, self._make_ledger(key.public, copy))

    def _boot(self, place: Place) -> None:
        """Start the process from what is on its disk."""
        kind = place.adversary.driver_type if place.adversary else self._mutant.driver

        def save(data: bytes) -> None:
            place.last_sign = data

        signer = Signer(place.key, CHAIN_ID, place.last_sign, save)
        place.driver = driver = kind(
            CHAIN_ID,
            place.key.public,
            TIMEOUTS,
            signer.sign,
            place.ledger.extend,
            place.ledger.verify_extension,
            is_signed=is_signed,
            identify=place.ledger.identify,
        )
        driver.decode = decode_once
        driver.recover(place.synced)
        self._show(place, "boot")
        self._start(place)
        self._pump(place)

    def _start(self, place: Place) -> None:
        assert place.driver is not None
        last = place.chain[-1][1] if place.chain else None
        place.driver.start(len(place.chain) + 1, self._validators, self._now, last)
        lazy = not self._network.is_calm(self._now) and self._rng.random() < 0.2
        delay = int(self._rng.random() * (400 if lazy else 20))
        self._at(delay, "demand", place.index, place.life, None)

    def _crash(self, place: Place) -> None:
        """Stop the process; what was not synced is lost, but for a random beginning of it."""
        self.outcome.crashes += 1
        self._show(place, "crash")
        survivors = place.unsynced[: self._rng.randrange(len(place.unsynced) + 1)]
        place.synced += survivors
        place.unsynced = []
        if self._mutant.loses_log and not place.adversary:
            place.synced = []
        if self._mutant.loses_last_sign and not place.adversary:
            place.last_sign = None
        if place is self._unlucky:
            self._lose_blocks(place)
        place.driver = None
        place.timer_at = None
        place.life += 1
        pause = 1 + int(self._rng.random() * 200)
        self._stalls.on_down(place.index, self._now, self._now + pause)
        self._at(pause, "boot", place.index, place.life, None)

    def _lose_blocks(self, place: Place) -> None:
        """Its database is damaged and fetched anew; log and last signature are elsewhere."""
        del place.chain[self._disks.randrange(len(place.chain) + 1) :]
        place.ledger = self._make_ledger(place.key.public, place.copy)
        for height, (block, commit) in enumerate(place.chain, 1):
            place.ledger.commit(height, block, commit)

    def _pump(self, place: Place) -> None:
        """Execute effects until there are none, or the process crashes amid them."""
        while place.driver is not None and (effects := place.driver.drain()):
            stop = self._crash_point(place, effects)
            for effect in effects[:stop]:
                self._execute(place, effect)
            if stop < len(effects):
                self._crash(place)
        if place.driver is None:
            return
        at = place.driver.next_timer()
        if at is not None and (place.timer_at is None or at < place.timer_at):
            place.timer_at = at
            self._at(max(at - self._now, 0), "timer", place.index, place.life, at)

    def _crash_point(self, place: Place, effects: list[Effect]) -> int:
        """Return how many of `effects` are executed; crashing around an own vote hurts most."""
        if self._network.is_calm(self._now):
            return len(effects)
        intents = [read_entry(e.record) for e in effects if isinstance(e, Persist) and e.sync]
        if not intents:
            return len(effects)
        rate = self._crash_rate
        if any(is_lock(intent) for intent in intents):
            rate *= 3  # a lock was just taken
        if self._rng.random() * 100 >= rate:
            return len(effects)
        return self._rng.randrange(len(effects))

    def _execute(self, place: Place, effect: Effect) -> None:
        rng, life = self._rng, place.life
        if isinstance(effect, Persist):
            place.unsynced.append(effect.record)
            if effect.sync:
                place.synced += place.unsynced
                place.unsynced = []
        elif isinstance(effect, SignMessage):
            assert place.driver is not None
            place.driver.sign(effect.request, self._now)
        elif isinstance(effect, Send):
            self._send(place, self._peers[effect.peer], effect.message)
        elif isinstance(effect, Broadcast):
            self._show_speech(place, effect.message)
            if place.adversary is None:
                self._watch(place, effect.message)
            for other in self._places:
                if other is not place:
                    self._send(place, other, effect.message)
        elif isinstance(effect, BuildBlock):
            assert place.driver is not None
            block = place.ledger.build(effect.height, effect.round, place.driver.last_commit())
            block_id = place.ledger.identify(block)
            self._blocks.setdefault(effect.height, {})[block_id] = block
            answer = (effect.height, effect.round, block, block_id)
            self._at(int(rng.random() * 10), "built", place.index, life, answer)
        elif isinstance(effect, CheckBlock):
            what = (effect.block_id, effect.height, effect.block)
            self._at(int(rng.random() * 10), "checked", place.index, life, what)
        elif isinstance(effect, Decide):
            self._decide(place, effect)
        elif isinstance(effect, FetchBlocks):
            self._fetch(place, effect)
        elif isinstance(effect, ReportEvidence) and place.adversary is None:
            self._checkers.on_evidence(effect.evidence)

    def _watch(self, place: Place, data: bytes) -> None:
        """Check what a correct place says; the adversary watches too."""
        message = decode_once(data)
        self._checkers.on_signed(place.key.public, message)
        if isinstance(message, Vote) and message.kind == VoteKind.PRECOMMIT and message.block_id:
            schemers = [p.adversary for p in self._places if isinstance(p.adversary, Schemer)]
            if not schemers or not schemers[0].is_victim(message, place.index):
                return
            if self._network.silences(place.index, self._now):
                for schemer in schemers:
                    schemer.sprung[message.height] = message.round
                self._fail_power(place)

    def _fail_power(self, victim: Place) -> None:
        """Perhaps crash, one after another, those who could tell what `victim` decides."""
        if self._crash_rate and self._rng.random() < 0.5:
            for other in self._correct:
                if other is not victim:
                    delay = 10 + int(self._rng.random() * 60)
                    self._at(delay, "crash", other.index, -1, None)

    def _decide(self, place: Place, effect: Decide) -> None:
        self._show(place, "decided", f"{effect.height} {effect.block_id.hex()[:8]}")
        if place.adversary is None:
            is_valid = place.ledger.check(effect.height, effect.block)
            self._checkers.on_decide(effect.height, effect.block_id, effect.commit, is_valid)
            self.outcome.rounds = max(self.outcome.rounds, effect.commit.round)
            assert place.driver is not None
            where = effect.height, max(place.driver.round, effect.commit.round)
            self._check_stall(self._stalls.on_progress(place.index, *where, self._now))
        place.ledger.commit(effect.height, effect.block, effect.commit)
        place.chain.append((effect.block, effect.commit))
        if place.driver is None or not place.driver.is_recovering:
            place.synced, place.unsynced = [], []
        self._start(place)

    def _check_stall(self, stall: Stall | None) -> None:
        """Every stall needs an explanation."""
        if stall is not None:
            self._show(self._places[stall.place], "stall", str(stall))
            if not stall.cause:
                raise Violation(f"liveness: {stall}")

    # ---- between processes ----------------------------------------------------------------

    def _send(self, sender: Place, receiver: Place, data: bytes) -> None:
        messages: Sequence[bytes] = (data,)
        if sender.adversary is not None:
            calm = self._network.is_calm(self._now)
            messages = sender.adversary.outgoing(data, receiver.index, calm)
        now, to, life = self._now, receiver.index, receiver.life
        for message in messages:
            is_block = message[:1] == PROPOSAL_TAG
            for delay in self._network.delays(sender.index, to, now, is_block):
                self._count += 1
                what = (sender.peer, message)
                heapq.heappush(self._queue, (now + delay, self._count, "message", to, life, what))

    def _fetch(self, place: Place, effect: FetchBlocks) -> None:
        server = self._peers[effect.peer]
        if server.adversary is not None and not server.adversary.serves_blocks:
            return
        blocks = server.chain[effect.from_height - 1 :][:8]
        connected = self._network.is_connected(server.index, place.index, self._now)
        if server.driver is not None and connected and blocks:
            self._at(2 + int(self._rng.random() * 20), "blocks", place.index, place.life, blocks)

    def _sync(self, place: Place, driver: Driver, blocks: list[tuple[bytes, Commit]]) -> None:
        for block, commit in blocks:
            try:
                driver.synced(block, commit, self._now)
            except MlchainError:
                return
            self._pump(place)
            if place.driver is not driver:
                return
