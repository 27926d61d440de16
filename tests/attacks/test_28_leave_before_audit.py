"""Row 28: who attested unseen, or forged, is gone with its bond before anybody looks."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.test_vm_custody import ME, YOU, Scene
from vm.world import AHEAD, BOND, PARAMS, World, make_genesis

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.vm import epochs
from mlchain.vm.families.changes import RemoveMember
from mlchain.vm.families.custody import audit_end
from mlchain.vm.families.governance import ChangeKeys, Leave

EPOCH = 10
SHORT = replace(PARAMS, epoch_blocks=EPOCH, unbonding_blocks=60)


def make_world() -> World:
    return World(genesis=make_genesis(params=SHORT))


def attested(world: World) -> Scene:
    """All have attested a segment, ME without having run it: it could show no digest."""
    job = world.running()
    world.commit(job)
    chunks = world.slice_of(ME, job)
    world.harden(job)
    return Scene(world, job, chunks, ())


def last_audit(scene: Scene) -> int:
    return audit_end(scene.world.segment(scene.job), SHORT)


def go_to(world: World, height: int) -> None:
    world.blocks(height - world.height)


def change_keys(world: World) -> ChangeKeys:
    return ChangeKeys(world.replacing(ME, "new-keys"))


@pytest.mark.parametrize("way", ["leave", "change keys"])
def test_who_leaves_goes_when_nobody_can_ask_it_any_more(way):
    scene = attested(make_world())
    world, end = scene.world, last_audit(scene)
    assert world.do(ME, Leave() if way == "leave" else change_keys(world)).code == "ok"
    while world.height < end:
        assert ME in world.validators
        world.block()
    world.end_epoch()
    assert ME not in world.validators and world.height <= end + EPOCH


@pytest.mark.parametrize("way", ["leave", "change keys"])
def test_a_lazy_validator_that_leaves_is_convicted_by_what_it_cannot_show(way):
    scene = attested(make_world())
    world = scene.world
    world.do(ME, Leave() if way == "leave" else change_keys(world))
    go_to(world, last_audit(scene) - 1 - AHEAD)
    assert scene.claim().code == "ok", "in the last block in which it can be asked"
    before = world.balance(YOU)
    world.blocks(SHORT.custody_window + EPOCH)
    (fault,) = world.faults()
    assert (fault.kind, fault.slashed) == ("digest-not-shown", SHORT.slash_lazy)
    assert ME not in world.validators and world.bond(ME) == BOND - SHORT.slash_lazy
    assert world.balance(YOU) == before + SHORT.slash_lazy // 2


def test_control_if_it_goes_when_the_epoch_ends_nobody_can_ask_it_and_it_takes_its_bond(
    monkeypatch,
):
    monkeypatch.setattr(epochs, "is_still_audited", lambda *about: False)
    scene = attested(make_world())
    world = scene.world
    world.do(ME, Leave())
    world.end_epoch()
    go_to(world, last_audit(scene) - 1 - AHEAD)
    assert "it has left" in scene.claim().message
    world.blocks(SHORT.unbonding_blocks + EPOCH)
    assert world.faults() == [] and world.balance(ME) >= BOND


def test_a_quorum_removes_a_validator_at_once():
    """It may be one that has lost its key: it could answer nothing."""
    scene = attested(make_world())
    others = [name for name in scene.world.validators if name != ME]
    scene.world.propose(RemoveMember(scene.world.key(ME).public), *others)
    scene.world.end_epoch()
    assert ME not in scene.world.validators


# ---- workers


def forged_and_left(world: World) -> tuple[bytes, str]:
    """A worker leaves while its segment is at work, which becomes HARD only epochs later."""
    job = world.running()
    world.commit(job)
    worker = world.worker_of(job)
    assert world.do(worker, Leave()).code == "ok"
    world.attest(job)
    world.blocks(4 * EPOCH)
    world.block(finalise=(world.ref(job),))
    return job, worker


def claim_late(world: World, job: bytes) -> int:
    """Claim it in the last block in which that is possible; return what the worker lost."""
    worker = world.worker_of(job)
    hard = world.segment(job).hard_height
    go_to(world, hard + SHORT.unbonding_blocks - 1 - AHEAD)
    world.accuse(YOU, job, 0, ClaimKind.FRAUD)
    world.judge(job, Outcome.DIFFERS)
    fault = world.faults()[0]  # those who attested the chunk pay after it
    assert fault.kind == "forged" and world.names[fault.offender] == worker
    return fault.slashed


def test_a_worker_that_left_answers_until_its_last_segment_can_be_claimed_no_more():
    world = make_world()
    job, _ = forged_and_left(world)
    assert claim_late(world, job) == SHORT.slash_worker


def test_its_bond_comes_back_afterwards():
    world = make_world()
    job, worker = forged_and_left(world)
    before = world.balance(worker)
    answers = world.segment(job).hard_height + SHORT.unbonding_blocks + SHORT.dispute_window
    go_to(world, answers - 1)
    assert world.bond(worker) == BOND
    world.end_epoch()
    assert (world.bond(worker), world.balance(worker)) == (0, before + BOND)


def test_control_counted_from_its_leaving_it_has_its_bond_before_it_is_found(monkeypatch):
    monkeypatch.setattr(epochs.LAST_HARD, "items", lambda *about: ())
    world = make_world()
    job, _ = forged_and_left(world)
    assert claim_late(world, job) == 0
