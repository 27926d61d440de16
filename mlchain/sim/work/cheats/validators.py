"""Validators that lie about work, or help a worker that does."""

from __future__ import annotations

import dataclasses
from typing import Any

import trio
from msgspec.structs import replace

from mlchain.consensus.work.attestation import Attestation, Outcome, Verdict
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.custody import result_root
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.consensus.work.tickets import BEACON, CUSTODY, PURPOSES, TICKETS
from mlchain.crypto import SecretKey, digest
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.state import State
from mlchain.node.auditor import Auditor
from mlchain.node.chains import OwnChains
from mlchain.node.duties import Duties
from mlchain.node.subject import Finding, Target
from mlchain.sim.work.cheat import Cheat
from mlchain.sim.work.cheats.proposers import BlindChain, NarrowChain
from mlchain.sim.work.cheats.submitters import hand_in
from mlchain.sim.work.machine import SimulatedNode
from mlchain.vm.families.announcements import Announce, announcement, find_announcement
from mlchain.vm.families.jobs import Claim, Job, segment_slice
from mlchain.vm.families.reports import ReportReveal

AHEAD = 100
"""Heights between two elements that are lent."""


class LazyAuditor(Auditor):
    """Attests whatever is committed, without fetching a byte, and judges unseen."""

    async def _audit(self, state: State, target: Target) -> None:
        ticket = self.duties.ticket(target.segment.commit_height)
        if ticket is not None:
            mine = attest(target, ticket, self.key)
            self.duties.add_attestation(mine, target.segment.attest_from)

    async def _vote(self, state: State, target: Target) -> None:
        claim = target.segment.claim
        assert claim is not None
        if self.key not in [ballot.validator for ballot in claim.ballots]:
            self.duties.add_verdict(make_verdict(target, claim, Outcome.EQUAL))


def attest(target: Target, ticket: bytes, validator: bytes) -> Attestation:
    """Return an attestation of a slice that nobody looked at."""
    job: Job = target.job
    drawn = segment_slice(job, target.segment, validator, ticket)
    root = result_root(drawn, tuple(bytes(32) for _ in drawn))
    return Attestation(target.job_id, target.number, commit_id(target.commit), ticket, root)


def make_verdict(target: Target, claim: Claim, outcome: Outcome) -> Verdict:
    """Return a verdict on an open claim."""
    identity = commit_id(target.commit)
    return Verdict(target.job_id, target.number, identity, claim.chunk, int(outcome))


class Lazy(Cheat):
    """Attests unseen, and rules unseen."""

    row = "10 attest without re-running"
    parts = {"auditor_type": LazyAuditor}


class LendKey(Lazy):
    """Has somebody else make its digests, and lends the key for it, who reports the loan."""

    row = "11 lend a custody key"
    must_fail = True

    async def run(self) -> None:
        """Lend an element of a height far ahead; mallory announces it, waits and shows it."""
        assert self.place is not None
        while True:
            await trio.sleep(1)
            node = self.place.node
            if node is None or node.duties is None:
                continue
            height = AHEAD * (1 + node.chain.height // AHEAD) + node.chain.params.attest_window
            element = node.duties.chains.element(CUSTODY, height)
            if element is None:
                continue
            about = (node.duties.key, PURPOSES.index(CUSTODY), height, element)
            loan = ReportReveal(*about, 0)
            announced = find_announcement(node.chain.state(), self.world.mallory, loan)
            if announced is None:
                await hand_in(self, Announce(announcement(self.world.mallory, loan)))
            else:
                await hand_in(self, replace(loan, announced=announced))


class Accomplice(Cheat):
    """All that a validator can do for a forger; see `collude`."""

    row = "8 pick and drop voters, for a worker"
    parts = {"auditor_type": LazyAuditor, "chain_type": NarrowChain}


class Lie(Cheat):
    """`mlchain node --adversary lie`: accuses honest workers, then equivocates."""

    row = "12 false accusation"
    misbehaviour = "lie"


class _WrongJudge(Auditor):
    async def _audit(self, state: State, target: Target) -> None:
        chunk, identity = target.job.segment_range(target.number)[0], commit_id(target.commit)
        if not target.segment.cleared and identity not in self._claims:
            finding = Finding(ClaimKind.FRAUD, chunk, "so it says")
            self._claims[identity] = self._send_claim(target.commit, finding, bytes(32))

    async def _vote(self, state: State, target: Target) -> None:
        claim = target.segment.claim
        assert claim is not None
        if self.key not in [ballot.validator for ballot in claim.ballots]:
            is_fraud = claim.kind == ClaimKind.FRAUD
            wrong = Outcome.DIFFERS if is_fraud else Outcome.UNSERVED
            self.duties.add_verdict(make_verdict(target, claim, wrong))


class _ComplainingAuditor(_WrongJudge):
    async def _audit(self, state: State, target: Target) -> None:
        ticket = self.duties.ticket(target.segment.commit_height)
        identity = commit_id(target.commit)
        if ticket is None or identity in self._claims:
            return
        offsets = segment_slice(target.job, target.segment, self.key, ticket)
        chunk = target.job.segment_range(target.number)[0] + (offsets[0] if offsets else 0)
        if chunk not in target.segment.cleared:
            finding = Finding(ClaimKind.UNSERVED, chunk, "so it says")
            self._claims[identity] = self._send_claim(target.commit, finding, ticket)


class FalseUnserved(Cheat):
    """Says of every worker that it does not serve, and rules so."""

    row = "15 claim falsely that states are not served"
    parts = {"auditor_type": _ComplainingAuditor}


class WrongVerdicts(Cheat):
    """Accuses every worker of fraud, and rules against it."""

    row = "12 wrong verdicts"
    parts = {"auditor_type": _WrongJudge}


class _WrongChains(OwnChains):
    def element(self, purpose: str, height: int) -> bytes | None:
        return super().element(TICKETS if purpose == BEACON else purpose, height)


class _WrongBeacon(Duties):
    def __init__(self, genesis: Genesis, key: SecretKey) -> None:
        super().__init__(genesis, key)
        self.chains = _WrongChains(genesis, key)


class WrongBeacon(Cheat):
    """Shows elements of another hash chain: its precommits are no votes."""

    row = "7 choose the public randomness"
    parts = {"duties_type": _WrongBeacon}


class _OtherTickets(Duties):
    def ticket(self, height: int) -> bytes | None:
        real = super().ticket(height)
        return digest("sim/ticket", real) if real else None


class GrindTickets(Cheat):
    """Shows tickets of its own choice, for a slice that suits it."""

    row = "7 grind the seed of the sample"
    parts = {"duties_type": _OtherTickets}


class EarlyAttest(Cheat):
    """Attests in the very precommit that makes the commit final: its ticket was out before."""

    row = "9 attest before the certificate"
    parts = {"chain_type": BlindChain, "auditor_type": LazyAuditor}

    def corrupt(self, node: SimulatedNode) -> None:
        assert isinstance(node.chain, BlindChain) and node.auditor is not None
        node.chain.on_checked = lambda state: self._attest(node, state)

    def _attest(self, node: Any, state: State) -> None:
        for target in node.chain.committed_in(state):
            ticket = node.duties.ticket(node.chain.height + 1)
            if ticket is not None and target.segment.commit_height == node.chain.height + 1:
                node.duties.add_attestation(attest(target, ticket, node.duties.key))


class _OwnAuditor(Auditor):
    async def _begin_all(self, nursery: trio.Nursery, state: State) -> None:
        await super()._begin_all(nursery, state)
        assert isinstance(self.chain, BlindChain)
        for target in self.chain.committed_in(state):
            ticket = self.duties.ticket(target.segment.commit_height)
            if target.segment.worker == self.key and ticket is not None:
                mine = attest(target, ticket, self.key)
                self.duties.add_attestation(mine, target.segment.attest_from)


class OwnWork(Cheat):
    """Works under its validator's key, and attests that work itself."""

    row = "17 validate one's own work"
    corrupts = "operator"
    parts = {"chain_type": BlindChain, "auditor_type": _OwnAuditor}

    @classmethod
    def found(cls, genesis: Genesis) -> Genesis:
        """Name the first validator among the workers as well, which no real genesis may do."""
        operator = next(m for m in genesis.members if m.role == "validator")
        worker = next(m for m in genesis.members if m.role == "worker")
        others = tuple(m for m in genesis.members if m is not worker)
        return replace(genesis, members=(replace(worker, key=operator.key), *others))

    def corrupt(self, node: SimulatedNode) -> None:
        if node.keys.validator is not None:
            node.keys = dataclasses.replace(node.keys, worker=node.keys.validator)
            node.worker = node._make_worker("", "", "")
