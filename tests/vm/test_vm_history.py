"""Whole histories from a seed: what holds at every block, whatever happens.

`World.block` itself asserts, at every block, that the supply is conserved and that a second node
finds the same roots. Here is only the imagination: who does what next.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from vm.world import JOB, PARAMS, World, make_genesis

from mlchain import codec
from mlchain.consensus.work.attestation import Outcome, Verdict
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.errors import InvalidBlock, MlchainError
from mlchain.ledger.block import Body, decode_block
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.vm.execute import build_block, propose_block
from mlchain.vm.families import KINDS
from mlchain.vm.families.accounts import Transfer, get_account
from mlchain.vm.families.jobs import ACTIVE, JOBS, SEGMENTS, JobState, SegmentState
from mlchain.vm.families.segments import CommitSegment

PEOPLE = ("alice", "worker-0", "worker-1", "worker-2", "validator-0", "validator-1")


class History:
    """Draws the next block: honest work most of the time, misdeeds and accidents now and then."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(4, 3, make_genesis(4, 3, params=replace(PARAMS, attest_window=12)))
        self.seen: Counter[str] = Counter()

    def run(self, blocks: int) -> None:
        self.lend()
        self.world.submit(steps=600)
        for _ in range(blocks):
            self.step()

    def lend(self) -> None:
        """Alice may have given away what the next job costs: whoever is richest gives her half."""
        world = self.world
        if world.balance("alice") < 2 * JOB.fee:
            rich = max(PEOPLE, key=world.balance)
            half = Transfer(world.key("alice").public, world.balance(rich) // 2)
            assert world.do(rich, half).code == "ok"

    def step(self) -> None:
        world, rng = self.world, self.rng
        waiting = [*self.transfers(), *self.jobs(), *self.commits(), *self.claims()]
        self.talk()
        evidence = ()
        if rng.random() < 0.01 and len(world.validators) > 2:
            evidence = (world.double_vote(rng.choice(world.validators)),)
        proposer = rng.choice(world.validators)
        late = rng.random() < 0.02
        after_ms = PARAMS.segment_timeout_ms + 1 if late else rng.randrange(1, 3000)
        parent, key = world.store.head, world.key(proposer).public
        proposed, outcome = propose_block(
            parent, world.store.head_id, world.state(), world.genesis, world.last_commit, evidence,
            waiting, key, parent.time_ms + after_ms, lambda ref, segment: rng.random() < 0.9,
        )  # fmt: skip
        assert world.check(proposed) == outcome, "choosing leaves no trace"
        body = proposed.body
        receipts = world.block(
            *body.transactions, finalise=body.finalise, evidence=body.evidence,
            proposer=proposer, after_ms=after_ms,
        )  # fmt: skip
        self.seen.update(receipt.code for receipt in receipts)
        self.seen["hard"] += len(body.finalise)
        self.seen["evidence"] += len(body.evidence)

    def open_segments(self):
        for (job_id,), _ in ACTIVE.items(self.world.state()):
            job = self.world.job(job_id)
            for index in range(job.hard, job.assigned):
                yield job_id, job, index, self.world.segment(job_id, index)

    def transfers(self):
        for sender in self.rng.sample(PEOPLE, self.rng.randrange(3)):
            to = self.world.key(self.rng.choice(PEOPLE)).public
            amount = self.rng.choice((0, 1, 1000, self.world.balance(sender) // 2, 2**62))
            yield self.world.transaction(
                sender, Transfer(to, amount), gas_price=self.rng.randrange(2), gas_limit=150_000
            )

    def jobs(self):
        if self.rng.random() < 0.15 and len(list(ACTIVE.items(self.world.state()))) < 4:
            tier = self.rng.choice(("audited", "audited", "replicated"))
            steps = self.rng.choice((1, 399, 400, 401, 900))
            job = replace(JOB, steps=steps, tier=tier, fee=self.rng.randrange(10**6))
            yield self.world.transaction("alice", job, nonce=self.next_nonce("alice"))

    def next_nonce(self, name: str) -> int:
        return get_account(self.world.state(), self.world.key(name).public).nonce

    def commits(self):
        for job_id, job, index, segment in self.open_segments():
            if segment.state == SegmentState.ASSIGNED and self.rng.random() < 0.6:
                first, _ = job.segment_range(index)
                trap = {"trap": first * job.chunk + 1, "count": 0}
                changes = trap if self.rng.random() < 0.05 else {}
                commit = self.world.make_commit(job_id, index, **changes)
                yield self.world.transaction(
                    self.world.worker_of(job_id, index), CommitSegment(commit)
                )

    def claims(self):
        for job_id, job, index, segment in self.open_segments():
            if segment.state == SegmentState.COMMITTED and self.rng.random() < 0.05:
                name = self.rng.choice(self.world.validators)
                kind = self.rng.choice(list(ClaimKind))
                mine = self.world.slice_of(name, job_id, index)
                chunk = self.rng.choice((*mine, job.segment_range(index)[0]))
                claim = self.world.claim(name, job_id, chunk, kind, index)
                yield self.world.transaction(name, claim)

    def talk(self) -> None:
        """Attestations and verdicts; in a dispute honest validators agree, and one may lie."""
        world, rng = self.world, self.rng
        for name in world.validators:
            world.announce(name, JOB.dataset)
        for job_id, _, index, segment in self.open_segments():
            if segment.commit is None:
                continue
            identity = commit_id(segment.commit)
            truth = rng.choices(list(Outcome), (6, 2, 1))[0]
            for name in world.validators:
                if segment.claim is not None:
                    said = truth if rng.random() < 0.9 else rng.choice(list(Outcome))
                    chunk = segment.claim.chunk
                    mine = Verdict(job_id, index, identity, chunk, int(said))
                    world.say(name, "verdicts", mine)
                elif rng.random() < 0.6:
                    world.say(name, "attestations", world.attestation(name, job_id, index))


def check_jobs(world: World) -> None:
    """What the tables of jobs and segments must agree on."""
    for (job_id,), job in JOBS.items(world.state()):
        is_active = ACTIVE.get(world.state(), job_id) is not None
        assert is_active == (job.state in (0, 1, 2))
        assert 0 <= job.hard <= job.assigned <= min(job.segments, job.hard + 3)
        segments = [segment for _, segment in SEGMENTS.items(world.state(), job_id)]
        assert len(segments) == job.assigned
        states = [segment.state for segment in segments]
        assert states[: job.hard] == [SegmentState.HARD] * job.hard
        assert SegmentState.HARD not in states[job.hard :]
        assert (job.escrow == 0) or is_active


@pytest.mark.parametrize("seed", [1, 2])
def test_a_history_of_transfers_jobs_disputes_and_slashes_conserves_everything(seed):
    history = History(seed)
    for _ in range(4):
        history.run(25)
        check_jobs(history.world)
    assert history.seen["ok"] > 50 and history.seen["hard"] > 0, "something happened"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_long_histories(seed):
    history = History(seed)
    for _ in range(12):
        history.run(40)
        check_jobs(history.world)


def test_the_histories_reach_what_they_are_for():
    """All endings of jobs, all kinds of faults: else the property above says little."""
    faults, states = Counter[str](), Counter[int]()
    for seed in (3, 4, 5):
        history = History(seed)
        history.run(60)
        faults.update(fault.kind for fault in history.world.faults())
        states.update(job.state for _, job in JOBS.items(history.world.state()))
    assert {"forged", "false-accusation"} <= set(faults)
    assert states[JobState.SETTLED] > 2


# ---- bytes from anywhere


def tiny_world() -> World:
    world = World()
    world.block()
    return world


WORLD = tiny_world()


def attempt(world: World, *transactions: bytes) -> None:
    """Neither a proposer nor a checker may fall over them."""
    state, parent = world.state(), world.store.head
    key = world.key("validator-0").public
    body = Body(world.last_commit, (), (), transactions)
    args = (parent, world.store.head_id, state, world.genesis, body, key, parent.time_ms + 1)
    try:
        build_block(*args)
    except InvalidBlock:
        pass
    except MlchainError as error:
        raise AssertionError(f"not the proposer's fault? {error!r}") from error


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=400))
def test_random_bytes_are_an_invalid_block_at_worst(data):
    attempt(WORLD, data)


PAYLOADS = [codec.encode(Transfer(b"b" * 32, 1)), codec.encode(JOB)]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_well_signed_transaction_with_a_twisted_payload_fails_in_order(data):
    """Past the signature and the nonce: the payload of any kind meets its decoder and its rules."""
    payload = bytearray(data.draw(st.sampled_from(PAYLOADS) | st.binary(max_size=300)))
    for _ in range(data.draw(st.integers(0, 3)) if payload else 0):
        place = data.draw(st.integers(0, len(payload) - 1))
        payload[place] = data.draw(st.integers(0, 255))
    key = WORLD.key("alice")
    kind = data.draw(st.sampled_from([*KINDS, 0, 2**63 - 1]))
    body = TransactionBody(
        WORLD.genesis.chain_id, key.public, 0, 10**8, 0, kind, bytes(payload)
    )  # fmt: skip
    attempt(WORLD, codec.encode(sign_transaction(body, key)))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_twisted_block_is_refused(data):
    """A changed byte of an honest block never passes, and never does worse than fail."""
    sent = WORLD.transaction("alice", Transfer(b"b" * 32, 1), gas_price=1)
    block, _, _ = WORLD.compose(sent)
    encoded = bytearray(codec.encode(block))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        twisted = decode_block(bytes(encoded))
        WORLD.check(twisted)
    except MlchainError:
        return
    same = replace(twisted.header, time_ms=block.header.time_ms)
    assert same == block.header, "only the time is the proposer's to choose"
