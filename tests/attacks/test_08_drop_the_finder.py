"""Row 8: f colluders attest, and a hostile proposer leaves out whoever found the fraud.

With a slice each, most honest validators find nothing: often enough 2f+1 attestations come together
although somebody holds the proof. The defence is the prevote: whoever knows of an open claim does
not vote for FINALISE, and an honest proposer within D blocks puts the claim on chain.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

import pytest
from attacks.arena import CHUNKS, detection, outvoted
from factories import make_key
from msgspec.structs import replace
from vm.world import BOND, PARAMS, World

from mlchain import codec
from mlchain.consensus.actions import Verdict
from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.ledger.block import header_id
from mlchain.node.chain import Chain
from mlchain.vm import lifecycle
from mlchain.vm.families.segments import MakeClaim

JOBS = 2000


@pytest.mark.parametrize("validators", [7, pytest.param(10, marks=pytest.mark.slow)])
def test_how_often_a_found_fraud_would_pass_and_how_often_it_does(validators):
    """Control first: attestations alone decide. Then the veto: one finder suffices."""
    forged = CHUNKS // 100
    control = outvoted(validators, forged, JOBS)
    assert control.rate > 0.07, "clearly visible: 10 % at n = 7, 23 % at n = 10"
    assert abs(control.sigmas) < 3
    unseen = detection(validators, forged, JOBS)
    assert 1 - unseen.rate < 0.005 < control.rate / 10


class Scene(NamedTuple):
    """Four validators; one of them colludes and proposes, two attested, one found the fraud."""

    world: World
    job: bytes
    colluder: str
    lucky: tuple[str, str]
    finder: str


@pytest.fixture
def scene() -> Scene:
    world = World()
    job = world.running()
    world.commit(job)
    finder, *lucky, colluder = world.validators
    world.attest(job, names=(colluder, *lucky))
    world.blocks(2)
    return Scene(world, job, colluder, (lucky[0], lucky[1]), finder)


def node(scene: Scene, name: str, *waiting: bytes) -> Chain:
    """What a validator knows: the chain, its own attestation, the transactions gossip brought."""
    attested = name in scene.lucky
    hours_ms = count(0, 3_600_000)  # patience has passed: what is left is the veto
    chain = Chain(
        scene.world.store,
        make_key(name).public,
        lambda ref, commit: attested,
        lambda: next(hours_ms),
    )
    for transaction in waiting:
        chain.add_transaction(transaction)
    return chain


def claim(scene: Scene, **changes: object) -> bytes:
    return scene.world.transaction(
        scene.finder, scene.world.claim(scene.finder, scene.job, 7), **changes
    )


def prevotes(scene: Scene, *waiting: bytes) -> dict[str, Verdict]:
    """Every honest validator's verdict on a hostile block that finalises and takes no claim."""
    world = scene.world
    block, _, _ = world.compose(finalise=(world.ref(scene.job),), proposer=scene.colluder)
    identity, data = header_id(block.header), codec.encode(block)
    now_ms = block.header.time_ms
    return {
        name: node(scene, name, *waiting).check(identity, data, now_ms)[0]
        for name in (*scene.lucky, scene.finder)
    }


def passes(verdicts: dict[str, Verdict]) -> bool:
    """The colluder votes for it, and three of four are a quorum."""
    return 1 + sum(verdict == Verdict.VALID for verdict in verdicts.values()) >= 3


def test_a_hostile_block_finds_no_quorum_while_a_claim_of_fraud_waits(scene):
    verdicts = prevotes(scene, claim(scene))
    assert set(verdicts.values()) == {Verdict.UNWANTED} and not passes(verdicts)


def test_whoever_did_not_attest_does_not_want_it_even_without_a_claim(scene):
    verdicts = prevotes(scene)
    assert verdicts[scene.finder] == Verdict.UNWANTED
    assert passes(verdicts), "but that is one vote of four: its own attestation is not enough"


@pytest.mark.parametrize("kept", ["nothing", "own attestation"])
def test_control_without_the_claim_in_the_veto_the_fraud_passes(scene, kept, monkeypatch):
    """The block is valid: the chain asks for 2f+1 attestations, and there they are."""
    if kept == "nothing":
        monkeypatch.setattr(Chain, "_is_wanted", lambda self, ref, segment: True)
    else:
        monkeypatch.setattr(Chain, "_is_accused", lambda self, commit: False)
    assert passes(prevotes(scene, claim(scene)))


def test_an_honest_proposer_puts_the_claim_first(scene):
    world = scene.world
    honest = node(scene, scene.lucky[0], claim(scene))
    block, _ = honest.build(world.store.head.time_ms + 1000, world.last_commit)
    assert block.body.transactions == (claim(scene),) and block.body.finalise == ()


HARMLESS = {
    "of not being served, which costs nothing": lambda s: s.world.transaction(
        s.finder, s.world.claim(s.finder, s.job, s.world.slice_of(s.finder, s.job)[0], UNSERVED)
    ),
    "against another commit": lambda s: s.world.transaction(
        s.finder, replace(s.world.claim(s.finder, s.job, 7), commit=bytes(32))
    ),
    "that would run out of gas": lambda s: claim(s, gas_limit=104_600),
    "that no block has room for": lambda s: claim(s, gas_limit=10**9),
    "behind a gap": lambda s: claim(s, nonce=5),
}
UNSERVED = ClaimKind.UNSERVED


@pytest.mark.parametrize("name", HARMLESS)
def test_nobody_holds_up_the_chain_with_a_claim(scene, name):
    """What can never be settled, or costs its sender nothing, must not stop FINALISE for ever."""
    verdicts = prevotes(scene, HARMLESS[name](scene))
    assert [verdicts[lucky] for lucky in scene.lucky] == [Verdict.VALID] * 2


@pytest.mark.parametrize("name", [name for name in HARMLESS if name != "behind a gap"])
def test_control_if_any_claim_counted_one_validator_would_hold_up_the_chain(
    scene, name, monkeypatch
):
    def is_claim(self, transaction, commit):
        return transaction.body.kind == MakeClaim.KIND

    monkeypatch.setattr(Chain, "_is_open_claim", is_claim)
    assert not passes(prevotes(scene, HARMLESS[name](scene)))


def test_a_rejected_claim_holds_up_no_longer(scene):
    """It is settled on chain, its accuser pays, and then FINALISE goes its way."""
    world = scene.world
    world.accuse(scene.finder, scene.job, 7)
    world.judge(scene.job, Outcome.EQUAL)
    world.blocks(3)
    again = prevotes(scene, claim(scene))
    assert [again[lucky] for lucky in scene.lucky] == [Verdict.VALID] * 2
    assert world.faults()[0].kind == "false-accusation"


# ---- and what it costs to lend oneself to it


def find(scene: Scene) -> None:
    """The claim is on chain at last, about a chunk that the colluder drew, too; all re-run it."""
    world = scene.world
    drawn = {name: set(world.slice_of(name, scene.job)) for name in world.validators}
    forged = (drawn[scene.finder] & drawn[scene.colluder]).difference(*map(drawn.get, scene.lucky))
    world.accuse(scene.finder, scene.job, min(forged))
    world.judge(scene.job, Outcome.DIFFERS)


def test_a_colluder_that_attested_what_is_found_forged_loses_its_slash_and_its_seat(scene):
    find(scene)
    world = scene.world
    assert world.bond(scene.colluder) == BOND - PARAMS.slash_lazy
    assert sorted(world.validators) == sorted((scene.finder, *scene.lucky)), "nobody else does"


def test_control_without_the_rule_to_collude_costs_the_validator_nothing(scene, monkeypatch):
    monkeypatch.setattr(lifecycle, "slash_false_attesters", lambda *args: None)
    find(scene)
    assert scene.world.bond(scene.colluder) == BOND
    assert scene.colluder in scene.world.validators
