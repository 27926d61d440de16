"""A run of whole nodes: who plays, the weather, the orders, and when it is over."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any

import trio

from mlchain import codec
from mlchain.consensus.messages import BlockProposal, decode_message
from mlchain.errors import MlchainError
from mlchain.ledger.block import Block
from mlchain.ledger.commit import Vote
from mlchain.ledger.genesis import Member
from mlchain.ledger.transaction import decode_transaction, transaction_id
from mlchain.node.chain import Committed
from mlchain.sim.adversary import Blocks
from mlchain.sim.checkers import Violation
from mlchain.sim.network import Network, Weather, make_weather
from mlchain.sim.scenario import Happening, Outcome, Scenario
from mlchain.sim.transcript import speech
from mlchain.sim.work import casting
from mlchain.sim.work.cast import BOND, CHAIN_ID, MONEY, make_genesis, make_key
from mlchain.sim.work.cheat import Cheat
from mlchain.sim.work.cheats import CHEATS
from mlchain.sim.work.explain import explain
from mlchain.sim.work.invented import run_invented
from mlchain.sim.work.mutants import MUTANTS, mutated
from mlchain.sim.work.order import Order, draw_orders, sign_all
from mlchain.sim.work.place import SPEAKER, Place
from mlchain.sim.work.promises import Promises
from mlchain.sim.work.waits import Waits
from mlchain.sim.work.wire import PostOffice, now_ms
from mlchain.vm.families.jobs import JOBS, JobState
from mlchain.vm.families.segments import CommitSegment

STORM_MS = 12_000
"""The weather calms before anybody's patience ends (`node.chain.PATIENCE_MS`)."""
LIMIT_MS = 400_000
DELIVERED_A_PAIR = 12_000
"""Frames a place sends another before a run is given up: time may stand still while they fly."""
LOOK_S = 0.5


class World:
    """Runs one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = rng = Random(f"work/{scenario.seed}/{scenario.nodes}")
        workers = 2 + rng.randrange(2)
        self.genesis = make_genesis(scenario.nodes, workers)
        weather = make_weather(rng, STORM_MS)
        begin = rng.choice((0, 0, 4_000, 8_000, 12_000))
        self.weather = Weather(
            begin + STORM_MS, weather.loss, weather.block_loss, weather.repeat, weather.delay_ms,
            weather.partitions, 0, 1_500, begin,
        )  # fmt: skip
        self._crash_rate = rng.choice((0.0, 0.0, 0.004, 0.01, 0.02))
        self._is_drawing = False
        self.orders = draw_orders(rng, scenario.orders)
        self.outcome = Outcome(scenario, "none")
        self._hash = blake2b(digest_size=16)
        self._failure: Violation | None = None
        self.refusals: dict[str, str] = {}
        """The last thing that each place refused or gave up, for explaining a stall."""
        if scenario.calm:
            self.weather = Weather(1, 0, 0, 0, 3, 0, 0)
            self._crash_rate = 0.0
        self.cheats: list[Cheat] = []
        self.blocks: Blocks = {}
        """What anybody proposed, for the liars of the agreement."""
        self.memory: dict[int, list[bytes]] = {}
        """Old frames by channel, for those who replay them."""
        self.mallory = make_key("mallory").public
        self._told = 0
        """Height of the last block whose contents were told."""
        self._lucky: dict[bytes, None] = {}
        self._ended: dict[bytes, None] = {}

    # ---- before the run -----------------------------------------------------------------------

    def _set_up(self) -> None:
        """Make the places; inside invented time."""
        rng = self.rng
        names = casting.draw(self.scenario, rng)
        for name in names:
            self.genesis = CHEATS[name].found(self.genesis)
        members = list(self.genesis.members)
        twins = casting.twins(names, members, rng)
        size = len(members) + len(twins)
        pairs = [(members.index(m), len(members) + i) for i, m in enumerate(twins)]
        network = Network(rng, self.weather, size, pairs)
        self.office = PostOffice(network)
        network.on_move = self._on_moved
        if self.scenario.transcript:
            self.office.on_speech = self._on_frame
        self.places = [self._make_place(i, m) for i, m in enumerate([*members, *twins])]
        self.cheats = casting.cast(self, names, rng)
        self.outcome.adversary = "+".join(names) or "none"
        parts = MUTANTS[self.scenario.mutant].parts if self.scenario.mutant else {}
        for place in self.honest("validator") + self.honest("worker") if parts else ():
            place.node_type = type("MutantNode", (place.node_type,), parts)
        for cheat in self.cheats:
            cheat.order()
        self.transactions = sign_all(self.orders, self.genesis)
        self.jobs: dict[bytes, Order] = {
            transaction_id(data): order
            for data, order in zip(self.transactions[1::2], self.orders, strict=True)
        }
        supply = 2 * MONEY + BOND * len(self.genesis.members)
        self.promises = Promises(self.places, self.jobs, supply, CHAIN_ID)
        self.promises.on_hard = self._on_hard
        self.waits = Waits(self.places, self.office, self.weather)
        self.outcome.lanes = [place.name for place in self.places]

    def _make_place(self, index: int, member: Member) -> Place:
        place = Place(index, member, self.genesis, self.office, self.rng)
        place.skew_ms = 0 if self.scenario.calm else self.rng.randrange(-400, 400)
        place.draw = lambda: self._draws_crash()
        place.on_start.append(self._on_start)
        place.on_crash.append(self._on_crash)
        place.on_bug = lambda place, what: self.fail(f"bug: {place.name}: {what}")
        place.disk.on_save = lambda data: self._on_save(place, data)
        return place

    def honest(self, role: str) -> list[Place]:
        """Return the honest places of a role."""
        return [p for p in self.places if p.role == role and p.is_honest]

    # ---- the run ------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run until every honest node has seen every job end, or time is up."""
        outcome = self.outcome
        try:
            with mutated(self.scenario.mutant):
                run_invented(self._main, f"{self.scenario.seed}", self._hear)
            if self._failure is not None:
                raise self._failure
        except Violation as violation:
            outcome.violation = str(violation)
        outcome.crashes = sum(place.crashes for place in self.places)
        outcome.convicted = len(self.promises.slashed)
        outcome.hard = self.promises.hard
        outcome.stalls = [stall.cause for stall in self.waits.stalls.found]
        outcome.events = self.office.delivered
        outcome.digest = self._hash.hexdigest()
        return outcome

    async def _main(self) -> None:
        self._set_up()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.office.run)
            for place in self.places:
                nursery.start_soon(place.live)
            nursery.start_soon(self._submit_all)
            for cheat in self.cheats:
                nursery.start_soon(cheat.run)
            await self._watch()
            nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        is_calm, most = False, DELIVERED_A_PAIR * len(self.places) ** 2
        while self._failure is None:
            await trio.sleep(LOOK_S)
            self.outcome.virtual_ms = now_ms()
            if not is_calm and self.office.network.is_calm(now_ms()):
                is_calm = True
                self.illustrate("", "calm", "")
            if self._is_over():
                self.outcome.heights = self._heights()
                self._check_end()
                return
            self._keeps(self.waits.look)
            if now_ms() > LIMIT_MS or self.office.delivered > most:
                self.outcome.heights = self._heights()
                self.fail(f"liveness: {explain(self)}")

    def _keeps(self, check: Callable[[], None]) -> None:
        """Have a promise looked at."""
        try:
            check()
        except Violation as violation:
            self.fail(str(violation))

    def fail(self, what: str) -> None:
        """A promise was broken."""
        self._failure = self._failure or Violation(what)

    def _heights(self) -> list[int]:
        return [p.node.chain.height if p.node else -1 for p in self.honest("validator")]

    def _is_over(self) -> bool:
        if now_ms() < self.weather.gst_ms:
            return False
        for place in self.honest("validator"):
            if place.node is None:
                return False
            for job_id in self.jobs:
                job = JOBS.get(place.node.chain.state(), job_id)
                if job is None or job.state <= JobState.RUNNING:
                    return False
        missed = [cheat for cheat in self.cheats if cheat.must_fail and not self._is_caught(cheat)]
        return not missed

    def _is_caught(self, cheat: Cheat) -> bool:
        place = cheat.place
        return place is None or any(s.startswith(place.name + " ") for s in self.promises.slashed)

    def _check_end(self) -> None:
        place = self.honest("validator")[0]
        assert place.node is not None
        state = place.node.chain.state()
        for cheat in self.cheats:
            if not cheat.is_refused():
                self.fail(f"refused: what {cheat.name()} did was not")
        for job_id in self.jobs:
            job = JOBS.get(state, job_id)
            assert job is not None
            name = JobState(job.state).name
            self.outcome.jobs[name] = self.outcome.jobs.get(name, 0) + 1
            lucky = job_id in self._lucky
            self._keeps(
                lambda job_id=job_id, lucky=lucky: self.promises.on_job_end(state, job_id, lucky)
            )

    def _draws_crash(self) -> bool:
        if not self._crash_rate or self.office.network.is_calm(now_ms()):
            return False
        return self.rng.random() < self._crash_rate

    # ---- what happens -------------------------------------------------------------------------

    def tell(self, lane: str, kind: str, text: str) -> None:
        """Take down one thing, for digest, transcript and picture."""
        at = now_ms()
        self._hash.update(f"{at} {lane} {kind} {text}\n".encode())
        self.illustrate(lane, kind, text)

    def illustrate(self, lane: str, kind: str, text: str) -> None:
        """Take down one thing for transcript and picture only."""
        if self.scenario.transcript:
            at = now_ms()
            self.outcome.story.append(Happening(at, lane, kind, text))
            self.outcome.transcript.append(f"{at:7d} ms  {lane:12s} {kind:10s} {text}".rstrip())

    def _on_frame(self, place: Place, frame: bytes) -> None:
        """Show what a place says in agreement."""
        message = decode_message(frame)
        if isinstance(message, Vote | BlockProposal):
            self.illustrate(place.name, *speech(message))

    def _on_moved(self, at_ms: int, sides: list[int]) -> None:
        """Note a partition, and show who is on the smaller side."""
        self.waits.stalls.on_move(at_ms, sides)
        small = 0 if sum(sides) * 2 > len(sides) else 1
        cut = [p.name for p, side in zip(self.places, sides, strict=True) if side == small]
        self.illustrate("", "partition", " ".join(cut))

    def _hear(self, event: str, details: dict[str, Any]) -> None:
        place = SPEAKER.get()
        name = place.name if place else ""
        words = " ".join(f"{k}={v}" for k, v in details.items())
        if event == "bug":
            self.fail(f"bug: {name}: {words}")
        if event in ("started", "segment-started"):
            return
        if event == "block-refused" and place is not None:
            self.waits.on_refused(place, details["verdict"])
        if event in ("block-refused", "audit-interrupted", "not-admitted", "sync-interrupted"):
            self.refusals[name] = f"{event} {words}"
        if event == "claim" or event == "verdict":
            self.outcome.claims += event == "claim"
        self.tell(name, event, words)

    def _on_start(self, place: Place) -> None:
        assert place.node is not None or place.transport is not None
        self.tell(place.name, "boot", f"life {place.life}")
        node = place.node
        assert node is not None
        node.agreement.after_commit.append(lambda committed: self._on_commit(place, committed))

    def _on_crash(self, place: Place) -> None:
        self.tell(place.name, "crash", "")

    def _on_save(self, place: Place, data: bytes) -> None:
        if place.is_honest:
            self._keeps(lambda: self.promises.on_save(place, data))

    def _on_commit(self, place: Place, committed: Committed) -> None:
        header = committed.block.header
        self.tell(place.name, "decided", f"{header.height} {committed.block_id.hex()[:8]}")
        if place.is_honest and place.node is not None:
            before = self.promises.hard, len(self.promises.slashed)
            store = place.node.chain.store
            self._keeps(lambda: self.promises.on_block(store, committed))
            self._keeps(lambda: self._note_progress(place, committed))
            if header.height > self._told:
                self._told = header.height
                self._tell_block(committed.block)
            for who in self.promises.slashed[before[1] :]:
                self.tell(who.split(" ")[0], "slashed", who)

    def _note_progress(self, place: Place, committed: Committed) -> None:
        assert place.node is not None
        round_ = place.node.chain.store.commit(committed.block.header.height).round
        self.outcome.rounds = max(self.outcome.rounds, round_)
        stall = self.waits.on_commit(place, committed, round_)
        if stall is not None:
            self.illustrate(place.name, "stall", str(stall))

    def _tell_block(self, block: Block) -> None:
        for ref in block.body.finalise:
            self.tell("", "HARD", f"segment {ref.index} of {ref.job.hex()[:8]}")
        names = {p.key: p.name for p in self.places}
        for body in (decode_transaction(data).body for data in block.body.transactions):
            if body.kind == CommitSegment.KIND:
                commit = codec.decode(CommitSegment, body.payload).commit
                where = f"segment {commit.segment} of {commit.job.hex()[:8]}"
                self.tell(names.get(body.sender, ""), "commit", where)

    def _on_hard(self, segment: Any, is_forged: bool) -> None:
        if is_forged:
            self._lucky[segment.commit.job] = None
            self.tell("", "lucky", "a forgery that nobody honest drew is HARD")

    # ---- the submitter ------------------------------------------------------------------------

    async def _submit_all(self) -> None:
        """Hand in every transaction again, at any honest worker, until it stands on chain."""
        while True:
            await trio.sleep(0.3 + self.rng.random())
            for place in self.honest("worker"):
                node = place.node
                if node is None or (not node.chain.height and now_ms() < 2_000):
                    continue
                waiting = [
                    t for t in self.transactions
                    if node.chain.store.find_transaction(transaction_id(t)) is None
                ]  # fmt: skip
                if not waiting:
                    return
                await self._hand_in(place, waiting)
                await trio.sleep(3)

    async def _hand_in(self, place: Place, transactions: list[bytes]) -> None:
        node, life = place.node, place.life
        assert node is not None
        with place.speaking():
            for order in self.orders:
                if order.data and not node.content.has(order.register.content):
                    place.do(lambda order=order: node.content.put(order.data))
            for data in transactions:
                if place.life != life:
                    return
                try:
                    await node.submit_transaction(data)
                except MlchainError:
                    continue


def run_work(scenario: Scenario) -> Outcome:
    """Run one scenario of whole nodes."""
    return World(scenario).run()
